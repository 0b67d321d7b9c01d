"""What a run says while it works: lines or a progress display on stderr, and every line in ``log.txt``."""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Literal, TextIO

import torch
from rich.console import Console
from rich.progress import (
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from acezero_gpu.cli.failure import sentence_and_code
from acezero_gpu.runtime import StageTimer

Verbosity = Literal["quiet", "normal", "verbose"]
PACKAGE_LOGGER = logging.getLogger("acezero_gpu")


def verbosity(quiet: bool, verbose: bool) -> Verbosity:
    """``--verbose`` wins over ``--quiet``."""
    return "verbose" if verbose else "quiet" if quiet else "normal"


class RunLog:
    """A context: takes the package's warnings, and notes how the run ended.

    A line that starts with a blank is a detail: it goes to the file, and to the terminal with ``--verbose``.
    """

    def __init__(self, shown: Verbosity) -> None:
        self.shown = shown
        self._start = time.perf_counter()
        self._console = Console(stderr=True)
        self._file: TextIO | None = None
        self._unwritten: list[str] = []
        self._handler = _Forward(self)
        self._progress: Progress | None = None
        self._stage = self._registered = self._detail = ""

    def __enter__(self) -> "RunLog":
        PACKAGE_LOGGER.addHandler(self._handler)
        if self._console.is_terminal and self.shown != "quiet":
            self._progress = Progress(
                SpinnerColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.description}", markup=False),
                console=self._console,
                transient=True,
            )
            self._task = self._progress.add_task("starting", total=None)
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, KeyboardInterrupt):
            self._record("interrupted")
        elif isinstance(error, Exception):
            told = sentence_and_code(error)
            self._record(f"failed: {told[0] if told else repr(error)}")
        if self._progress is not None:
            self._progress.stop()
        PACKAGE_LOGGER.removeHandler(self._handler)
        if self._file is not None:
            self._file.close()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self._start

    def open_file(self, path: Path) -> None:
        """Every line goes here from now on, those that were said before first; an earlier log is replaced."""
        self._file = path.open("w", encoding="utf-8", errors="surrogateescape")
        for text in self._unwritten:
            self._file.write(text)
        self._file.flush()
        self._unwritten.clear()

    def line(self, text: str) -> None:
        """One line of what happens."""
        stamped = self._record(text)
        self._detail = text.strip() if text.startswith(" ") else ""
        self._update_display()
        if self.shown == "verbose" or (self.shown == "normal" and not text.startswith(" ")):
            self._show(stamped)

    def warn(self, text: str) -> None:
        """One line that is shown even with ``--quiet``."""
        self._record(f"warning: {text}")
        self._show(f"warning: {text}")

    def stage(self, name: str) -> None:
        """What is going on now: part of the progress display, a line where there is none."""
        if self._progress is not None:
            self._stage, self._detail = name, ""
            self._update_display()
            self._record(f"  {name}")
        else:
            self.line(f"{name} …" if self.shown != "quiet" else f"  {name}")

    def registered(self, count: int, total: int) -> None:
        """How many images have a pose so far."""
        self._registered = f"{count} of {total} registered"
        self._update_display()

    def _update_display(self) -> None:
        if self._progress is not None:
            parts = [part for part in (self._registered, self._stage, self._detail) if part]
            self._progress.update(self._task, description=" · ".join(parts))

    def _record(self, text: str) -> str:
        stamped = f"{self.seconds:8.1f} s  {text}"
        if self._file is None:
            self._unwritten.append(stamped + "\n")
        else:
            self._file.write(stamped + "\n")
            self._file.flush()
        return stamped

    def _show(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class _Forward(logging.Handler):
    """The package's own log records become lines of the run."""

    def __init__(self, log: RunLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.warn(record.getMessage())


class AnnouncingTimer(StageTimer):
    """A stage timer whose stages appear in the log when they begin."""

    def __init__(self, device: torch.device, log: RunLog) -> None:
        super().__init__(device)
        self._log = log

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._log.stage(name)
        with super().stage(name):
            yield
