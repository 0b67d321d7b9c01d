"""The progress of a run on a terminal: a bar with the time left, and what is going on."""

from collections.abc import Callable, Iterator

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from acezero_gpu.cli.run_status import Status, clock

SEPARATOR = " · "
MOST_LINES = 3
"""Of words below the bar, on a narrow terminal."""
REFRESHES_PER_S = 4
SPINNER, SPINS_PER_S = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", 8


class ProgressDisplay:
    """Stays at the lower end of the terminal, below the lines that are printed meanwhile."""

    def __init__(self, console: Console, status: Callable[[], Status]) -> None:
        self._live = Live(_Bars(status), console=console, transient=True, refresh_per_second=REFRESHES_PER_S)

    def start(self) -> None:
        """Appear."""
        self._live.start()

    def stop(self) -> None:
        """Disappear."""
        self._live.stop()


def can_display(console: Console) -> bool:
    """Whether lines can be drawn over: not in a file or a pipe, nor on a dumb terminal."""
    return console.is_terminal and not console.is_dumb_terminal


class _Bars:
    """Drawn anew at each refresh, as wide as the terminal is then."""

    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        status = self._status()
        yield bar(status)
        # One column stays free: some terminals break a line that fills the last one.
        for index, line in enumerate(wrapped(status.segments(), options.max_width - 3)):
            lead = SPINNER[int(SPINS_PER_S * status.elapsed_s) % len(SPINNER)] if index == 0 else " "
            yield Text(f"{lead} {line}", overflow="ellipsis", no_wrap=True)


def bar(status: Status) -> Table:
    """The share of the run that is done, elapsed time and time left, in one line."""
    known = status.share is not None
    row = Table.grid(padding=(0, 1), expand=True)
    row.add_column(ratio=1)
    row.add_column(justify="right", no_wrap=True)
    words = clock(status.elapsed_s)
    if known:
        words = f"{100 * (status.share or 0):.0f} %, {status.time_left().removeprefix('about ')}"
    row.add_row(
        ProgressBar(total=1.0, completed=status.share or 0.0, pulse=not known),
        Text(words, style="progress.remaining"),
    )
    return row


def wrapped(segments: list[str], width: int) -> list[str]:
    """The segments in as few lines as hold them, at most ``MOST_LINES``; none is broken."""
    lines: list[str] = []
    for segment in segments:
        joined = f"{lines[-1]}{SEPARATOR}{segment}" if lines else segment
        if not lines or cell_len(joined) > width:
            lines.append(segment)
        else:
            lines[-1] = joined
    return lines[:MOST_LINES]
