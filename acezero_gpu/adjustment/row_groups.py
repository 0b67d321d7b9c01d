"""Sums of small matrix products over groups of rows, as few large batched products."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from acezero_gpu.runtime import chunk_ranges

FILLED_SHARE = 0.8
"""Groups share a batch if the smallest has this share of the largest one's rows; the rest is padding."""
CPU_ROWS, GPU_ROWS = 1 << 13, 1 << 21
"""Rows per batch: what stays in a CPU's cache, or fills a GPU."""


@dataclass(frozen=True, slots=True)
class _Batch:
    groups: Int[Tensor, " g"]
    """Which groups."""
    left: Int[Tensor, " g_times_rows"]
    """Their rows on the left, padded with the number of the table's last row, which is zero."""
    right: Int[Tensor, " g_times_rows"]
    """The partner of each."""


class RowGroups:
    """Which rows of a table belong to which group; fixed, so that everything about indices is computed once.

    ``Σ left_iᵀ right_j`` over a group's pairs of rows (i, j) is one matrix product of the stacked rows. Groups of
    about the same size are padded to one batch: no scattered additions, and results that do not depend on an order.
    """

    def __init__(
        self,
        group: Int[Tensor, " n"],
        groups: int,
        left: Int[Tensor, " n"],
        right: Int[Tensor, " n"],
        padding: int,
    ) -> None:
        """Item n adds the product of rows ``left[n]`` and ``right[n]`` to ``group[n]``."""
        self._groups = groups
        self._batches: list[_Batch] = []
        order = group.argsort(stable=True)
        same = left is right
        left, right = left[order], right[order]
        count = torch.bincount(group, minlength=groups)
        start = count.cumsum(0) - count
        by_size = count.argsort(descending=True, stable=True)
        by_size = by_size[: int((count > 0).sum())]
        limit = CPU_ROWS if group.device.type == "cpu" else GPU_ROWS
        for part, width in _batches(count[by_size].tolist(), limit):
            chosen = by_size[part]
            step = torch.arange(width, device=group.device)
            place = (start[chosen][:, None] + step).clamp_max(len(group) - 1)
            real = step < count[chosen][:, None]
            rows = torch.where(real, left[place], padding).flatten()
            partners = rows if same else torch.where(real, right[place], padding).flatten()
            self._batches.append(_Batch(chosen, rows, partners))

    def products(
        self, left: Float[Tensor, "rows r a"], right: Float[Tensor, "rows r b"]
    ) -> Float[Tensor, "groups a b"]:
        """The sum over each group; the last row of both tables must be zero."""
        a, b = left.shape[2], right.shape[2]
        total = left.new_zeros(self._groups, a, b)
        left_flat, right_flat = left.flatten(1), right.flatten(1)
        for batch in self._batches:
            count = len(batch.groups)
            first = left_flat.index_select(0, batch.left).view(count, -1, a)
            if right is left and batch.right is batch.left:
                second = first
            else:
                second = right_flat.index_select(0, batch.right).view(count, -1, b)
            total[batch.groups] = torch.bmm(first.mT, second)
        return total


def _batches(sizes: list[int], limit: int) -> list[tuple[slice, int]]:
    """Ranges of descending sizes with the width that each is padded to."""
    found: list[tuple[slice, int]] = []
    start = 0
    for end in range(1, len(sizes) + 1):
        if end == len(sizes) or sizes[end] < FILLED_SHARE * sizes[start]:
            width = sizes[start]
            for part in chunk_ranges(end - start, max(1, limit // width)):
                found.append((slice(start + part.start, start + part.stop), width))
            start = end
    return found
