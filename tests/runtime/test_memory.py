"""What does not fit is done in smaller pieces, with one warning."""

import logging
from collections.abc import Iterator

import pytest
import torch

from acezero_gpu.runtime import halving, in_chunks, memory
from acezero_gpu.runtime.memory import is_out_of_memory

CPU_MESSAGE = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
    "allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)"
)


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As in a new process."""
    monkeypatch.setattr(memory, "_halvings", {})
    yield


def test_what_means_that_memory_ran_out() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."))
    assert is_out_of_memory(RuntimeError(CPU_MESSAGE))
    assert not is_out_of_memory(RuntimeError("shapes do not fit"))
    assert not is_out_of_memory(ValueError(CPU_MESSAGE))


def test_the_cpu_of_this_pytorch_says_so_too() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("full"), RuntimeError(CPU_MESSAGE)])
def test_pieces_are_halved_until_they_fit_and_stay_so(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    tried: list[slice] = []

    def work(part: slice) -> list[int]:
        tried.append(part)
        if part.stop - part.start > 3:
            raise error
        return list(range(100))[part]

    with caplog.at_level(logging.WARNING, logger="acezero_gpu"):
        parts = in_chunks("encoding", 10, 8, work)
        again = in_chunks("encoding", 10, 8, work)
    assert [item for part in parts for item in part] == list(range(10))
    assert again == parts
    assert [part.stop - part.start for part in tried] == [8, 4, *(2, 2, 2, 2, 2), *(2, 2, 2, 2, 2)]
    assert [record.getMessage() for record in caplog.records] == [
        "encoding: out of memory; going on in pieces of half the size, slower, same result."
    ]


def test_each_stage_is_halved_and_warned_of_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    def attempt(size: int) -> int:
        if size > 5:
            raise torch.OutOfMemoryError("full")
        return size

    assert halving("matching", 20, attempt) == 5
    assert halving("mapping", 8, attempt) == 4
    assert halving("registration", 5, attempt) == 5
    assert [record.getMessage().split(":")[0] for record in caplog.records] == ["matching", "mapping"]


def test_one_item_that_does_not_fit_is_an_error() -> None:
    def attempt(size: int) -> None:
        raise torch.OutOfMemoryError(f"no room for {size}")

    with pytest.raises(torch.OutOfMemoryError, match="no room for 1$"):
        halving("encoding", 8, attempt)


def test_other_errors_pass() -> None:
    calls = []

    def attempt(size: int) -> None:
        calls.append(size)
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        halving("encoding", 8, attempt)
    assert calls == [8]


def test_the_failed_attempt_holds_no_memory_when_the_next_begins() -> None:
    import weakref

    held: list[weakref.ref] = []

    def attempt(size: int) -> bool:
        if size > 1:
            large = torch.zeros(10)
            held.append(weakref.ref(large))
            raise torch.OutOfMemoryError("full")
        return held[0]() is None

    assert halving("encoding", 2, attempt)
