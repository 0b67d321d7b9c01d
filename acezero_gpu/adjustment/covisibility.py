"""Which views see the same place, by the poses and points of an adjustment: no pictures compared, no pairs matched."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from acezero_gpu.adjustment.joint import JointResult
from acezero_gpu.adjustment.merging import hashed_order
from acezero_gpu.geometry import camera_centres, reproject
from acezero_gpu.runtime import chunk_ranges

SAMPLED_POINTS = 4096
"""Points that overlaps are counted on."""
FACING_COS = math.cos(math.radians(35.0))
"""A point is taken to be seen from directions up to this angle off the mean of those it was seen from."""
VIEWS_AT_ONCE = 256


def covisible_pairs(joint: JointResult, partners: int, min_overlap: float) -> Int[Tensor, "p 2"]:
    """Pairs of rows of ``joint``'s views, each once, smaller first; about ``partners`` for each view.

    Candidates see at least ``min_overlap`` of the points that either of the two sees. Of a view's candidates, in the
    order of their overlap, evenly spaced ones are taken: near views to hold fast to and far ones for parallax, in
    the same proportions however densely the scene was photographed.
    """
    seen = _seen(joint).to(joint.points.dtype)
    count = seen.sum(1)
    rows = [torch.zeros(0, 2, dtype=torch.long)]
    for chunk in chunk_ranges(len(seen), VIEWS_AT_ONCE):
        both = seen[chunk] @ seen.mT
        share = both / (count[chunk, None] + count - both).clamp_min(1)
        own = torch.arange(len(seen), device=share.device)[chunk]
        share[torch.arange(len(own), device=share.device), own] = -1
        order = share.argsort(dim=1, descending=True, stable=True)
        candidates = (share >= min_overlap).sum(1)
        step = torch.linspace(0, 1, partners, device=share.device)
        rank = (step * (candidates - 1).clamp_min(0)[:, None]).round().long()
        pairs = torch.stack([own[:, None].expand_as(rank), order.gather(1, rank)], dim=-1)
        rows.append(pairs[candidates > 0].flatten(0, 1).cpu())
    return torch.cat(rows).sort(dim=1).values.unique(dim=0)


def _seen(joint: JointResult) -> Bool[Tensor, "v points"]:
    """Which of the sampled points lie in each view's image, seen from about where they were seen from."""
    centres = camera_centres(joint.cam_from_world)
    towards = F.normalize(centres[joint.view_index] - joint.points[joint.point_index], dim=-1)
    facing = F.normalize(torch.zeros_like(joint.points).index_add_(0, joint.point_index, towards), dim=-1)
    # By a hash: points are numbered by where they were found.
    sample = hashed_order(len(joint.points), joint.points.device)[:SAMPLED_POINTS]
    points, facing = joint.points[sample], facing[sample]
    size = 2 * joint.camera.principal_point_px
    rows = [torch.zeros(0, len(points), dtype=torch.bool, device=points.device)]
    for chunk in chunk_ranges(len(centres), VIEWS_AT_ONCE):
        poses = joint.cam_from_world[chunk]
        there = reproject(points.expand(len(poses), -1, -1), poses, joint.camera)
        inside = ((there.pixels > 0) & (there.pixels < size)).all(-1) & (there.depth > 0)
        direction = F.normalize(centres[chunk, None] - points, dim=-1)
        rows.append(inside & ((direction * facing).sum(-1) > FACING_COS))
    return torch.cat(rows)
