import json
from pathlib import Path

import pytest
import torch
from benchmark_sets import estimate_in_another_frame, write_set
from PIL import Image

from acezero_gpu.cli import reconstruct as command
from acezero_gpu.cli.failure import RunFailedError
from acezero_gpu.cli.settings import resolve_settings
from acezero_gpu.data import PosedViews, resolve_images
from acezero_gpu.data.synthetic import write_dataset
from acezero_gpu.reconstruction import ReconstructionError
from acezero_gpu.runtime import InputError
from benchmarks.__main__ import main
from benchmarks.image_sets import read_set
from benchmarks.metrics import reconstruction_figures
from benchmarks.systems import chosen_systems, pycolmap_mapper
from benchmarks.systems.ours import reconstruct_set

SETTINGS = resolve_settings("cpu", "fast", None, {}, None)


class Stand:
    """In place of the real reconstruction: the true cameras in another frame, one of them lost."""

    def __init__(self, world_from_cam: torch.Tensor, error: Exception | None = None) -> None:
        self.world_from_cam, self.error = world_from_cam, error
        self.seeds: list[int] = []

    def __call__(self, images: str, out: Path, settings, log, *, overwrite: bool) -> command.Outcome:
        self.seeds.append(settings.config.seed)
        if self.error is not None and len(self.seeds) == 1:
            raise self.error
        names = list(resolve_images(images).names)
        confidence = torch.full((len(names),), 50.0)
        confidence[-1] = 3.0
        views = estimate_in_another_frame(self.world_from_cam, names, confidence, 31.0)
        out.mkdir(parents=True)
        summary = {"seconds": {"mapping": 1.5}, "iterations": 4, "stop_reason": "all registered"}
        (out / "summary.json").write_text(json.dumps(summary))
        return command.Outcome(views, len(names) - 1, 40.0, 2.0, "")


def run(tmp_path: Path, *more: str) -> tuple[int, dict]:
    arguments = ["reconstruction", "--sets", "a,b", "--data", str(tmp_path), "--systems", "ours"]
    arguments += ["--device", "cpu", "--out", str(tmp_path / "r.json"), *more]
    code = main(arguments)
    return code, json.loads((tmp_path / "r.json").read_text())


def test_command_measures_every_set_and_keeps_no_folder_name(tmp_path, monkeypatch, capsys):
    stand = Stand(write_set(tmp_path / "a"))
    write_set(tmp_path / "b")
    monkeypatch.setattr(command, "reconstruct_folder", stand)
    code, content = run(tmp_path, "--repeat", "2", "--seed", "5")
    rows = content["rows"]
    assert code == 0 and [row["set"] for row in rows] == ["a", "a", "b", "b"]
    assert [row["seed"] for row in rows] == stand.seeds == [5, 6, 5, 6]
    assert all(row["registered"] == 11 and row["failed"] == ["img_11"] for row in rows)
    assert all(row["median_rotation_deg"] < 1e-4 and row["stages_s"] == {"mapping": 1.5} for row in rows)
    assert rows[0]["details"] == {"iterations": 4, "stop_reason": "all registered"}
    assert str(tmp_path) not in (tmp_path / "r.json").read_text()
    assert "| b | ours | 12 | 11 |" in capsys.readouterr().out
    main(["table", str(tmp_path / "r.json")])
    assert "| b | ours | 12 | 11 |" in capsys.readouterr().out


@pytest.mark.parametrize("error", [RunFailedError("No image."), ValueError("a defect")])
def test_a_set_that_fails_does_not_end_the_run(tmp_path, monkeypatch, error, capsys):
    stand = Stand(write_set(tmp_path / "a"), error)
    write_set(tmp_path / "b")
    monkeypatch.setattr(command, "reconstruct_folder", stand)
    code, content = run(tmp_path)
    assert code == 1 and [row["registered"] for row in content["rows"]] == [0, 11]
    assert str(error) in content["rows"][0]["failure"] and content["rows"][1]["failure"] is None
    assert ("Traceback" in capsys.readouterr().err) == isinstance(error, ValueError)


