"""Work that goes on in smaller pieces where memory runs out."""

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

LOG = logging.getLogger(__name__)
Result = TypeVar("Result")

_halvings: dict[str, int] = {}
"""How often the pieces of each stage have been halved in this process: what did not fit once will not fit again."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the CPU, had no memory left; PyTorch has no type of its own for the CPU."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def halving(stage: str, most: int, attempt: Callable[[int], Result]) -> Result:
    """``attempt`` with ``most`` items at once; with half as many, and again, where memory runs out.

    It is called anew, so it must not build on what a failed call has left. A warning tells of the first time in each
    ``stage``, and later calls begin with what did fit. One item that does not fit raises the error.
    """
    while True:
        size = max(1, most >> _halvings.get(stage, 0))
        try:
            return attempt(size)
        except Exception as error:
            if size == 1 or not is_out_of_memory(error):
                raise
        # Out here the failed call's frames are gone, and with them its tensors.
        if stage not in _halvings:
            LOG.warning("%s: out of memory; going on in pieces of half the size, slower, same result.", stage)
        _halvings[stage] = _halvings.get(stage, 0) + 1
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()


def in_chunks(stage: str, total: int, chunk: int, work: Callable[[slice], Result]) -> list[Result]:
    """``work`` of slices that cover ``range(total)`` in order, of at most ``chunk`` items; fewer as in ``halving``."""
    results: list[Result] = []
    start = 0
    while start < total:
        first = start

        def attempt(size: int, first: int = first) -> tuple[Result, int]:
            end = min(first + size, total)
            return work(slice(first, end)), end

        result, start = halving(stage, chunk, attempt)
        results.append(result)
    return results
