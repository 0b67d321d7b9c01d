"""What a run says while it works: lines and a progress display on stderr, every line in ``log.txt``, all as JSON."""

import logging
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, TextIO

from rich.console import Console

from acezero_gpu.cli.event_log import EventLog
from acezero_gpu.cli.failure import sentence_and_code
from acezero_gpu.cli.progress_display import ProgressDisplay, can_display
from acezero_gpu.cli.run_status import StatusKeeper
from acezero_gpu.cli.versions import package_version
from acezero_gpu.runtime.progress import Work, listening

Verbosity = Literal["quiet", "normal", "verbose"]
PACKAGE_LOGGER = logging.getLogger("acezero_gpu")

LOOK_S = 0.25
"""How often it is looked whether there is something to say."""
SILENCE_S = 4.5
"""Without a display, a line comes at least so often."""
EVENT_S = 1.0
"""A progress event comes at most so often."""


def verbosity(quiet: bool, verbose: bool) -> Verbosity:
    """``--verbose`` wins over ``--quiet``."""
    return "verbose" if verbose else "quiet" if quiet else "normal"


class RunLog:
    """A context: takes the package's warnings and reports, and notes how the run ended.

    A line that starts with a blank is a detail: it goes to the file, and to the terminal with ``--verbose``.
    On a terminal a display shows the progress; where there is none, lines say it every few seconds.
    """

    def __init__(self, shown: Verbosity, events: Path | None = None) -> None:
        self.shown = shown
        self._console = Console(stderr=True)
        self._file: TextIO | None = None
        self._unwritten: list[str] = []
        self._handler = _Forward(self)
        self._events = EventLog(events) if events is not None else None
        self._keeper = StatusKeeper(self._told)
        self._displayed = shown != "quiet" and can_display(self._console)
        self._last_line = self._last_event = time.monotonic()
        self._inside = ExitStack()

    def __enter__(self) -> "RunLog":
        PACKAGE_LOGGER.addHandler(self._handler)
        self._inside.callback(PACKAGE_LOGGER.removeHandler, self._handler)
        self._event("start", version=package_version())
        self._inside.enter_context(listening(self._keeper))
        if self._displayed:
            display = ProgressDisplay(self._console, self._keeper.status)
            display.start()
            self._inside.callback(display.stop)
        if self._events is not None or (self.shown != "quiet" and not self._displayed):
            over = threading.Event()
            looking = threading.Thread(target=self._look, args=(over,), daemon=True)
            looking.start()
            self._inside.callback(looking.join)
            self._inside.callback(over.set)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._inside.close()
        if isinstance(error, KeyboardInterrupt):
            self._record("interrupted")
            self._event("end", outcome="interrupted", text="")
        elif isinstance(error, Exception):
            told = sentence_and_code(error)
            text = told[0] if told else repr(error)
            self._record(f"failed: {text}")
            self._event("end", outcome="failed", text=text)
        else:
            self._event("end", outcome="finished", text="")
        if self._file is not None:
            self._file.close()
        if self._events is not None:
            self._events.close()

    @property
    def seconds(self) -> float:
        """Since the start."""
        return self._keeper.elapsed_s

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
        self._event("line", text=text.strip())
        if self.shown == "verbose" or (self.shown == "normal" and not text.startswith(" ")):
            self._show(stamped)

    def warn(self, text: str) -> None:
        """One line that is shown even with ``--quiet``."""
        self._record(f"warning: {text}")
        self._event("warning", text=text)
        self._show(f"warning: {text}")

    def stage(self, name: str) -> None:
        """What is going on now, where no timer says it."""
        self._keeper.begin(name)

    def registered(self, count: int, total: int) -> None:
        """How many images have a pose so far."""
        self._keeper.registered(count, total)
        self._event("registered", registered=count, images=total)

    def afterwards(self, *works: Work) -> None:
        """What the command will do when the library is done."""
        self._keeper.afterwards = list(works)

    def _told(self, event: str, stage: str, seconds: float | None) -> None:
        """A stage has begun or ended."""
        if event == "stage":
            stamped = self._record(f"  {stage}")
            if self.shown != "quiet" and not self._displayed:
                self._show(f"{stamped} …")
        self._event(event, **({} if seconds is None else {"seconds": seconds}))

    def _look(self, over: threading.Event) -> None:
        """Breaks long silences, in a thread of its own."""
        seen: tuple[Any, ...] = ()
        while not over.wait(LOOK_S):
            now = time.monotonic()
            status = self._keeper.status()
            if self._events is not None and now - self._last_event >= EVENT_S:
                news = (status.stage, status.done, status.total, status.unit)
                if news != seen or now - self._last_event >= SILENCE_S:
                    seen = news
                    self._event("progress", **status.fields())
            if self.shown != "quiet" and not self._displayed and now - self._last_line >= SILENCE_S:
                words = [*status.segments(), *filter(None, [status.time_left()])]
                self._show(f"{status.elapsed_s:8.1f} s    {', '.join(words)}")

    def _event(self, event: str, **fields: Any) -> None:
        if self._events is not None:
            self._last_event = time.monotonic()
            self._events.write(event, self._keeper.elapsed_s, self._keeper.stage, **fields)

    def _record(self, text: str) -> str:
        stamped = f"{self.seconds:8.1f} s  {text}"
        if self._file is None:
            self._unwritten.append(stamped + "\n")
        else:
            self._file.write(stamped + "\n")
            self._file.flush()
        return stamped

    def _show(self, text: str) -> None:
        self._last_line = time.monotonic()
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


class _Forward(logging.Handler):
    """The package's own log records become lines of the run."""

    def __init__(self, log: RunLog) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        self._log.warn(record.getMessage())
