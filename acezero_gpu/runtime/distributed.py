"""Several processes of one run, as torchrun starts them: who is who, sums and copies of tensors, calls from rank 0.

Rank 0 runs the program. The others wait for its calls, and take part in what they name. Nothing of torch.distributed
is touched by a process that is alone.
"""

import dataclasses
import io
import itertools
import os
import time
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

TIMEOUT = timedelta(minutes=10)
"""How long one rank waits for another within a sum or a copy. One that has died is noticed at once."""
LOOK_S = 0.02
"""How often a rank looks whether rank 0 has called."""
FIRST_SAYS_S = 3.0
"""How long the other ranks leave it to rank 0 to say that one is lost."""
END = "end"


class RankLostError(RuntimeError):
    """Another process of the run has ended, or does not answer."""

    def __init__(self) -> None:
        super().__init__(
            "A process of this run has ended or does not answer, or torchrun was stopped; the rounds that were "
            "finished are kept. Start again with --overwrite, with fewer processes if memory was short."
        )


def process_count() -> int:
    """How many processes torchrun has started for this run; 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def process_rank() -> int:
    """Which of them this one is, from 0."""
    return int(os.environ["RANK"]) if process_count() > 1 else 0


class Ranks:
    """The processes of a run, this one among them; with one process every method does nothing or returns at once."""

    def __init__(self, rank: int = 0, count: int = 1, store: Any = None) -> None:
        self.rank, self.count = rank, count
        self._store = store
        self._numbers = itertools.count()

    def part(self, total: int) -> slice:
        """This rank's share of ``range(total)`` in one piece."""
        return slice(self.rank * total // self.count, (self.rank + 1) * total // self.count)

    def rows(self, total: int) -> Int[Tensor, " mine"]:
        """This rank's share of ``range(total)``, every ``count``-th: what is hard is spread over all ranks."""
        return torch.arange(self.rank, total, self.count)

    def all_reduce_sum(self, tensors: Sequence[Tensor]) -> None:
        """Replaces tensors of one type by their sums over all ranks, which then hold the same bits; one message."""
        if self.count == 1:
            return
        import torch.distributed as dist

        flat = torch.cat([tensor.flatten() for tensor in tensors])
        with _naming_the_lost():
            dist.all_reduce(flat)
        for tensor, summed in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(summed.view_as(tensor))

    def broadcast(self, tensors: Sequence[Tensor], source: int = 0) -> None:
        """Replaces contiguous tensors by those of rank ``source``."""
        if self.count == 1:
            return
        import torch.distributed as dist

        with torch.no_grad(), _naming_the_lost():
            for tensor in tensors:
                dist.broadcast(tensor, source)

    def gather_rows(self, mine: Int[Tensor, " mine"], values: Tensor, total: int) -> Tensor:
        """All ranks' ``values``, one row for each of ``range(total)``; this rank has the rows ``mine``."""
        if self.count == 1:
            return values
        everything = values.new_zeros(total, *values.shape[1:])
        everything[mine.to(values.device)] = values
        self.all_reduce_sum([everything])
        return everything

    def call(self, name: str, *arguments: Any) -> None:
        """From rank 0: all other ranks are to do this. Arguments are tensors, plain values, and records of them.

        Nothing on the other ranks, which do what they were called for by the same functions.
        """
        if self.count == 1 or self.rank > 0:
            return
        buffer = io.BytesIO()
        torch.save((name, arguments), buffer)
        data = torch.frombuffer(buffer.getbuffer(), dtype=torch.uint8)
        self._announce(str(len(data)))
        self.broadcast([data])

    def calls(self, records: Sequence[type], device: torch.device) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """What rank 0 calls for, until it ends; ``records`` are the dataclasses that arguments may consist of."""
        while (size := self._heard()) != END:
            data = torch.empty(int(size), dtype=torch.uint8)
            self.broadcast([data])
            with torch.serialization.safe_globals([*_with_fields(records)]):
                # What rank 0 had on its GPU, the first one, comes to this rank's; the rest stays on the CPU.
                yield torch.load(
                    io.BytesIO(data.numpy().tobytes()),
                    map_location={"cuda:0": str(device)},
                    weights_only=True,
                )

    def end(self) -> None:
        """From rank 0: there is nothing more to do, whether it went well or not."""
        if self.count == 1:
            return
        with suppress(RankLostError, RuntimeError):
            self.has_the_last_word()
            self._announce(END)

    def has_the_last_word(self) -> bool:
        """Whether this rank is the one to tell that another is lost: rank 0, unless it is lost itself."""
        if self.rank > 0:
            time.sleep(FIRST_SAYS_S)
        try:
            return bool(self._store.compare_set("last word", "", str(self.rank)) == str(self.rank).encode())
        except RuntimeError:
            return self.rank <= 1  # the store has gone down with its host

    def _announce(self, text: str) -> None:
        with _naming_the_lost():
            self._store.set(f"call {next(self._numbers)}", text)

    def _heard(self) -> str:
        key = f"call {next(self._numbers)}"
        with _naming_the_lost():
            while not self._store.check([key]):
                time.sleep(LOOK_S)  # rank 0 does something by itself meanwhile
            return str(self._store.get(key).decode())


ALONE = Ranks()
"""The only process of its run."""


def join_ranks(device: torch.device) -> Ranks:
    """All processes that torchrun has started for this run, with NCCL on CUDA devices and gloo on CPUs.

    ``ALONE`` without torchrun. Waits until all have come.
    """
    if process_count() == 1:
        return ALONE
    import torch.distributed as dist

    with _naming_the_lost():
        store, rank, count = next(dist.rendezvous("env://"))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=dist.PrefixStore("tensors", store),
            rank=rank,
            world_size=count,
            timeout=TIMEOUT,
        )
    return Ranks(rank, count, dist.PrefixStore("calls", store))


def leave_ranks() -> None:
    """The end of a run in which no rank was lost."""
    import torch.distributed as dist

    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def _naming_the_lost() -> Iterator[None]:
    """What fails between processes does so because one of them is gone."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, RankLostError | torch.OutOfMemoryError):
            raise
        raise RankLostError from error


def _with_fields(records: Sequence[type]) -> set[type]:
    """These dataclasses and those of their fields."""
    found: set[type] = set()
    waiting = list(records)
    while waiting:
        record = waiting.pop()
        if record in found or not dataclasses.is_dataclass(record):
            continue
        found.add(record)
        for hint in typing.get_type_hints(record).values():
            waiting += [kind for kind in (hint, *typing.get_args(hint)) if isinstance(kind, type)]
    return found
