"""Where a run stands, from what the library reports; what a display or a log shows of it."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from acezero_gpu.runtime.forecast import Forecast
from acezero_gpu.runtime.progress import Work

RATED = ("images", "pairs", "steps")
"""What is counted per second; of few and long things, a rate says nothing."""
RATE_FROM_S = 0.5
"""Work that has gone on for less time has no rate yet."""


@dataclass(frozen=True, slots=True)
class Status:
    """One moment of a run."""

    elapsed_s: float
    part: str = ""
    """``seed``, ``iteration 2``, ``final``; empty where a command has no such parts."""
    stage: str = ""
    done: int = 0
    total: int = 0
    unit: str = ""
    """What ``done`` and ``total`` count."""
    per_s: float | None = None
    figures: Mapping[str, float] = field(default_factory=dict)
    """``loss_px`` and ``inlier_share``, while a map is trained."""
    registered: int | None = None
    images: int | None = None
    left_s: float | None = None
    share: float | None = None
    """How much of the whole run is done, by time."""

    def segments(self) -> list[str]:
        """What there is to say, most important first, without the time left."""
        found = [f"{self.stage} ({self.part})" if self.part and self.stage else self.stage or "starting"]
        if self.total:
            found.append(f"{self.done} of {self.total} {self.unit}")
        noun = next((word for word in self.unit.split() if word in RATED), None)
        if self.per_s is not None and noun is not None:
            found.append(f"{self.per_s:.3g} {noun}/s")
        if "inlier_share" in self.figures:
            found.append(f"{100 * self.figures['inlier_share']:.0f} % inliers")
        if self.registered is not None:
            found.append(f"{self.registered} of {self.images} registered")
        return found

    def time_left(self) -> str:
        """In words; empty while it is unknown."""
        return "" if self.left_s is None else f"about {clock(self.left_s)} left"

    def fields(self) -> dict[str, str | int | float | None]:
        """For a log that programs read; what is unknown is left out."""
        known: dict[str, str | int | float | None] = {"part": self.part or None}
        if self.unit:
            known |= {"done": self.done, "total": self.total, "unit": self.unit, "per_s": self.per_s}
        known |= self.figures
        known |= {"registered": self.registered, "images": self.images}
        known |= {"left_s": self.left_s, "share": self.share}
        return {key: value for key, value in known.items() if value is not None}


def clock(seconds: float) -> str:
    """Minutes and seconds, with hours if there are any."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class StatusKeeper:
    """Listens to the library; may be asked for the status from any thread."""

    def __init__(
        self,
        told: Callable[[str, str, float | None], None] = lambda _event, _stage, _seconds: None,
        now: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.afterwards: list[Work] = []
        """What the command does when the library is done; it belongs to what is expected."""
        self._told, self._now = told, now
        self._start = now()
        self._lock = threading.Lock()
        self._forecast = Forecast(now)
        self._part = self._stage = self._unit = ""
        self._done = self._total = 0
        self._figures: Mapping[str, float] = {}
        self._registered: tuple[int, int] | None = None
        self._counting_since = self._last_report = self._start

    @property
    def elapsed_s(self) -> float:
        """Since the start."""
        return self._now() - self._start

    @property
    def stage(self) -> str:
        """The present stage, or the last one."""
        return self._stage

    def begin(self, stage: str) -> None:
        """A stage begins."""
        with self._lock:
            self._stage = stage
            self._unit, self._done, self._total, self._figures = "", 0, 0, {}
            self._counting_since = self._last_report = self._now()
            self._forecast.begin(stage)
        self._told("stage", stage, None)

    def end(self, stage: str, seconds: float) -> None:
        """A stage has ended."""
        with self._lock:
            self._forecast.end()
        self._told("stage end", stage, seconds)

    def report(self, done: int, total: int, unit: str, figures: Mapping[str, float]) -> None:
        """Progress within the stage."""
        with self._lock:
            if unit != self._unit or done < self._done:
                # Whatever is counted now has gone on since the last thing was counted.
                self._counting_since = self._last_report
            self._done, self._total, self._unit, self._figures = done, total, unit, figures
            self._last_report = self._now()
            self._forecast.advance(done, total, unit)

    def expect(self, part: str, works: Sequence[Work]) -> None:
        """What is to come."""
        with self._lock:
            self._part = part
            self._forecast.expect([*works, *self.afterwards])

    def registered(self, count: int, total: int) -> None:
        """So many of all images have a pose now."""
        with self._lock:
            self._registered = (count, total)

    def status(self) -> Status:
        """This moment."""
        with self._lock:
            elapsed, left = self._now() - self._start, self._forecast.left_s()
            busy = self._last_report - self._counting_since
            count, images = self._registered or (None, None)
            return Status(
                elapsed,
                self._part,
                self._stage,
                self._done,
                self._total,
                self._unit,
                self._done / busy if busy > RATE_FROM_S else None,
                self._figures,
                count,
                images,
                left,
                None if left is None else elapsed / max(elapsed + left, 1e-9),
            )
