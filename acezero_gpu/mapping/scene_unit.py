"""The unit of a world: heads and losses are made for scenes of metres, given poses may be in millimetres."""

import math
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from acezero_gpu.geometry import camera_centres
from acezero_gpu.mapping.training_config import FrameTable
from acezero_gpu.network import Head

DEPTH_PER_SPACING = 3.0
"""Typical depth over the geometric mean of the cameras' extent and the distance of neighbours; of walks and turntables,
the order of magnitude."""
USUAL_DEPTH = 3.0
LARGEST_DEPTH = 150.0
"""A world of no more typical depth is trained as it is. Small ones are left alone: a camera that turns nearly on the
spot says nothing of how far it sees."""
LOOKED_AT = 500
"""Cameras, evenly spread, whose distance to all others is measured."""


def scene_unit(cam_from_world: Float[Tensor, "f 3 4"]) -> float:
    """How many units of the world stand for one that suits the training; 1 but for worlds of small units.

    Guessed from where the cameras stand.
    """
    centres = camera_centres(cam_from_world.detach().cpu().double())
    rows = torch.linspace(0, len(centres) - 1, min(LOOKED_AT, len(centres))).round().long()
    # Exact differences: a world far from its origin would lose the small ones.
    apart = torch.cdist(centres[rows], centres, compute_mode="donot_use_mm_for_euclid_dist")
    extent = float(apart.max())
    apart[torch.arange(len(rows)), rows] = torch.inf
    nearest = float(apart.min(dim=1).values.median())
    depth = DEPTH_PER_SPACING * math.sqrt(extent * nearest)
    return depth / USUAL_DEPTH if LARGEST_DEPTH < depth < math.inf else 1.0


def scaled_table(table: FrameTable, factor: float) -> FrameTable:
    """The frames in a world that is so many times larger."""
    poses, depths = table.cam_from_world.clone(), table.depth_targets
    poses[..., 3] *= factor
    return replace(table, cam_from_world=poses, depth_targets=None if depths is None else factor * depths)


@torch.no_grad()
def scale_head_(head: Head, factor: float) -> Head:
    """Makes it predict the same points in a world that is so many times larger; the head itself is changed."""
    head.unit *= factor
    head.centre *= factor
    return head
