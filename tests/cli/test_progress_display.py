"""What a run shows of its progress: on a terminal of any width, in a pipe, and as JSON."""

import io
import json
import re
import time
from pathlib import Path

import pytest
from cli_calls import SMALL, Call
from rich.console import Console

from acezero_gpu.cli import run_log
from acezero_gpu.cli.event_log import EventLog
from acezero_gpu.cli.progress_display import ProgressDisplay, can_display, wrapped
from acezero_gpu.cli.run_log import RunLog
from acezero_gpu.cli.run_status import Status, StatusKeeper, clock
from acezero_gpu.reconstruction import ReconstructionError
from acezero_gpu.runtime import StageTimer
from acezero_gpu.runtime.progress import Work, expect, report

MAPPING = Status(
    62.0, "final", "mapping", 430, 2500, "steps", 12.34, {"inlier_share": 0.43}, 18, 40, 200.0, 0.236
)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_status_counts_and_rates() -> None:
    now = Clock()
    keeper = StatusKeeper(now=now)
    keeper.expect("seed", [Work("seeds", 10.0)])
    keeper.begin("seeds")
    now.now = 2.0
    keeper.report(8, 40, "images encoded", {})
    assert keeper.status().per_s == pytest.approx(4.0)
    assert "4 images/s" in keeper.status().segments()
    now.now = 4.0
    keeper.report(30, 60, "pairs matched", {})  # these have gone on since the last report
    assert keeper.status().per_s == pytest.approx(15.0)
    keeper.registered(3, 40)
    status = keeper.status()
    assert status.segments() == ["seeds (seed)", "30 of 60 pairs matched", "15 pairs/s", "3 of 40 registered"]
    assert status.share == pytest.approx(4.0 / (4.0 + status.left_s))
    assert status.fields()["registered"] == 3
    keeper.begin("mapping")
    assert keeper.status().total == 0


