"""How long the rest of a run takes, from what is to come and what the same kind of work took so far."""

import time
from collections import deque
from collections.abc import Callable, Sequence

from acezero_gpu.runtime.progress import Work

DOUBT_S = 5.0
"""Typical seconds of work after which this machine's own speed counts as much as the typical one."""
STAGE_DOUBT_S = 1.0
"""The same for one stage's speed against that of all stages together."""
TRUSTED_SHARE = 0.1
"""Once so much of a stage is done, its end follows from its own pace alone."""
RECENT_S, RECENT_SHARE = 10.0, 0.25
"""That pace is the one over so many last seconds, or over this share of the stage's time if that is longer: other
work on the machine comes and goes."""


class Forecast:
    """Fed with the stages of a run as they begin, go on and end; tells the seconds that are left.

    A stage's speed is its seconds over its typical seconds, measured over all its parts so far; a stage that has
    not been seen yet is taken to be as fast as all others together.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._coming: list[Work] = []
        self._current: Work | None = None
        self._began = 0.0
        self._share = 0.0
        self._moments: deque[tuple[float, float]] = deque()
        """Times and shares done of the present stage, the recent ones and one before them."""
        self._spent: dict[str, tuple[float, float]] = {}
        """Seconds and typical seconds of each stage so far."""

    def expect(self, works: Sequence[Work]) -> None:
        """What comes after the present stage; replaces what was expected before."""
        self._coming = list(works)

    def begin(self, stage: str) -> None:
        """A stage begins; what was expected before it is skipped. A stage that was not expected has no length."""
        ahead = next((row for row, work in enumerate(self._coming) if work.stage == stage), None)
        self._current = Work(stage, 0.0)
        if ahead is not None:
            self._current = self._coming[ahead]
            self._coming = self._coming[ahead + 1 :]
        self._began, self._share = self._clock(), 0.0
        self._moments = deque([(self._began, 0.0)])

    def advance(self, done: int, total: int, unit: str) -> None:
        """So much of the present stage is done, if it is counted in this unit."""
        if self._current is None or unit != self._current.unit or total <= 0:
            return
        now, self._share = self._clock(), min(1.0, done / total)
        self._moments.append((now, self._share))
        recent = max(RECENT_S, RECENT_SHARE * (now - self._began))
        while len(self._moments) > 2 and self._moments[1][0] < now - recent:
            self._moments.popleft()

    def end(self) -> None:
        """The present stage has ended."""
        if self._current is not None and self._current.typical_s > 0:
            seconds, typical = self._spent.get(self._current.stage, (0.0, 0.0))
            self._spent[self._current.stage] = (
                seconds + self._clock() - self._began,
                typical + self._current.typical_s,
            )
        self._current = None

    def left_s(self) -> float | None:
        """Seconds until the end; None if nothing was ever expected."""
        if not self._coming and (self._current is None or self._current.typical_s == 0):
            return 0.0 if self._spent else None
        later = sum(work.typical_s * self._pace(work.stage) for work in self._coming)
        return later + self._left_of_current()

    def _left_of_current(self) -> float:
        if self._current is None:
            return 0.0
        elapsed = self._clock() - self._began
        # A stage that takes longer than it should may well take longer still.
        by_pace = max(self._current.typical_s * self._pace(self._current.stage) - elapsed, 0.1 * elapsed)
        if self._share == 0:
            return by_pace
        since, then = self._moments[0]
        gained = self._share - then
        recent = (self._moments[-1][0] - since) / gained if gained > 0 else elapsed / self._share
        by_share = (1 - self._share) * recent
        trust = min(1.0, self._share / TRUSTED_SHARE)
        return trust * by_share + (1 - trust) * by_pace

    def _pace(self, stage: str) -> float:
        """Seconds per typical second."""
        spent = dict(self._spent)
        if self._current is not None and self._share > 0:
            seconds, typical = spent.get(self._current.stage, (0.0, 0.0))
            spent[self._current.stage] = (
                seconds + self._clock() - self._began,
                typical + self._share * self._current.typical_s,
            )
        everything = sum(seconds for seconds, _ in spent.values())
        overall = (everything + DOUBT_S) / (sum(typical for _, typical in spent.values()) + DOUBT_S)
        seconds, typical = spent.get(stage, (0.0, 0.0))
        return (seconds + STAGE_DOUBT_S * overall) / (typical + STAGE_DOUBT_S)
