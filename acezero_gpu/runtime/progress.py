"""What long work says of itself on the way, to whoever listens.

Work that takes longer than a few seconds calls ``report`` as it goes on; it neither knows nor cares whether anybody
listens. A listener is set for a ``with`` block, like a handler of Python's ``logging``, so that no function has to
pass one down. It is heard in the thread that set it.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Work:
    """One stage that is still to come."""

    stage: str
    typical_s: float
    """Seconds that it took on the machine that costs were measured on; a guess where it depends on the images."""
    unit: str = ""
    """Reports in this unit tell how much of the stage is done; no report does if empty."""


@runtime_checkable
class Listener(Protocol):
    """Hears what happens; its methods must be quick, and must not raise."""

    def begin(self, stage: str) -> None:
        """A stage begins."""

    def end(self, stage: str, seconds: float) -> None:
        """A stage has ended."""

    def report(self, done: int, total: int, unit: str, figures: Mapping[str, float]) -> None:
        """So much of some part of the present stage is done; ``figures`` say how well it goes."""

    def expect(self, part: str, works: Sequence[Work]) -> None:
        """What comes next, up to the end; it replaces what was said before. ``part`` names what begins now."""


_LISTENER: ContextVar[Listener | None] = ContextVar("progress listener", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """``listener`` hears everything that is reported inside."""
    token = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(token)


def begin_stage(stage: str) -> None:
    """Say that a stage begins."""
    if (listener := _LISTENER.get()) is not None:
        listener.begin(stage)


def end_stage(stage: str, seconds: float) -> None:
    """Say that a stage has ended, after so many seconds."""
    if (listener := _LISTENER.get()) is not None:
        listener.end(stage, seconds)


def report(done: int, total: int, unit: str, **figures: float) -> None:
    """Say that ``done`` of ``total`` are done, as in "12 of 40 images"."""
    if (listener := _LISTENER.get()) is not None:
        listener.report(done, total, unit, figures)


def expect(part: str, works: Sequence[Work]) -> None:
    """Say what is still to come, from now to the end."""
    if (listener := _LISTENER.get()) is not None:
        listener.expect(part, works)
