"""Which view observes which point, and sums over that graph."""

from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from acezero_gpu.adjustment.row_groups import RowGroups

MOST_PAIRS = 1 << 25
"""With more pairs of observations of one point than this, the reduced matrix is not formed: their list alone would
take a gigabyte."""


def rows_per_chunk(device: torch.device) -> int:
    """Observations (or pairs of them) worked on at once: little beyond a CPU's cache, enough to fill a GPU.

    Smaller pieces are no faster on one CPU thread, and slower where threads must wait for each other.
    """
    return 1 << 14 if device.type == "cpu" else 1 << 20


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
        self._points_move = points_move

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

    @cached_property
    def by_view(self) -> RowGroups:
        """Observations of each moving view, and behind them those of all others."""
        every = torch.arange(len(self), device=self.slot.device)
        return RowGroups(self.slot, self.views + 1, every, every, len(self))

    @cached_property
    def by_point(self) -> RowGroups:
        """Observations of each point."""
        every = torch.arange(len(self), device=self.slot.device)
        return RowGroups(self.point, self.points, every, every, len(self))

    @cached_property
    def pair_count(self) -> int:
        """Ordered pairs of observations of one point, in moving views; none where the points are held."""
        if not self._points_move:
            return 0
        seen = torch.bincount(self.point[self.slot < self.views], minlength=self.points)
        return int(seen.square().sum())

    @cached_property
    def by_view_pair(self) -> RowGroups:
        """Pairs of two observations of one point, by ``slot of first * views + slot of second``.

        The first slot is never the smaller one (the lower triangle). A view that observes a point twice gives both
        orders, and an observation makes no pair with itself: those are the diagonal blocks.
        """
        chunks = list(self.pairs())
        nothing = self.slot[:0]
        first, second, block = (torch.cat(x) for x in zip((nothing, nothing, nothing), *chunks, strict=True))
        return RowGroups(block, self.views * self.views, first, second, len(self))

    def pairs(self) -> Iterator[tuple[Int[Tensor, " m"], Int[Tensor, " m"], Int[Tensor, " m"]]]:
        """Those pairs with their place, ``(first, second, block)``, in chunks."""
        observations = (self.slot < self.views).nonzero()[:, 0] if self._points_move else self.slot[:0]
        slot, point = self.slot[observations], self.point[observations]
        count = torch.bincount(point, minlength=self.points)
        start, count = (count.cumsum(0) - count)[point], count[point]
        for low, high in pairwise(_chunk_bounds(count)):
            repeats = count[low:high]
            first = torch.arange(low, high, device=slot.device).repeat_interleave(repeats)
            group_start = (repeats.cumsum(0) - repeats).repeat_interleave(repeats)
            second = start[first] + torch.arange(len(first), device=slot.device) - group_start
            lower = (slot[first] >= slot[second]) & (first != second)
            first, second = first[lower], second[lower]
            yield observations[first], observations[second], slot[first] * self.views + slot[second]


def _chunk_bounds(count: Int[Tensor, " k"]) -> list[int]:
    """Where to cut the observations so that each piece has about the wanted number of pairs.

    Half of the ordered pairs fall away later, hence twice the chunk here.
    """
    ends = count.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    if total == 0:
        return []
    wanted = torch.arange(0, total, 2 * rows_per_chunk(count.device), device=count.device)
    return [*torch.searchsorted(ends, wanted, right=True).unique().tolist(), len(count)]
