"""The benchmark of single stages, and the script that runs all that a GPU is asked for in so many minutes."""

import json
import sys
from pathlib import Path

import pytest
from reference.repository_scripts import load_script
from reference.tiny_settings import TINY

from acezero_gpu.data.synthetic import write_dataset
from benchmarks.__main__ import main


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pictures of a rendered room."""
    folder = tmp_path_factory.mktemp("throughput")
    write_dataset(folder / "room", 10, 160, 120, texels_per_m=110)
    command = ["throughput", "--data", str(folder), "--set-name", "room", "--steps", "400", "--images", "6"]
    command += ["--repeat", "1", "--device", "cpu", "--preset", "fast", "--out", str(folder / "t.json")]
    assert main([*command, *(word for setting in TINY for word in ("--set", setting))]) == 0
    return folder / "t.json"


def test_steps_and_images_are_counted_with_what_came_of_them(measured: Path) -> None:
    mapping, registration = json.loads(measured.read_text())["rows"]
    assert (mapping["part"], mapping["images"], mapping["steps"], mapping["batch"]) == (
        "mapping",
        10,
        400,
        1024,
    )
    assert mapping["inlier_share"] > 0.1
    assert mapping["product_share"] == pytest.approx(mapping["gflops"] / mapping["product_gflops"])
    assert mapping["gflops"] * mapping["seconds"] == pytest.approx(6e-9 * weights() * 1024 * 400, rel=1e-3)
    assert (registration["part"], registration["images"]) == ("registration", 6)
    assert registration["images_per_s"] == pytest.approx(6 / registration["seconds"])
    assert registration["registered"] >= 3
    assert registration["median_rotation_deg"] < 10.0
    table = measured.with_suffix(".md").read_text()
    assert "## Mapping" in table and "## Registration" in table


def weights(channels: int = 384, width: int = 64) -> int:
    """Of the tiny head on features of dense-sift: an input skip, six layers, four outputs."""
    return 2 * (channels * width + width) + 7 * (width * width + width) + 4 * width + 4


@pytest.fixture(scope="module")
def script():
    return load_script("device_benchmarks")


PROGRAM = """
import subprocess, sys, time
out = sys.argv[sys.argv.index("--out") + 1]
open(out, "w").write(" ".join(sys.argv[1:]))
if sys.argv[1] == "slow":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    open(out + ".child", "w").write(str(child.pid))
    time.sleep(60)
sys.exit(3 if sys.argv[1] == "bad" else 0)
"""


def test_what_fails_or_takes_too_long_leaves_the_others_their_time(
    script, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(script, "LEAST_S", 2.0)
    chosen = [
        script.Task("first", ("good",)),
        script.Task("second", ("bad",)),
        script.Task("third", ("slow",), 0.5),
        script.Task("fourth", ("good",)),
    ]
    program = (sys.executable, "-c", PROGRAM)
    assert script.run_all(chosen, tmp_path, 10.0, ["--device", "cpu"], program) == 2
    ends = [entry["end"] for entry in json.loads((tmp_path / "index.json").read_text())]
    assert ends[0] == ends[3] == "well"
    assert ends[1] == "exit code 3, see second.log"
    assert ends[2].startswith("stopped after its")
    assert (tmp_path / "first.json").read_text().startswith("good --device cpu --out")
    child = int((tmp_path / "third.json.child").read_text())
    status = Path(f"/proc/{child}/stat")
    assert not status.exists() or status.read_text().split()[2] == "Z", "a process was left running"


def test_no_benchmark_is_begun_when_the_time_is_over(script, tmp_path: Path) -> None:
    chosen = [script.Task("first", ("good",)), script.Task("second", ("good",))]
    assert script.run_all(chosen, tmp_path, 0.0, [], (sys.executable, "-c", PROGRAM)) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.json"]


def test_its_commands_can_be_typed(script) -> None:
    """Every option of every command exists."""
    import typer

    from benchmarks.__main__ import app

    commands = typer.main.get_command(app).commands
    for task in script.tasks(Path("DATA"), "default"):
        known = {option for parameter in commands[task.arguments[0]].params for option in parameter.opts}
        used = {word for word in task.arguments if word.startswith("--")} | {
            "--device",
            "--commit",
            "--overwrite",
            "--out",
        }
        assert used <= known, task.name
