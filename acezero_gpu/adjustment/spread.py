"""A choice of points that is as good for the poses as all of them, and far smaller."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from acezero_gpu.adjustment.merging import hashed_order

LONG_TRACK = 8
"""Points that more views than this see are not preferred further: the next view adds little and costs as much."""


def well_spread(
    view_index: Int[Tensor, " k"],
    point_index: Int[Tensor, " k"],
    pixels: Float[Tensor, "k 2"],
    num_points: int,
    extent_px: Float[Tensor, " 2"],
    *,
    cells_per_side: int,
    points_per_cell: int,
) -> Bool[Tensor, " points"]:
    """Points so that every view keeps, in each cell of a grid on it, the ``points_per_cell`` that most views see.

    The poses hang on observations that cover the image and reach across many views; more of them in the same place
    say the same again. In a dense video the kept ones grow with the frames only, not with how often each place
    is seen. ``extent_px`` is the size of the image.
    """
    length = torch.bincount(point_index, minlength=num_points).clamp_max(LONG_TRACK)
    # Among equals by a hash of their number, not by where they stand in the image.
    hashed = hashed_order(num_points, point_index.device)
    by_rank = hashed[length[hashed].argsort(descending=True, stable=True)]
    rank = torch.empty_like(by_rank)
    rank[by_rank] = torch.arange(num_points, device=rank.device)
    cell = (pixels / extent_px * cells_per_side).long().clamp(0, cells_per_side - 1)
    group = (view_index * cells_per_side + cell[:, 1]) * cells_per_side + cell[:, 0]
    order = torch.argsort(group * num_points + rank[point_index])
    group = group[order]
    count = torch.bincount(group)
    position = torch.arange(len(group), device=group.device) - (count.cumsum(0) - count)[group]
    chosen = torch.zeros(num_points, dtype=torch.bool, device=point_index.device)
    chosen[point_index[order[position < points_per_cell]]] = True
    return chosen
