"""Bounded memory: how many items of a batch are worked on at once."""

from collections.abc import Iterator


def chunk_size_for(bytes_per_item: int, budget_bytes: int) -> int:
    """The most items whose working memory stays within the budget; at least one."""
    return max(1, budget_bytes // max(1, bytes_per_item))


def chunk_ranges(total: int, chunk: int) -> Iterator[slice]:
    """Slices that cover ``range(total)`` in order, each of at most ``chunk`` items."""
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    for start in range(0, total, chunk):
        yield slice(start, min(start + chunk, total))
