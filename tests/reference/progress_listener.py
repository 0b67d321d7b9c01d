"""A listener that keeps all it hears."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from acezero_gpu.runtime.progress import Work


@dataclass
class Heard:
    stages: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    reports: list[tuple[int, int, str]] = field(default_factory=list)
    figures: list[Mapping[str, float]] = field(default_factory=list)
    expected: list[tuple[str, list[Work]]] = field(default_factory=list)

    def begin(self, stage: str) -> None:
        self.stages.append(stage)

    def end(self, stage: str, seconds: float) -> None:
        self.ended.append(stage)

    def report(self, done: int, total: int, unit: str, figures: Mapping[str, float]) -> None:
        self.reports.append((done, total, unit))
        self.figures.append(figures)

    def expect(self, part: str, works: Sequence[Work]) -> None:
        self.expected.append((part, list(works)))