def test_a_missing_set_is_told_before_anything_runs(tmp_path, capsys):
    write_set(tmp_path / "a")
    code = main(["reconstruction", "--sets", "a,absent", "--data", str(tmp_path), "--systems", "ours"])
    assert code == 2 and "absent" in capsys.readouterr().err


def test_unknown_systems_are_refused():
    assert chosen_systems(" ours") == ["ours"]
    for names in ("ours,other", "", "pycolmap[a=1]", "ours[a=1"):
        with pytest.raises(InputError, match="choose from ours"):
            chosen_systems(names)


def test_settings_in_brackets_hold_for_that_system_alone(tmp_path, monkeypatch, capsys):
    stand = Stand(write_set(tmp_path / "a"))
    write_set(tmp_path / "b")
    given = []
    monkeypatch.setattr(
        command,
        "reconstruct_folder",
        lambda *args, **options: given.append(args[2].config.loop) or stand(*args, **options),
    )
    other = "ours[loop.joint.when=off;loop.seeds.block_views=2]"
    code, content = run(tmp_path, "--systems", f"ours,{other}")
    assert code == 0
    assert [row["system"] for row in content["rows"]] == ["ours", other] * 2
    assert [(loop.joint.when, loop.seeds.block_views) for loop in given] == [
        ("every", SETTINGS.config.loop.seeds.block_views),
        ("off", 2),
    ] * 2
    assert f"'ours,{other}'" in content["command"]
    code = main(["reconstruction", "--sets", "a", "--data", str(tmp_path), "--systems", "ours[loop.wrong=1]"])
    assert code == 2 and "loop.wrong" in capsys.readouterr().err


def test_ours_without_any_texture_is_a_failure_with_a_sentence(tmp_path):
    write_set(tmp_path / "a", 4)
    for path in (tmp_path / "a" / "images").iterdir():
        Image.new("L", (96, 64), 128).save(path)
    settings = resolve_settings(
        "cpu", "fast", None, {}, ["bank.shortest_side_px=64", "bank.keypoint_side_px=64"]
    )
    result = reconstruct_set(read_set(tmp_path / "a"), settings, tmp_path / "work")
    assert result.views is None and result.failure is not None
    with pytest.raises(ReconstructionError) as told, command.RunLog("quiet") as log:
        command.reconstruct_folder(str(tmp_path / "a" / "images"), tmp_path / "direct", settings, log)
    assert result.failure == str(told.value)


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("room"), 10, 240, 180, texels_per_m=120)


def test_pycolmap_finds_the_cameras_of_a_rendered_room(room, tmp_path):
    pytest.importorskip("pycolmap")
    (room / "mapping.txt").write_text("".join(f"frame_{row:04d}\n" for row in (4, 0, 1, 2, 3, 5, 6, 7, 8)))
    truth_set = read_set(room, "mapping.txt")
    result = pycolmap_mapper.reconstruct_set(truth_set, SETTINGS, tmp_path)
    assert isinstance(result.views, PosedViews) and result.failure is None
    assert set(result.views.names) <= set(truth_set.stems)
    assert list(result.stages_s) == ["extract", "match", "map"]
    assert sum(result.stages_s.values()) <= result.seconds
    row = reconstruction_figures(result, truth_set)
    assert row["registered"] == row["images"] == 9
    assert row["median_rotation_deg"] < 1.0 and row["median_translation_share"] < 0.01
    assert row["focal_ratio"] == pytest.approx(1, abs=0.05) and row["rra_5"] == 1.0


def test_pycolmap_without_any_texture_is_a_failure_with_a_sentence(tmp_path):
    pytest.importorskip("pycolmap")
    write_set(tmp_path / "a", 3)
    result = pycolmap_mapper.reconstruct_set(read_set(tmp_path / "a"), SETTINGS, tmp_path / "work")
    assert result.views is None and result.failure
    assert reconstruction_figures(result, read_set(tmp_path / "a"))["registered"] == 0
