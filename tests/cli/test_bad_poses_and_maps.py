"""Poses and maps that a command cannot start from are told in one sentence."""

import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_calls import LINE, SMALL, Call
from safetensors.torch import save_file

from acezero_gpu.network import Head, HeadConfig, SceneMap, make_encoder


def test_a_map_needs_a_pose_for_every_image(call: Call, photos: Path, tmp_path: Path) -> None:
    poses = tmp_path / "poses.txt"
    poses.write_text("".join(LINE.format(name=f"photo_{index}.png") for index in range(2)))
    said = call("map", photos, tmp_path / "out", "--poses", poses)
    assert said.code == 2
    assert "photo_2.png" in said.sentence
    assert not (tmp_path / "out").exists()


def test_a_malformed_pose_line_is_named(call: Call, photos: Path, tmp_path: Path) -> None:
    poses = tmp_path / "poses.txt"
    poses.write_text(LINE.format(name="photo_0.png") + "photo_1.png 1 0 0 zero 0 0 0 50 inf\n")
    for arguments in (("map", photos, tmp_path / "out", "--poses", poses), ("evaluate", poses, poses)):
        said = call(*arguments)
        assert said.code == 2
        assert f"{poses}:2:" in said.sentence


def test_a_lost_frame_needs_permission(call: Call, photos: Path, tmp_path: Path) -> None:
    poses = tmp_path / "poses"
    poses.mkdir()
    for index in range(3):
        matrix = np.eye(4) if index else np.full((4, 4), -np.inf)
        np.savetxt(poses / f"photo_{index}.txt", matrix)
    said = call("map", photos, tmp_path / "out", "--poses", poses)
    assert said.code == 2
    assert "photo_0.png" in said.sentence
    assert "--allow-missing" in said.sentence


def test_a_file_that_is_no_map(call: Call, photos: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    save_file({"weights": torch.zeros(3)}, other)
    text = tmp_path / "text.safetensors"
    text.write_text("hello")
    for path, part in (
        (other, "not a map"),
        (text, "not a"),
        (tmp_path / "none", "no such file"),
        (photos, "no map in this folder"),
    ):
        said = call("register", photos, path, tmp_path / "out")
        assert said.code == 2
        assert part in said.sentence
        assert str(path) in said.sentence


def test_a_map_of_another_encoder(call: Call, photos: Path, tmp_path: Path) -> None:
    head = Head(16, HeadConfig(width=8), torch.zeros(3))
    path = tmp_path / "map.safetensors"
    SceneMap(head, "ace-encoder-0123456789ab", 48, 1.2).save(path)
    said = call("register", photos, path, tmp_path / "out")
    assert said.code == 2
    assert "ace-encoder-0123456789ab" in said.sentence
    assert "--encoder" in said.sentence


def test_a_map_brings_an_encoder_of_the_package_along(call: Call, photos: Path, tmp_path: Path) -> None:
    """Unless another one is asked for. The head of this map knows nothing, but the features fit it."""
    default, other = (make_encoder(name, torch.device("cpu")) for name in ("dense-sift", "acezero"))
    path = tmp_path / "map.safetensors"
    for encoder in (default, other):
        head = Head(encoder.channels, HeadConfig(width=8), torch.zeros(3))
        SceneMap(head, encoder.identifier, 48, 1.2).save(path)
        said = call("register", photos, path, tmp_path / encoder.identifier)
        assert said.code != 2
        config = tomllib.loads((tmp_path / encoder.identifier / "config.toml").read_text())
        assert make_encoder(config["encoder"], torch.device("cpu")).identifier == encoder.identifier
    said = call("register", photos, path, tmp_path / "out", "--encoder", "dense-sift")
    assert said.code == 2
    assert other.identifier in said.sentence


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--fix-poses"], "--fix-poses: say with --poses which ones."),
        (
            ["--poses", "a.txt", "--depth", "b"],
            "--depth and --poses: a reconstruction starts from one of them",
        ),
        (["--poses", "a.txt", "--seed-map", "c"], "--poses and --seed-map: a reconstruction starts from one"),
        (["--seed-map", "nowhere.safetensors"], "nowhere.safetensors: no such file"),
        (
            ["--seed-map", "photos"],
            "photos: no map in this folder; acezero reconstruct or acezero map makes one.",
        ),
        (["--poses", "one.txt"], "one.txt: one image alone has a pose there; give at least two"),
        (["--poses", "none.txt"], "none.txt: none of the 3 images has a valid pose there."),
    ],
)
def test_a_start_that_is_none(
    call: Call, photos: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], complaint: str
) -> None:
    monkeypatch.chdir(photos.parent)
    Path("one.txt").write_text(LINE.format(name="photo_1.png"))
    Path("none.txt").write_text("photo_1.png 1 0 0 0 0 0 0 50 0\n")
    said = call("reconstruct", "photos", "out", *flags)
    assert said.code == 2
    assert complaint in said.sentence
    assert not Path("out").exists()


def test_poses_that_the_run_did_not_register_are_no_start(
    call: Call, photos: Path, tmp_path: Path, no_loop: list
) -> None:
    """What a run registered stands in its summary; the starting focal length is that of the file."""
    run = tmp_path / "run"
    run.mkdir()
    lines = [
        f"photo_{row}.png 1 0 0 0 {row} 0 0 77 {confidence}" for row, confidence in enumerate((9, 50, 60))
    ]
    (run / "poses_final.txt").write_text("\n".join(lines))
    (run / "summary.json").write_text(json.dumps({"registered_means_confidence_from": 40}))
    said = call(
        "reconstruct", photos, tmp_path / "out", "--poses", run / "poses_final.txt", "--fix-poses", *SMALL
    )
    assert said.sentence == "No start was found; add images."
    ((bank, camera, _config, others),) = no_loop
    assert others["given"].images.tolist() == [1, 2]
    assert others["given"].fixed
    assert bank.focal_original_px(camera) == pytest.approx(77)
