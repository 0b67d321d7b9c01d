"""A reconstruction by two processes of torchrun: one folder, the poses of one process, a sentence where a rank dies."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from cli_calls import Call
from reference.free_port import free_port

from acezero_gpu.data.synthetic import write_dataset
from acezero_gpu.geometry import camera_centres, rotation_angle_deg
from acezero_gpu.io import read_pose_file

IMAGES = 4
TINY = [
    "bank.shortest_side_px=72",
    "bank.keypoint_side_px=144",
    "bank.buffer.max_passes=1",
    "loop.training.head.width=32",
    "loop.training.batch_size=512",
    "loop.final_map.width=32",
    "loop.final_map.batch_size=512",
    "loop.final_schedule.max_epochs=0",
    "loop.final_schedule.lr_max=0.01",
    "loop.seeds.tries=1",
    "loop.seeds.growth_candidates=3",
]
FLAGS = ["--device", "cpu", *(part for setting in TINY for part in ("--set", setting))]


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("room")
    write_dataset(data, IMAGES, 192, 144, texels_per_m=80)
    return data


@contextmanager
def torchrun(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """The command in two processes, at a port that nobody uses."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "acezero_gpu", *map(str, arguments)]
    with started(command, {}) as process:
        yield process


@contextmanager
def started(command: list[str], variables: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    pipe, environment = subprocess.PIPE, {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()


def process_of_rank(launcher: int, rank: int) -> int:
    """Its id, among those that torchrun has started."""
    for line in Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split():
        if f"RANK={rank}".encode() in Path(f"/proc/{line}/environ").read_bytes().split(b"\0"):
            return int(line)
    raise AssertionError(f"torchrun has no process of rank {rank}")


def sentences(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if line.startswith("acezero: ")]


def test_two_processes_make_one_run(room: Path, call: Call, tmp_path: Path) -> None:
    steps = ["--set", "loop.final_schedule.iterations=60", "--no-report"]
    outs = tmp_path / "one", tmp_path / "two"
    with torchrun("reconstruct", room / "images", outs[1], *FLAGS, *steps) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert call("reconstruct", room / "images", outs[0], *FLAGS, *steps).code == 0
    alone, shared = (read_pose_file(folder / "poses_final.txt") for folder in outs)
    assert shared.names == alone.names
    turn = rotation_angle_deg(shared.matrices[..., :3], alone.matrices[..., :3])
    shift = camera_centres(shared.matrices) - camera_centres(alone.matrices)
    assert turn.max() < 0.1
    assert shift.norm(dim=-1).max() < 0.002
    torch.testing.assert_close(shared.focal_px, alone.focal_px, rtol=1e-3, atol=0)
    files = [sorted(path.name for path in folder.iterdir()) for folder in outs]
    assert files[0] == files[1]
    summary = json.loads((outs[1] / "summary.json").read_text())
    assert summary["processes"] == 2
    assert out.splitlines() == [line for line in out.splitlines() if line.startswith("registered ")]
    assert len(out.splitlines()) == 1
    log = (outs[1] / "log.txt").read_text()
    for once in ("2 processes", "final 1: mapped", "worked on at"):
        assert log.count(once) == err.count(once) == 1


def until_it_maps(process: subprocess.Popen[str], out: Path) -> None:
    """Waits for the first steps of an endless round."""
    log = out / "log.txt"
    while not log.is_file() or "    step 100 of 1000000" not in log.read_text():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)


def told_of_the_dead(process: subprocess.Popen[str], out: Path) -> None:
    """One of its processes has just been killed: it ends soon, with one sentence, and what was finished is there."""
    killed = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - killed < 45
    assert process.returncode == 1
    assert len(sentences(err)) == 1, err
    assert "A process of this run has ended" in sentences(err)[0]
    kept = {path.name for path in out.iterdir()}
    assert {"poses_0.txt", "history.json", "log.txt"} <= kept
    assert "poses_final.txt" not in kept
    assert len(read_pose_file(out / "poses_0.txt").names) == IMAGES


def endless(room: Path, out: Path) -> list[object]:
    """A run that never ends its second round."""
    given = ["--poses", room / "poses", "--focal-px", "153.6"]
    steps = ["--set", "loop.final_schedule.iterations=1000000", "--verbose"]
    return ["reconstruct", room / "images", out, *given, *FLAGS, *steps]


def test_a_rank_that_dies_ends_the_run_with_a_sentence(room: Path, tmp_path: Path) -> None:
    """Also where no torchrun ends the others."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "acezero_gpu", *map(str, endless(room, out))]
    variables = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    with (
        started(command, {**variables, "RANK": "0"}) as first,
        started(command, {**variables, "RANK": "1"}) as second,
    ):
        until_it_maps(first, out)
        second.kill()
        told_of_the_dead(first, out)
        assert second.communicate() == ("", "")
    assert "A process of this run has ended" in (out / "log.txt").read_text().splitlines()[-1]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for the processes in /proc")
@pytest.mark.parametrize("rank", [0, 1])
def test_torchrun_ends_a_run_that_has_lost_a_rank(room: Path, tmp_path: Path, rank: int) -> None:
    out = tmp_path / "out"
    with torchrun(*endless(room, out)) as process:
        until_it_maps(process, out)
        os.kill(process_of_rank(process.pid, rank), signal.SIGKILL)
        told_of_the_dead(process, out)


@pytest.mark.slow
def test_an_interrupted_run_says_so_in_its_log(room: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with torchrun(*endless(room, out)) as process:
        until_it_maps(process, out)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert sentences(err) == []
    assert (out / "log.txt").read_text().splitlines()[-1].endswith("interrupted")


def as_rank(monkeypatch: pytest.MonkeyPatch, rank: int) -> None:
    for name, value in (("RANK", rank), ("WORLD_SIZE", 2), ("LOCAL_WORLD_SIZE", 2), ("LOCAL_RANK", rank)):
        monkeypatch.setenv(name, str(value))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["evaluate", "poses.txt", "truth"],
            "acezero evaluate cannot share its work; torchrun is for map, reconstruct",
        ),
        (
            ["reconstruct", "nowhere", "out", "--device", "cuda:1"],
            "a device each; use --device cuda, cpu or auto",
        ),
        (["reconstruct", "nowhere", "out", "--preset", "warp"], "warp"),
    ],
)
def test_what_is_wrong_for_all_ranks_is_told_by_one(
    call: Call, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    as_rank(monkeypatch, 0)
    first = call(*arguments)
    assert first.code == 2
    assert sentence in first.sentence
    as_rank(monkeypatch, 1)
    second = call(*arguments)
    assert (second.code, second.err) == (2, "")
    assert not torch.distributed.is_initialized()


def test_more_processes_than_devices_are_refused(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    as_rank(monkeypatch, 0)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    said = call("reconstruct", "nowhere", "out", "--device", "cuda")
    assert said.code == 2
    assert "to start 2 processes here, and this PyTorch sees 1 CUDA devices" in said.sentence
