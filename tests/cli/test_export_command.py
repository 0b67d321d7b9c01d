"""Exports of a finished run, and the way back, through the command line."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch
from cli_calls import Call, picture
from plyfile import PlyData
from reference import exported_scene as made

from acezero_gpu.config import as_toml, preset, with_override
from acezero_gpu.io import read_pose_file, write_pose_file, write_tracks
from acezero_gpu.network import Head, HeadConfig, SceneMap, make_encoder


@dataclass(frozen=True)
class Run:
    path: Path
    images: Path


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Five images, of which the last failed; their map knows nothing."""
    folder, images = tmp_path / "run", tmp_path / "photos"
    folder.mkdir()
    images.mkdir()
    views = made.scene().views
    views.confidence[-1] = 3.0
    for name in views.names:
        picture(1, (made.WIDTH, made.HEIGHT)).save(tmp_path / name)
    for name in ("poses_final.txt", "poses_0.txt"):
        write_pose_file(folder / name, views)
    write_tracks(folder / "tracks.safetensors", made.tracks())
    config = with_override(preset("fast"), "bank.shortest_side_px=48")
    (folder / "config.toml").write_text(as_toml(config))
    summary = {
        "registered_means_confidence_from": 120.0,
        "image_root": str(tmp_path),
        "image_size_px": [made.WIDTH, made.HEIGHT],
        "radial": list(made.RADIAL),
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    encoder = make_encoder("dense-sift", torch.device("cpu"))
    torch.manual_seed(0)
    head = Head(encoder.channels, HeadConfig(width=8), torch.zeros(3))
    SceneMap(head, encoder.identifier, 48, made.FOCAL_PX / made.HEIGHT).save(folder / "map_0.safetensors")
    return Run(folder, images)


def test_colmap_opens_what_comes_beside_the_run(call: Call, run: Run) -> None:
    said = call("export", run.path, "--to", "colmap")
    assert said.code == 0, said.err
    assert said.out.startswith("exported 4 of 5 images as colmap")
    out = run.path / "export" / "colmap"
    for folder in (out / "sparse" / "0", out / "sparse_text"):
        model = pycolmap.Reconstruction(str(folder))
        assert model.num_reg_images() == 4
        assert model.compute_mean_reprojection_error() == pytest.approx(0.5, abs=1e-3)
        for image in model.images.values():
            assert (out / "images" / image.name).resolve() == run.images / image.name.replace("_", " ")


def test_earlier_files_are_refused_before_anything_is_written(call: Call, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert call("export", run.path, out, "--to", "tum").code == 0
    before = (out / "trajectory_tum.txt").stat().st_mtime_ns
    again = call("export", run.path, out, "--to", "colmap,tum")
    assert again.code == 2
    assert "--overwrite" in again.sentence
    assert [path.name for path in out.iterdir()] == ["trajectory_tum.txt"]
    assert call("export", run.path, out, "--to", "colmap,tum", "--overwrite").code == 0
    assert (out / "trajectory_tum.txt").stat().st_mtime_ns > before
    assert len((out / "trajectory_tum.txt").read_text().splitlines()) == 1 + 4


def test_every_format_at_once(call: Call, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = call(
        "export", run.path, out, "--to", "ply,txt", "--to", "nerfstudio", "--copy-images", "--min-confidence", 0,
        "--camera-size", 0.25, "--device", "cpu",
    )  # fmt: skip
    assert said.code == 0, said.err
    content = json.loads((out / "nerfstudio" / "transforms.json").read_text())
    assert [frame["confidence"] for frame in content["frames"]] == [900, 900, 900, 900, 3]
    for frame in content["frames"]:
        file = out / "nerfstudio" / frame["file_path"]
        assert not file.is_symlink()
        assert file.is_file()
    cloud = PlyData.read(out / "point_cloud.ply")["vertex"]
    assert len((out / "point_cloud.txt").read_text().splitlines()) == len(cloud)
    cameras = PlyData.read(out / "cameras.ply")["vertex"]
    corners = np.stack([cameras["x"], cameras["y"], cameras["z"]], -1)
    pose = read_pose_file(run.path / "poses_final.txt").matrices.numpy()
    centres = -(pose[:, :, :3].transpose(0, 2, 1) @ pose[:, :, 3:])[..., 0]
    distance = np.linalg.norm(corners[:, None] - centres, axis=-1).min(1)
    diagonal = np.hypot(1, np.hypot(made.WIDTH, made.HEIGHT) / (2 * made.FOCAL_PX))
    assert distance.max() == pytest.approx(0.25 * diagonal, rel=0.03)

    assert call("export", run.path, tmp_path / "gl", "--to", "ply", "--min-confidence", 0, "--opengl",
                "--camera-size", 0.25).code == 0  # fmt: skip
    turned = PlyData.read(tmp_path / "gl" / "cameras.ply")["vertex"]
    assert np.allclose(np.stack([turned["x"], -turned["y"], -turned["z"]], -1), corners, atol=1e-5)


def test_without_tracks_the_points_are_the_maps(call: Call, run: Run, tmp_path: Path) -> None:
    (run.path / "tracks.safetensors").unlink()
    said = call("export", run.path, tmp_path / "out", "--to", "colmap", "--device", "cpu")
    assert said.code == 0, said.err
    assert "without tracks" in said.err
    model = pycolmap.Reconstruction(str(tmp_path / "out" / "colmap" / "sparse" / "0"))
    assert model.num_reg_images() == 4
    assert all(len(point.track.elements) == 0 for point in model.points3D.values())


def test_times_of_a_video_become_timestamps(call: Call, run: Run, tmp_path: Path) -> None:
    names = [Path(name).name for name in made.scene().views.names]
    table = {
        "format": "acezero-frames-1",
        "source": {"videos": [{}]},
        "seen": 99,
        "frames": [{"name": name, "time_s": 0.25 * row + 7} for row, name in enumerate(names)],
    }
    (run.images / "frames.json").write_text(json.dumps(table))
    assert call("export", run.path, tmp_path / "out", "--to", "tum").code == 0
    rows = np.loadtxt(tmp_path / "out" / "trajectory_tum.txt")
    assert rows[:, 0].tolist() == [7, 7.25, 7.5, 7.75]


@pytest.mark.parametrize(
    ("flags", "code", "part"),
    [
        (["--to", "obj"], 2, "--to obj: choose from colmap"),
        (["--to", ","], 2, "choose from colmap"),
        (["--to", "kitti"], 2, "1 images are not registered"),
        (["--to", "tum", "--min-confidence", 1e6], 1, "no image is registered"),
        (["--to", "colmap", "--images", "no/such/*"], 2, "--images no/such/*: no image of the run there"),
    ],
)
def test_what_cannot_be_exported_is_said(call: Call, run: Run, flags: list, code: int, part: str) -> None:
    said = call("export", run.path, *flags)
    assert said.code == code
    assert part in said.sentence
    assert not (run.path / "export" / "colmap").exists()


def test_what_is_missing_is_said_with_what_helps(call: Call, run: Run, tmp_path: Path) -> None:
    run.images.rename(tmp_path / "moved")
    said = call("export", run.path, tmp_path / "out", "--to", "colmap")
    assert said.code == 2
    assert "4 of 4 images are missing; say with --images" in said.sentence
    assert (
        call("export", run.path, tmp_path / "out", "--to", "colmap", "--images", tmp_path / "moved").code == 0
    )
    (run.path / "map_0.safetensors").unlink()
    said = call("export", run.path, tmp_path / "out", "--to", "ply", "--images", tmp_path / "moved")
    assert said.code == 2
    assert "map_*.safetensors) is missing" in said.sentence
    (run.path / "poses_final.txt").unlink()
    said = call("export", run.path, tmp_path / "out", "--to", "tum")
    assert said.code == 2
    assert "poses_final.txt is missing" in said.sentence


def test_poses_come_back_from_colmap(call: Call, run: Run, tmp_path: Path) -> None:
    assert call("export", run.path, "--to", "colmap").code == 0
    said = call("import", "colmap", run.path / "export" / "colmap", tmp_path / "back.txt")
    assert said.code == 0, said.err
    assert "lens distortion (k1 -0.12, k2 0.03) is left out" in said.out
    assert said.out.splitlines()[-1].startswith("4 poses of ")
    back = read_pose_file(tmp_path / "back.txt", dtype=torch.float64)
    before = read_pose_file(run.path / "poses_final.txt", dtype=torch.float64)
    assert torch.allclose(back.matrices, before.matrices[:4], atol=1e-6)
    assert back.focal_px.tolist() == [made.FOCAL_PX] * 4
    assert back.confidence.tolist() == [torch.inf] * 4
    again = call("import", "colmap", run.path / "export" / "colmap", tmp_path / "back.txt")
    assert again.code == 2
    assert "--overwrite" in again.sentence


def test_what_a_pose_file_cannot_keep_is_said(call: Call, tmp_path: Path) -> None:
    """Each image keeps the focal length of its own camera."""
    (tmp_path / "cameras.txt").write_text(
        "# cameras\n1 PINHOLE 640 480 500 510 320 240\n2 SIMPLE_PINHOLE 640 480 400 300 240\n"
    )
    (tmp_path / "images.txt").write_text("1 1 0 0 0 0 0 1 1 b one.jpg\n\n2 1 0 0 0 0 0 2 2 a.jpg\n1 2 -1\n")
    said = call("import", "colmap", tmp_path, tmp_path / "poses.txt")
    assert said.code == 0, said.err
    assert "camera 1 (PINHOLE): focal lengths 500.00 and 510.00 px become their mean" in said.out
    assert "camera 2 (SIMPLE_PINHOLE): its principal point (300.0, 240.0) px is left out" in said.out
    assert "focal 400.0 to 505.0 px" in said.out
    views = read_pose_file(tmp_path / "poses.txt")
    assert views.names == ("a.jpg", "b one.jpg")
    assert views.focal_px.tolist() == [400, 505]
    assert views.matrices[:, 2, 3].tolist() == [2, 1]
