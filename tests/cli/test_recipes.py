"""Every command of docs/recipes.md, typed in a folder that is laid out as the page says."""

import json
import math
import re
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import typer
from cli_calls import Call
from reference.tiny_settings import tiny_flags

from acezero_gpu.cli import app
from acezero_gpu.data import PosedViews
from acezero_gpu.data.synthetic import walk_camera, write_dataset
from acezero_gpu.geometry import retract, se3_from_matrix
from acezero_gpu.io import read_pose_file, read_poses, write_pose_file

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"
IMAGES, WIDTH, HEIGHT = 12, 240, 180
KNOWN = (0, 1, 3, 4)
LONG, SHORT = 1500, 30
"""Steps of the last map: enough to register by, and just enough to have been trained."""
TINY_MAP_SHARE = 0.03
"""Inliers of a registered picture: maps of 300 cells and 64 channels explain few, above all from rough poses."""


@dataclass(frozen=True)
class Scene:
    folder: Path
    truth: PosedViews

    def figures(self, call: Call, poses: str, *flags: str) -> dict:
        said = call("evaluate", self.folder / poses, self.folder / "scene/poses", "--json", *flags)
        assert said.code == 0, said.err
        return json.loads(said.out)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("recipes")
    data = write_dataset(folder / "all", IMAGES, WIDTH, HEIGHT, texels_per_m=110)
    pictures = sorted((data / "images").iterdir())
    mapping, queries = pictures[: IMAGES - 2], pictures[IMAGES - 2 :]
    for name, files in (
        ("mapping", mapping),
        ("queries", queries),
        ("part", [mapping[row] for row in KNOWN]),
    ):
        (folder / "scene" / name).mkdir(parents=True)
        for file in files:
            shutil.copy(file, folder / "scene" / name)
    shutil.copytree(data / "poses", folder / "scene/poses")
    shutil.copytree(data / "depth", folder / "scene/depth")
    names = tuple(file.name for file in mapping)
    focal_px = float(walk_camera(WIDTH, HEIGHT).focal_px[0])
    truth = read_poses(folder / "scene/poses", names, focal_px, dtype=torch.float64)
    write_pose_file(folder / "rough.txt", _displaced(truth, 0.05, 3.0))
    rows = list(KNOWN)
    known = PosedViews(
        tuple(names[row] for row in rows),
        torch.as_tensor(truth.cam_from_world)[rows],
        truth.focal_px[rows],
        truth.confidence[rows],
    )
    write_pose_file(folder / "known.txt", known)
    return Scene(folder, truth)


def _displaced(views: PosedViews, metres: float, degrees: float) -> PosedViews:
    """Every pose off by these lengths, each in a direction of its own."""
    generator = torch.Generator().manual_seed(5)
    step = torch.randn(len(views.names), 2, 3, generator=generator, dtype=torch.float64)
    step = torch.nn.functional.normalize(step, dim=-1) * torch.tensor([[metres], [math.radians(degrees)]])
    return PosedViews(
        views.names,
        se3_from_matrix(retract(views.matrices, step.flatten(1))),
        views.focal_px,
        views.confidence,
    )


def commands() -> list[list[str]]:
    """The arguments of every line of the page's code blocks."""
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    lines = [line for block in blocks for line in block.splitlines()]
    assert all(line.startswith("acezero ") for line in lines)
    return [shlex.split(line)[1:] for line in lines]


def run(call: Call, arguments: list[str], steps: int) -> None:
    maps = arguments[0] not in ("evaluate", "benchmark")
    flags = tiny_flags(f"loop.final_schedule.iterations={steps}") if maps else []
    flags += ["--no-report"] if arguments[0] == "reconstruct" else []
    if arguments[0] == "register" or "--seed-map" in arguments:
        flags += ["--set", f"loop.registration.min_inlier_share={TINY_MAP_SHARE}"]
    said = call(*arguments, *flags)
    assert said.code == 0, f"{' '.join(arguments)}: {said.err}"


@pytest.mark.parametrize("arguments", commands(), ids=" ".join)
def test_every_command_of_the_page_can_be_typed(arguments: list[str]) -> None:
    command = typer.main.get_command(app).commands[arguments[0]]
    if hasattr(command, "commands"):
        arguments = arguments[1:]
        command = command.commands[arguments[0]]
    command.make_context(arguments[0], arguments[1:], resilient_parsing=False)


def test_fixed_poses_come_out_as_they_went_in(
    scene: Scene, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Digit by digit, in every file; the other photographs are in their world."""
    monkeypatch.chdir(scene.folder)
    line = next(words for words in commands() if "--fix-poses" in words)
    run(call, line, SHORT)
    out = scene.folder / line[2]
    known = read_pose_file(scene.folder / "known.txt", dtype=torch.float64)
    for file in sorted(out.glob("poses_*.txt")):
        written = read_pose_file(file, dtype=torch.float64)
        rows = [written.names.index(f"scene/mapping/{name}") for name in known.names]
        assert torch.equal(
            torch.as_tensor(written.cam_from_world)[rows], torch.as_tensor(known.cam_from_world)
        )
        assert (written.confidence[rows] > 0).all()
    figures = scene.figures(call, f"{line[2]}/poses_final.txt", "--no-align", "--threshold", "2cm/1deg")
    assert figures["accuracy"]["2cm_1deg"] >= 0.9
    assert figures["registered"] >= IMAGES - 3


@pytest.mark.slow
def test_the_page_does_what_it_says(scene: Scene, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(scene.folder)
    for arguments in commands():
        if arguments[2:3] != ["fixed"]:
            run(call, arguments, LONG)
    strict = ("--threshold", "2cm/1deg")
    assert scene.figures(call, "rough.txt", *strict)["accuracy"]["2cm_1deg"] < 0.2
    refined = scene.figures(call, "refined/poses_mapped.txt", *strict)
    assert refined["median_translation"] < 0.02
    assert refined["median_rotation_deg"] < 1.0
    runs = ("from-map", "from-poses", "known-focal", "near-focal", "with-depth")
    for run_folder in (*runs, "buffer-on-cpu", "little-memory"):
        figures = scene.figures(call, f"{run_folder}/poses_final.txt", *strict)
        assert figures["registered"] >= IMAGES - 3, run_folder
        assert figures["median_translation"] < 0.02, run_folder
        assert figures["median_rotation_deg"] < 1.0, run_folder
    assert scene.figures(call, "with-depth/poses_final.txt")["scale"] == pytest.approx(1.0, abs=0.05)
    data = json.loads((scene.folder / "run/nvs/transforms.json").read_text())
    assert len(data["test_filenames"]) == 1
    assert data["train_filenames"]
    kept = read_pose_file(scene.folder / "known-focal/poses_final.txt").focal_px
    assert kept.tolist() == pytest.approx([192.0] * len(kept), rel=1e-5)


def test_refining_poses_mends_them(scene: Scene, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """From 5 cm and 3 degrees off to less than 2 cm and 1 degree."""
    monkeypatch.chdir(scene.folder)
    run(call, commands()[0], SHORT)
    refined = scene.figures(call, "refined/poses_mapped.txt", "--threshold", "2cm/1deg")
    assert refined["median_translation"] < 0.02
    assert refined["median_rotation_deg"] < 1.0
