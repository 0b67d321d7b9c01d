"""Bounded memory: how many items of a batch are worked on at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_LIMIT: ContextVar[int | None] = ContextVar("most working memory", default=None)


@contextmanager
def limited_working_memory(most_bytes: int | None) -> Iterator[None]:
    """No chunk inside is given more than this, whatever its own budget is; None sets no limit."""
    token = _LIMIT.set(most_bytes)
    try:
        yield
    finally:
        _LIMIT.reset(token)


def chunk_size_for(bytes_per_item: int, budget_bytes: int) -> int:
    """The most items whose working memory stays within the budget; at least one."""
    limit = _LIMIT.get()
    budget_bytes = budget_bytes if limit is None else min(limit, budget_bytes)
    return max(1, budget_bytes // max(1, bytes_per_item))


def chunk_ranges(total: int, chunk: int) -> Iterator[slice]:
    """Slices that cover ``range(total)`` in order, each of at most ``chunk`` items."""
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    for start in range(0, total, chunk):
        yield slice(start, min(start + chunk, total))
