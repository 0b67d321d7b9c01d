"""Which view observes which point, and sums over that graph."""

from collections.abc import Iterator
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

CACHED_PAIRS = 1 << 24
"""Pair lists up to this length are kept between iterations."""


def rows_per_chunk(device: torch.device) -> int:
    """Observations (or pairs of them) worked on at once: little beyond a CPU's cache, enough to fill a GPU.

    Smaller pieces are no faster on one CPU thread, and slower where threads must wait for each other.
    """
    return 1 << 15 if device.type == "cpu" else 1 << 20


class ObservationGraph:
    """Observations ordered by point. Views that do not move share one spare slot behind the moving ones.

    Fixed during an adjustment, so that everything that depends on indices alone is computed once.
    """

    def __init__(
        self,
        view_index: Int[Tensor, " k"],
        point_index: Int[Tensor, " k"],
        moving: Bool[Tensor, " views"],
        points: int,
        *,
        points_move: bool = True,
    ) -> None:
        self.moving_views = moving.nonzero()[:, 0]
        self.views = len(self.moving_views)
        self.points = points
        self.view = view_index
        self.point = point_index
        self.slot = torch.where(moving, moving.cumsum(0) - 1, self.views)[view_index]
        self._pairs: list[tuple[Tensor, Tensor, Tensor]] | None = None if points_move else []

    def __len__(self) -> int:
        return len(self.slot)

    def of_view(self, values: Float[Tensor, "views n"]) -> Float[Tensor, "k n"]:
        """The row of the observing view for each observation; zero for views that do not move."""
        return torch.cat([values, values.new_zeros(1, values.shape[1])]).index_select(0, self.slot)

    def per_view(self, values: Float[Tensor, "k *rest"]) -> Float[Tensor, "views *rest"]:
        """Sums over the observations of each moving view."""
        flat = values.flatten(1)
        total = flat.new_zeros(self.views + 1, flat.shape[1]).index_add_(0, self.slot, flat)
        return total[: self.views].unflatten(1, values.shape[1:])

    def per_point(self, values: Float[Tensor, "k *rest"]) -> Float[Tensor, "points *rest"]:
        """Sums over the observations of each point."""
        flat = values.flatten(1)
        total = flat.new_zeros(self.points, flat.shape[1]).index_add_(0, self.point, flat)
        return total.unflatten(1, values.shape[1:])

    def pairs(self) -> Iterator[tuple[Int[Tensor, " m"], Int[Tensor, " m"], Int[Tensor, " m"]]]:
        """Chunks of ``(first, second, block)``: two observations of one point, and where their product goes.

        ``block = slot of first * views + slot of second``, and the first slot is never the smaller one (the
        lower triangle). A view that observes a point twice gives both orders.
        """
        if self._pairs is not None:
            yield from self._pairs
            return
        observations = (self.slot < self.views).nonzero()[:, 0]
        slot, point = self.slot[observations], self.point[observations]
        count = torch.bincount(point, minlength=self.points)
        start, count = (count.cumsum(0) - count)[point], count[point]
        bounds, total = _chunk_bounds(count)
        kept = []
        for low, high in pairwise(bounds):
            repeats = count[low:high]
            first = torch.arange(low, high, device=slot.device).repeat_interleave(repeats)
            group_start = (repeats.cumsum(0) - repeats).repeat_interleave(repeats)
            second = start[first] + torch.arange(len(first), device=slot.device) - group_start
            lower = (slot[first] >= slot[second]) & (first != second)
            first, second = first[lower], second[lower]
            chunk = (observations[first], observations[second], slot[first] * self.views + slot[second])
            if total <= CACHED_PAIRS:
                kept.append(chunk)
            yield chunk
        if total <= CACHED_PAIRS:
            self._pairs = kept


def _chunk_bounds(count: Int[Tensor, " k"]) -> tuple[list[int], int]:
    """Where to cut the observations so that each piece has about the wanted number of pairs, and the total.

    Half of the ordered pairs fall away later, hence twice the chunk here.
    """
    ends = count.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    if total == 0:
        return [], 0
    wanted = torch.arange(0, total, 2 * rows_per_chunk(count.device), device=count.device)
    bounds = torch.searchsorted(ends, wanted, right=True).unique().tolist()
    return [*bounds, len(count)], total
