"""A run that ends early keeps what it had, and says how it ended."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from cli_calls import SMALL, Call

from acezero_gpu.io import read_pose_file
from acezero_gpu.network import Head, HeadConfig, SceneMap
from acezero_gpu.reconstruction import ImageBank, ReconstructionStep
from acezero_gpu.reconstruction.state import Placement, to_posed_views


def one_step(bank: ImageBank, focal_px: float, registered: int) -> ReconstructionStep:
    """A first round that places so many images."""
    poses = torch.eye(3, 4).repeat(len(bank), 1, 1)
    poses[:, 0, 3] = torch.arange(len(bank))
    confidence = torch.where(torch.arange(len(bank)) < registered, 40.0, 0.0)
    views = to_posed_views(bank, poses, confidence, bank.camera(focal_px))
    head = Head(bank.encoder.channels, HeadConfig(width=8), torch.zeros(3))
    scene_map = SceneMap(head, bank.encoder.identifier, 48, 1.0)
    nothing = torch.zeros(len(bank), dtype=torch.bool)
    placement = Placement(confidence > 0, confidence > 0, nothing, nothing, confidence)
    return ReconstructionStep(0, "seed", scene_map, views, views, registered, registered, None, (), placement)


def loop_that(registered: int, then: Callable[[], None]) -> Callable[..., Iterator[ReconstructionStep]]:
    def loop(
        bank, camera, config, *, depth, given, seed_map, seed, timer, log
    ) -> Iterator[ReconstructionStep]:
        log("seed: done")
        yield one_step(bank, bank.focal_original_px(camera), registered)
        then()

    return loop


def interrupt() -> None:
    raise KeyboardInterrupt


def diverge() -> None:
    raise FloatingPointError("the mapping loss is not finite after 100 steps")


def fill_disk() -> None:
    raise OSError(28, "No space left on device", "somewhere")


def run_out_of_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def never() -> None:
    raise AssertionError("a round without any registered image must be the last")


@pytest.mark.parametrize(
    ("registered", "then", "code", "ending"),
    [
        (2, interrupt, 130, "interrupted"),
        (2, diverge, 1, "not finite after 100 steps"),
        (2, fill_disk, 1, "somewhere: No space left on device"),
        (2, run_out_of_memory, 1, "memory is full"),
        (0, never, 1, "No image could be registered"),
    ],
)
def test_finished_rounds_are_kept(
    call: Call,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    registered: int,
    then: Callable[[], None],
    code: int,
    ending: str,
) -> None:
    monkeypatch.setattr("acezero_gpu.cli.reconstruct.run_loop", loop_that(registered, then))
    out = tmp_path / "out"
    said = call("reconstruct", photos, out, "--focal-px", 55, *SMALL)
    assert said.code == code
    if code != 130:
        assert ending in said.sentence
    assert sorted(path.name for path in out.iterdir()) == [
        "config.toml",
        "history.json",
        "log.txt",
        "map_0.safetensors",
        "poses_0.txt",
        "poses_0_preliminary.txt",
        *(["report.html"] if registered == 0 else []),
    ]
    views = read_pose_file(out / "poses_0.txt")
    assert views.confidence.tolist() == [40.0 if row < registered else 0.0 for row in range(3)]
    assert views.focal_px.tolist() == pytest.approx([55.0] * 3, rel=1e-4)
    lines = (out / "log.txt").read_text().splitlines()
    assert any("seed: done" in line for line in lines)
    assert ending in lines[-1]
    if registered == 0:
        assert "None of the 3 images has a pose" in (out / "report.html").read_text()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device", "somewhere")])
def test_poses_are_finished_before_pictures_of_them(
    call: Call, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fail(*_arguments: object) -> None:
        raise error

    monkeypatch.setattr("acezero_gpu.cli.reconstruct.run_loop", loop_that(2, lambda: None))
    monkeypatch.setattr("acezero_gpu.cli.reconstruct.map_points", fail)
    out = tmp_path / "out"
    assert call("reconstruct", photos, out, "--focal-px", 55, *SMALL).code == (
        130 if isinstance(error, KeyboardInterrupt) else 1
    )
    assert not (out / "point_cloud.ply").exists()
    said = call("export", out, tmp_path / "exported", "--to", "tum")
    assert said.code == 0, said.err


def test_the_script_at_the_root_starts_the_program() -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, root / "cli.py", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("acezero ")
    assert done.stderr == ""
