"""``acezero experiment run``: what is asked of the reconstruction, what is made of its poses, and the table."""

import json
from pathlib import Path

import numpy as np
import pypose as pp
import pytest
import torch
from cli_calls import Call, picture

from acezero_gpu.cli.experiment_file import read_experiment
from acezero_gpu.cli.failure import RunFailedError
from acezero_gpu.cli.reconstruct import Outcome
from acezero_gpu.data import PosedViews, resolve_images
from acezero_gpu.geometry import compose
from acezero_gpu.io import read_poses, write_pose_file
from acezero_gpu.io.datasets import DATASETS

FILES = sorted((Path(__file__).parents[2] / "experiments").glob("*.toml"))
COUNT = 12


def scene(folder: Path) -> None:
    """Cameras on a bent path, every fourth of them a query."""
    for name in ("images", "poses"):
        (folder / name).mkdir(parents=True)
    for row in range(COUNT):
        picture(row).save(folder / "images" / f"f{row:02d}.png")
        matrix = np.eye(4)
        matrix[:3, :3] = pp.so3(torch.tensor([0.1 * row, 0.05 * row, 0.0])).Exp().matrix().numpy()
        matrix[:3, 3] = [np.cos(row), np.sin(row), 0.1 * row]
        np.savetxt(folder / "poses" / f"f{row:02d}.txt", matrix)
    (folder / "set.json").write_text(json.dumps({"fx": 500.0, "fy": 502.0, "unit": "m"}))
    (folder / "mapping.txt").write_text("".join(f"f{row:02d}\n" for row in range(COUNT) if row % 4))
    (folder / "query.txt").write_text("".join(f"f{row:02d}\n" for row in range(0, COUNT, 4)))


def elsewhere(images: str, poses: Path, shift_m: float = 0.0) -> PosedViews:
    """The true poses in a world twice as large that lies elsewhere; each camera ``shift_m`` off."""
    names = resolve_images(images, minimum=1).names
    truth = read_poses(poses, names, 501.0)
    world = torch.eye(3, 4)
    world[:, 3] = torch.tensor([1.0, 2.0, 3.0])
    matrices = compose(truth.matrices, world.expand(len(names), 3, 4))
    matrices[..., 0, 3] += shift_m * torch.tensor([1.0, -1.0]).repeat(len(names))[: len(names)]
    matrices[..., 3] *= 2
    pose = pp.mat2SE3(matrices, check=False)
    return PosedViews(names, pose, truth.focal_px, torch.full((len(names),), 500.0))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict]:
    """Reconstruction and registration are replaced by the truth of another world; what they were asked is kept."""
    calls: list[dict] = []

    def reconstruct(images, out, settings, log, *, focal_px, overwrite):
        name = out.parent.name
        fixed = settings.config.loop.fix_focal
        count = len(resolve_images(images))
        calls.append({"scene": name, "focal_px": focal_px, "fixed": fixed, "count": count, "out": out})
        if name == "broken":
            raise RunFailedError("No image could be registered.")
        views = elsewhere(images, tmp_path / "data" / name / "poses")
        return Outcome(views, len(views.names) - 1, 100.0, 1.0, "done")

    def register(images, map_file, out, settings, log, focal_px, overwrite):
        calls.append(
            {"queries": len(resolve_images(images, minimum=1)), "map": map_file, "focal_px": focal_px}
        )
        out.mkdir(parents=True)
        write_pose_file(out / "poses.txt", elsewhere(images, tmp_path / "data/good/poses", shift_m=0.03))

    monkeypatch.setattr("acezero_gpu.cli.experiment.reconstruct_folder", reconstruct)
    monkeypatch.setattr("acezero_gpu.cli.experiment.register_folder", register)
    return calls


def write_file(path: Path, scenes: list[str], more: str = "") -> Path:
    path.write_text(
        f'title = "A"\ndataset = "7scenes"\nsource = "B, 2024"\nscenes = {json.dumps(scenes)}\n{more}'
        '[published]\n"PSNR (dB)" = 21.2\n'
    )
    return path