def test_what_comes_afterwards_belongs_to_the_time_left() -> None:
    keeper = StatusKeeper(now=Clock())
    keeper.afterwards = [Work("video", 30.0)]
    keeper.expect("final", [Work("mapping", 10.0)])
    assert keeper.status().left_s == pytest.approx(40.0)


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0:00"), (59.6, "1:00"), (3599.0, "59:59"), (7384.0, "2:03:04")]
)
def test_the_clock(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_lines_fit_and_say_everything_where_there_is_room(width: int) -> None:
    lines = wrapped(MAPPING.segments(), width)
    assert all(len(line) <= width for line in lines)
    assert len(lines) <= 3
    if width >= 40:
        assert " · ".join(lines) == " · ".join(MAPPING.segments())


def drawn(width: int, **settings: object) -> str:
    """What a terminal of this width is sent for one moment."""
    stream = io.StringIO()
    console = Console(file=stream, width=width, force_terminal=True, **settings)
    display = ProgressDisplay(console, lambda: MAPPING)
    display.start()
    display.stop()
    return stream.getvalue()


@pytest.mark.parametrize("width", [40, 80])
def test_the_display_fits_the_terminal(width: int) -> None:
    sent = drawn(width, no_color=True, color_system=None, legacy_windows=False)
    frame = [line for line in sent.replace("\r", "\n").split("\n") if "left" in line or "mapping" in line]
    assert any("24 %, 3:20 left" in line for line in frame)
    for line in frame:
        visible = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", line)
        assert len(visible) <= width, visible


def test_without_colour_no_colour_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[38" in drawn(80) or "\x1b[3" in drawn(80)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[38" not in drawn(80)


def test_a_dumb_terminal_and_a_pipe_get_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert can_display(Console(file=io.StringIO(), force_terminal=True))
    assert not can_display(Console(file=io.StringIO()))
    monkeypatch.setenv("TERM", "dumb")
    assert not can_display(Console(file=io.StringIO(), force_terminal=True))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silences end after a fraction of a second."""
    monkeypatch.setattr(run_log, "LOOK_S", 0.01)
    monkeypatch.setattr(run_log, "SILENCE_S", 0.05)
    monkeypatch.setattr(run_log, "EVENT_S", 0.02)


def work() -> None:
    """A stage that reports once and is silent for long."""
    expect("seed", [Work("seeds", 10.0)])
    with StageTimer().stage("seeds"):
        report(8, 40, "images encoded")
        time.sleep(0.2)


def test_in_a_pipe_no_silence_is_long(capsys: pytest.CaptureFixture[str], impatient: None) -> None:
    with RunLog("normal") as log:
        work()
        log.line("  a detail")
    err = capsys.readouterr().err
    assert err.count("seeds (seed), 8 of 40 images encoded") >= 2
    assert "left" in err
    assert "\x1b" not in err
    assert "a detail" not in err


def test_quiet_says_nothing_and_verbose_everything(
    capsys: pytest.CaptureFixture[str], impatient: None
) -> None:
    with RunLog("quiet") as log:
        work()
        log.warn("an image is broken")
    assert capsys.readouterr().err == "warning: an image is broken\n"
    with RunLog("verbose") as log:
        log.line("  a detail")
    assert "a detail" in capsys.readouterr().err


def test_events_are_on_the_disk_as_they_happen(tmp_path: Path, impatient: None) -> None:
    path = tmp_path / "made" / "log.jsonl"

    def events() -> list[dict]:
        return [json.loads(line) for line in path.read_text().splitlines()]

    with RunLog("quiet", path) as log:
        work()
        log.registered(3, 40)
        log.line("a line with an odd name \udcff")
        kinds = [event["event"] for event in events()]
        assert kinds[:2] == ["start", "stage"]
        assert kinds.count("progress") >= 2
        assert kinds[-3:] == ["stage end", "registered", "line"]
    assert all(set(event) >= {"time", "elapsed_s", "event", "stage"} for event in events())
    progress = next(event for event in events() if event["event"] == "progress")
    assert (progress["stage"], progress["part"], progress["done"], progress["total"]) == (
        "seeds",
        "seed",
        8,
        40,
    )
    assert 0 < progress["left_s"] < 20
    assert events()[-1]["outcome"] == "finished"


@pytest.mark.parametrize(
    ("error", "outcome", "text"),
    [
        (ReconstructionError("No start."), "failed", "No start."),
        (KeyboardInterrupt(), "interrupted", ""),
    ],
)
def test_the_last_event_says_how_it_ended(
    tmp_path: Path, error: BaseException, outcome: str, text: str
) -> None:
    path = tmp_path / "log.jsonl"
    with pytest.raises(type(error)), RunLog("quiet", path):
        raise error
    last = json.loads(path.read_text().splitlines()[-1])
    assert (last["event"], last["outcome"], last["text"]) == ("end", outcome, text)


def test_numbers_that_json_does_not_know_are_null(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "a.jsonl")
    log.write("progress", 1.0, "mapping", loss_px=float("nan"))
    log.close()
    log.write("progress", 2.0, "mapping")  # too late: nothing happens
    (event,) = map(json.loads, (tmp_path / "a.jsonl").read_text().splitlines())
    assert event["loss_px"] is None


def test_a_log_that_cannot_be_written(call: Call, photos: Path, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    said = call("reconstruct", photos, tmp_path / "out", "--log-json", tmp_path / "taken" / "log.jsonl")
    assert said.code == 2
    assert "--log-json" in said.sentence
    assert not (tmp_path / "out").exists()


def test_the_library_reports_what_it_does(call: Call, photos: Path, tmp_path: Path) -> None:
    """Loading reports its images; with pictures that share nothing the run fails, and the log says so."""
    path = tmp_path / "log.jsonl"
    assert call("reconstruct", photos, tmp_path / "out", "--log-json", path, *SMALL).code == 1
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert [event["stage"] for event in events if event["event"] == "stage"] == ["loading", "seeds"]
    assert (events[-1]["event"], events[-1]["outcome"]) == ("end", "failed")
