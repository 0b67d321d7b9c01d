"""``acezero report`` on folders that are complete, old, interrupted, moved, or no run at all."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from cli_calls import Call, picture

from acezero_gpu.config import as_toml, preset
from acezero_gpu.data import PosedViews, resolve_images
from acezero_gpu.geometry import se3_from_matrix
from acezero_gpu.io import RunFolder, read_history, write_history, write_points, write_pose_file
from acezero_gpu.io.run_folder import IMAGE_ROOT, REGISTERED_FROM
from acezero_gpu.network import DenseSiftEncoder, Head, HeadConfig, SceneMap
from acezero_gpu.reconstruction.history import ImageRecord, RoundRecord, RunHistory


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of three small pictures, one of which has no pose."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(3):
        picture(index).save(photos / f"{index}.png")
    images = resolve_images(photos)
    folder = RunFolder(tmp_path / "out")
    folder.prepare()
    poses = torch.eye(3, 4).repeat(3, 1, 1)
    poses[:, 0, 3] = torch.arange(3)
    views = PosedViews(
        images.names, se3_from_matrix(poses), torch.full((3,), 60.0), torch.tensor([30.0, 12.0, 2.0])
    )
    for step in (0, 1, "final"):
        write_pose_file(folder.poses(step), views)
    encoder = DenseSiftEncoder()
    SceneMap(Head(encoder.channels, HeadConfig(width=8), torch.zeros(3)), encoder.identifier, 48, 1.2).save(
        folder.map(1)
    )
    folder.write_text("config.toml", f"# acezero reconstruct photos out\n{as_toml(preset('fast'))}")
    write_points(folder.point_cloud, torch.rand(50, 3), torch.zeros(50, 3, dtype=torch.uint8))
    folder.write_json(
        "summary.json", {REGISTERED_FROM: 4.8, IMAGE_ROOT: str(images.root), "seconds": {"mapping": 2.5}}
    )
    rounds = (
        RoundRecord(0, "seed", 2, 2, 1, 61.0, None, {"mapping": 1.0}, ()),
        RoundRecord(1, "final", 2, 2, 2, 60.0, "no further images could be registered", {}, ()),
    )
    records = tuple(
        ImageRecord(name, confidence, placed, confidence / 48, reason)
        for name, confidence, placed, reason in zip(
            images.names,
            (30.0, 12.0, 2.0),
            ("map", "map", "none"),
            (None, None, "its keypoints contradict"),
            strict=True,
        )
    )
    write_history(folder.history, RunHistory(str(images.root), (64, 48), (), 48, 4.8, True, rounds, records))
    return folder.path


def text_of(page: Path) -> str:
    """What a reader sees of the page's body, and of its titles."""
    body = re.sub(r"<(script|style).*?</\1>", "", page.read_text(), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", body).split())


def test_a_finished_run(call: Call, run: Path) -> None:
    said = call("report", run)
    assert (said.code, said.out) == (0, f"report → {run / 'report.html'}\n"), said.err
    text = text_of(run / "report.html")
    assert "2 of 3 images have a pose" in text
    assert "its keypoints contradict" in text
    assert "A closer look at the least sure" in text
    assert "missing" not in text
    assert (run / "report.html").read_text().count("data:image/jpeg") >= 3


def test_images_of_uncertain_scale_are_told(call: Call, run: Path) -> None:
    history = read_history(RunFolder(run).history)
    first, second, third = history.images
    apart = (replace(first, scale_part=1), replace(second, scale_part=1), third)
    write_history(RunFolder(run).history, replace(history, images=apart))
    assert call("report", run).code == 0
    assert "rest: 2 images (0.png to 1.png)" in text_of(run / "report.html")


def test_a_run_of_an_earlier_version_says_what_is_missing(call: Call, run: Path) -> None:
    (run / "history.json").unlink()
    assert call("report", run).code == 0
    text = text_of(run / "report.html")
    assert "history.json is missing" in text
    assert "2 of 3 images have a pose" in text
    assert "Registration" in text
    assert "Training loss" not in text
    assert "the run did not write down why" in text


@pytest.mark.parametrize("history", [True, False])
def test_an_interrupted_run_shows_its_last_round(call: Call, run: Path, history: bool) -> None:
    for name in (
        "summary.json",
        "poses_final.txt",
        "point_cloud.ply",
        *(() if history else ("history.json",)),
    ):
        (run / name).unlink()
    assert call("report", run).code == 0
    text = text_of(run / "report.html")
    assert "the run did not finish" in text
    assert "summary.json is missing" in text
    assert "point_cloud.ply is missing" in text
    assert ("No file says which confidence counts" in text) is not history
    assert ("2 of 3 images have a pose" if history else "All 3 images have a pose") in text


def test_images_that_have_moved(call: Call, run: Path) -> None:
    new = run.parent / "archive"
    shutil.move(run.parent / "photos", new)
    assert call("report", run).code == 0
    text = text_of(run / "report.html")
    assert "3 of 3 image files are no longer where the run found them" in text
    assert "--images" in text
    assert "data:image/jpeg" not in (run / "report.html").read_text()
    assert call("report", run, "--images", new, "--out", run.parent / "there.html").code == 0
    assert "data:image/jpeg" in (run.parent / "there.html").read_text()
    assert "no longer" not in text_of(run.parent / "there.html")
    assert "no image of the run" in call("report", run, "--images", run).sentence


def test_images_that_are_damaged(call: Call, run: Path) -> None:
    (run.parent / "photos" / "2.png").write_bytes(b"nothing")
    assert call("report", run).code == 0
    assert "1 image file can no longer be read" in text_of(run / "report.html")


def test_of_many_images_the_least_sure_have_pictures(
    call: Call, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("acezero_gpu.cli.report_content.MOST_PICTURES", 2)
    assert call("report", run).code == 0
    assert "Pictures are those of the 2 least sure images" in text_of(run / "report.html")
    scene = (run / "report.html").read_text().split('id="scene">')[1].split("</script>")[0]
    shown = [image["picture"] is not None for image in json.loads(scene)["images"]]
    assert shown == [False, True, False]  # the last of the three is shown among the failed ones


def test_a_map_of_another_encoder_costs_the_close_look_only(call: Call, run: Path) -> None:
    SceneMap(Head(4, HeadConfig(width=8), torch.zeros(3)), "another", 48, 1.2).save(run / "map_1.safetensors")
    assert call("report", run).code == 0
    text = text_of(run / "report.html")
    assert "No image could be looked at cell by cell" in text
    assert "2 of 3 images have a pose" in text


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ((), "acezero reconstruct IMAGES"),
        (("poses.txt", "summary.json"), "an acezero register"),
        (("poses_mapped.txt", "map.safetensors"), "an acezero map"),
        (("config.toml", "log.txt"), "poses_final.txt is missing"),
    ],
)
def test_folders_that_are_no_run(call: Call, tmp_path: Path, files: tuple[str, ...], words: str) -> None:
    folder = tmp_path / "some"
    folder.mkdir()
    for name in files:
        (folder / name).write_text("")
    said = call("report", folder)
    assert said.code == 2
    assert str(folder) in said.sentence
    assert words in said.sentence
    assert not (folder / "report.html").exists()


def test_a_folder_that_is_not_there(call: Call, tmp_path: Path) -> None:
    said = call("report", tmp_path / "none")
    assert said.code == 2
    assert "no such folder" in said.sentence


def test_a_damaged_history(call: Call, run: Path) -> None:
    (run / "history.json").write_text("{")
    said = call("report", run)
    assert said.code == 2
    assert f"{run / 'history.json'}: not the history" in said.sentence


def test_a_page_that_cannot_be_written(call: Call, run: Path) -> None:
    said = call("report", run, "--out", run / "summary.json" / "report.html")
    assert said.code == 1
    assert "--out" in said.sentence
    assert json.loads((run / "summary.json").read_text())[REGISTERED_FROM] == 4.8