def test_a_table_beside_the_published_figures(call: Call, tmp_path: Path, asked: list[dict]) -> None:
    scene(tmp_path / "data/good")
    more = 'images = "mapping"\nrelocalise = true\nfocal = "fixed"\n'
    file = write_file(tmp_path / "a.toml", ["good"], more)
    said = call(
        "experiment", "run", file, "--data", tmp_path / "data", "--out", tmp_path / "out", "--device", "cpu"
    )
    assert said.code == 0, said.err
    mapping, queries = asked
    assert (mapping["focal_px"], mapping["fixed"], mapping["count"]) == (501.0, True, COUNT - 3)
    assert (queries["queries"], queries["map"], queries["focal_px"]) == (3, mapping["out"], 501.0)
    (row,) = json.loads((tmp_path / "out/results.json").read_text())
    assert row["registered"] == pytest.approx(8 / 9)
    assert row["rotation_deg"] < 0.01
    assert row["position"] < 1e-4
    assert row["accuracy"] == 1.0
    # Aligned on the mapping images the queries' own error shows; aligned on three queries it need not.
    assert row["queries_position"] == pytest.approx(0.03, abs=2e-3)
    assert row["queries_accuracy"] == 1.0
    table = (tmp_path / "out/results.md").read_text()
    assert "| good | 88.9 % |" in table
    assert "Published (B, 2024): PSNR (dB) 21.2." in table
    assert table.strip() in said.out


def test_a_scene_that_fails_does_not_stop_the_others_and_is_run_again(
    call: Call, tmp_path: Path, asked: list[dict]
) -> None:
    for name in ("broken", "good"):
        scene(tmp_path / "data" / name)
    file = write_file(tmp_path / "a.toml", ["broken", "good"])
    arguments = (
        "experiment",
        "run",
        file,
        "--data",
        tmp_path / "data",
        "--out",
        tmp_path / "out",
        "--device",
        "cpu",
    )
    said = call(*arguments)
    assert said.code == 1
    assert said.sentence == "1 of 2 scenes have no result, broken first."
    assert "| broken | No image could be registered. |" in said.out
    assert [ask["scene"] for ask in asked] == ["broken", "good"]
    assert (asked[0]["focal_px"], asked[0]["fixed"]) == (None, False)
    call(*arguments)
    assert [ask["scene"] for ask in asked] == ["broken", "good", "broken"]
    call(*arguments, "--overwrite")
    assert [ask["scene"] for ask in asked][3:] == ["broken", "good"]


def test_one_scene_of_several(call: Call, tmp_path: Path, asked: list[dict]) -> None:
    """The others need not be there, and rows that were made before stay."""
    file = write_file(tmp_path / "a.toml", ["first", "second", "third"])
    arguments = ("experiment", "run", file, "--data", tmp_path / "data", "--out", tmp_path / "out")
    for name in ("second", "first"):
        scene(tmp_path / "data" / name)
        assert call(*arguments, "--device", "cpu", "--overwrite", "--scene", name).code == 0
    assert [ask["scene"] for ask in asked] == ["second", "first"]
    rows = json.loads((tmp_path / "out/results.json").read_text())
    assert [row["scene"] for row in rows] == ["first", "second"]
    said = call(*arguments, "--scene", "fourth")
    assert (said.code, said.sentence) == (2, f"--scene fourth: {file} has first, second, third.")


def test_a_scene_that_is_not_there(call: Call, tmp_path: Path, asked: list[dict]) -> None:
    file = write_file(tmp_path / "a.toml", ["chess"])
    said = call("experiment", "run", file, "--data", tmp_path, "--out", tmp_path / "out")
    assert said.code == 2
    assert "make it with acezero dataset 7scenes" in said.sentence
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("title = ", "not valid TOML"),
        ('title = "A"\nscene = ["a"]', "there is no key scene"),
        ('title = "A"\ndataset = "7scenes"\nsource = "B"', "the key scenes is missing"),
        ('title = "A"\ndataset = "d"\nsource = "B"\nscenes = ["a"]\nfocal = "known"', "focal must be one of"),
        ('title = "A"\ndataset = "d"\nsource = "B"\nscenes = "a"', "scenes must be a list of strings"),
    ],
)
def test_a_file_that_is_wrong(call: Call, tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "a.toml").write_text(content)
    said = call("experiment", "run", tmp_path / "a.toml", "--data", tmp_path, "--out", tmp_path / "out")
    assert said.code == 2
    assert complaint in said.sentence


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_files_of_the_project(file: Path) -> None:
    experiment = read_experiment(file)
    assert experiment.dataset in DATASETS
    stems = [name.removesuffix(".zip") for name in DATASETS[experiment.dataset].archives]
    if experiment.dataset == "7scenes":
        assert set(experiment.scenes) == set(stems)
    if experiment.dataset == "tanks-and-temples":
        assert all(scene.split("_")[0] in stems for scene in experiment.scenes)


def test_there_is_a_file_for_every_table() -> None:
    assert {read_experiment(file).dataset for file in FILES} == {"7scenes", "mip360", "tanks-and-temples"}
    assert any(read_experiment(file).relocalise for file in FILES)
