"""What the views can know of a point before anything moves: its place, its direction, or neither."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from acezero_gpu.geometry import camera_centres

LEAST_PARALLAX_PX = 0.02
"""Rays that differ by less than this say nothing of a depth: no keypoint is as exact."""


def parallax(
    points: Float[Tensor, "points 3"],
    cam_from_world: Float[Tensor, "views 3 4"],
    view_index: Int[Tensor, " k"],
    point_index: Int[Tensor, " k"],
    focal_px: Float[Tensor, ""],
) -> tuple[Bool[Tensor, " points"], Bool[Tensor, " points"], Float[Tensor, "points 3"]]:
    """Whether at least two views see the point, whether with parallax, and its mean direction from them.

    Without parallax (one view, views in one place, or a point as good as infinitely far) the direction is known at
    most.
    """
    pair = (point_index * len(cam_from_world) + view_index).unique()
    several = torch.bincount(pair // max(1, len(cam_from_world)), minlength=len(points)) >= 2
    away = points[point_index] - camera_centres(cam_from_world)[view_index]
    ray = away / away.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(away.dtype).tiny)
    total = torch.zeros_like(points).index_add_(0, point_index, ray)
    mean = torch.nn.functional.normalize(total, dim=-1)
    aside = (ray - mean[point_index]).norm(dim=-1)
    widest = torch.zeros_like(points[:, 0]).scatter_reduce(0, point_index, aside, "amax")
    return several, several & (2 * focal_px * widest >= LEAST_PARALLAX_PX), mean
