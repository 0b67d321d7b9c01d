"""Optional compilation of tensor functions, with a way back where it cannot be had."""

import functools
import logging
import time
from collections.abc import Callable
from typing import Any

import torch

log = logging.getLogger(__name__)


class _Compiled:
    """One function, compiled at its first call; the function itself from the first failure on."""

    def __init__(self, function: Callable[..., Any], one_pass: bool) -> None:
        self._function = function
        _allow_variants()
        self._fast: Callable[..., Any] | None = torch.compile(
            function, dynamic=True, fullgraph=True, options=_options(one_pass)
        )
        self._called = False

    def __call__(self, *arguments: Any) -> Any:
        if self._fast is None:
            return self._function(*arguments)
        if self._called:
            return self._attempt(*arguments)
        self._called = True
        name = self._function.__name__.strip("_")
        log.warning("Compiling %s. Later runs find it in torch.compile's cache on disk.", name)
        start = time.perf_counter()
        result = self._attempt(*arguments)
        if self._fast is not None:
            log.warning("Compiled %s in %.0f s.", name, time.perf_counter() - start)
        return result

    def _attempt(self, *arguments: Any) -> Any:
        assert self._fast is not None
        try:
            return self._fast(*arguments)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            # Wrong arguments fail here too, and then once more, with their own message.
            result = self._function(*arguments)
            self._fast = None
            log.warning(
                "torch.compile failed (%s); going on without it, slower but with the same results. "
                "On a CPU it needs a C++ compiler such as g++.",
                _first_line(error),
            )
            return result


@functools.cache
def compiled(function: Callable[..., Any], *, one_pass: bool = False) -> Callable[..., Any]:
    """``function`` through ``torch.compile``, for shapes of any size; one compilation serves all callers.

    The first call says that it compiles: it takes seconds to a minute, or less where the cache on disk has it
    from an earlier run. Where compilation fails, as on a CPU without a C++ compiler, a warning says so once
    and the function runs as it is. ``function`` takes positional arguments and must not change them.

    ``one_pass`` keeps the compiler from writing intermediate results that are read more than a few times to
    memory. For a short formula that ends in a sum it makes the difference between one loop and two; a long
    one would be computed over and over again.
    """
    return _Compiled(function, one_pass)


_VARIANTS = 64


def _allow_variants() -> None:
    """Lets one function be compiled for more kinds of shapes than PyTorch's own limit of eight.

    Sizes of one, sizes beyond the compiler's blocks and names of losses multiply; at the limit PyTorch gives
    up on the function.
    """
    from torch._dynamo import config  # takes a second to load, which only those who compile shall pay

    config.recompile_limit = max(_VARIANTS, config.recompile_limit)


def _options(one_pass: bool) -> dict[str, str | int | bool | Callable[..., Any]]:
    """Of the compiler, as far as this version has them."""
    from torch._inductor import config

    wanted: dict[str, str | int | bool | Callable[..., Any]] = {}
    if one_pass:  # limits after which the compiler stores an intermediate result
        for name in ("reads", "opcount", "acc_reads", "cpu_acc_reads"):
            wanted[f"realize_{name}_threshold"] = 1000
    options = {name: value for name, value in wanted.items() if hasattr(config, name)}
    # As many threads as PyTorch has when the code runs: by default it is as many as when it was compiled,
    # and the cache on disk hands code for one thread to a process with many.
    return {**options, "cpp.dynamic_threads": True}


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__
