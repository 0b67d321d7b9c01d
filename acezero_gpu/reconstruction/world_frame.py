"""Adjustment leaves a world's place and rotation open: adjusted views stay where they were."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from acezero_gpu.adjustment.joint import JointResult
from acezero_gpu.geometry import camera_centres, fit_similarity


def in_frame_of(joint: JointResult, before: Float[Tensor, "v 3 4"], held: Bool[Tensor, " v"]) -> JointResult:
    """The adjusted views moved rigidly, as one, to where they were on average.

    Adjustment holds one view, so that view's own error would turn the whole world against the map. Cameras on a
    line leave a rotation about it open; a point ahead of each camera on every axis closes it.
    """
    lever = joint.depth().median() if len(joint.view_index) else before.new_ones(())
    weights = held.to(before.dtype).repeat_interleave(4)
    rigid = fit_similarity(
        _camera_tripods(joint.cam_from_world, lever),
        _camera_tripods(before, lever),
        weights,
        with_scale=False,
    )
    return replace(
        joint, cam_from_world=rigid.apply_to_cameras(joint.cam_from_world), points=rigid.apply(joint.points)
    )


def _camera_tripods(cam_from_world: Float[Tensor, "v 3 4"], lever: Tensor) -> Float[Tensor, "tips 3"]:
    """Each camera's centre and the ends of its axes, in world coordinates."""
    centres = camera_centres(cam_from_world)[:, None]
    return torch.cat([centres, centres + lever * cam_from_world[..., :3]], dim=1).flatten(0, 1)
