"""What other programs read: Nerfstudio's transforms, trajectories, clouds, and the images beside them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from plyfile import PlyData
from reference import exported_scene as made
from scipy.spatial.transform import Rotation

from acezero_gpu.io import write_points
from acezero_gpu.io.export_scene import ColouredPoints, exported_names
from acezero_gpu.io.nerfstudio import write_nerfstudio
from acezero_gpu.io.placed_images import place_images
from acezero_gpu.io.point_text import write_point_text
from acezero_gpu.io.trajectory import write_kitti, write_tum
from acezero_gpu.runtime import InputError

CLOUD = ColouredPoints(made.tracks().tracks.points, made.tracks().colours)


def centres_and_rotations() -> tuple[np.ndarray, Rotation]:
    """Camera to world, by scipy."""
    pose = made.poses().numpy()
    rotation = Rotation.from_quat(pose[:, 3:]).inv()
    return -rotation.apply(pose[:, :3]), rotation


def test_nerfstudio_sees_the_points_where_the_images_do(tmp_path: Path) -> None:
    """By the documented convention: OpenGL camera axes, camera to world, OPENCV distortion."""
    write_nerfstudio(tmp_path, made.scene(), CLOUD)
    content = json.loads((tmp_path / "transforms.json").read_text())
    assert content["camera_model"] == "OPENCV"
    assert (content["w"], content["h"], content["p1"], content["p2"]) == (640, 480, 0, 0)
    ply = PlyData.read(tmp_path / content["ply_file_path"])["vertex"]
    world = np.stack([ply["x"], ply["y"], ply["z"]], axis=-1)
    assert [frame["file_path"] for frame in content["frames"]] == [f"images/a_{row}.jpg" for row in range(5)]
    for row, frame in enumerate(content["frames"]):
        matrix = np.array(frame["transform_matrix"])
        assert matrix.shape == (4, 4)
        camera = (world - matrix[:3, 3]) @ matrix[:3, :3]
        x, y = camera[:, 0] / -camera[:, 2], camera[:, 1] / -camera[:, 2]
        square = x**2 + y**2
        stretch = 1 + content["k1"] * square + content["k2"] * square**2
        u = content["fl_x"] * x * stretch + content["cx"]
        v = content["cy"] - content["fl_y"] * y * stretch
        assert (camera[:, 2] < 0).all(), "the camera looks along its negative z axis"
        assert (
            np.abs(np.stack([u, v], -1) - made.seen_px(made.poses().numpy()[row], made.points())).max() < 1e-2
        )


def test_trajectories_are_camera_to_world(tmp_path: Path) -> None:
    views = made.scene().views
    centres, rotation = centres_and_rotations()
    write_tum(tmp_path / "tum.txt", views, [0.4, 0.3, 0.2, 0.1, 0.0])
    rows = np.loadtxt(tmp_path / "tum.txt")
    assert rows[:, 0] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert rows[::-1, 1:4] == pytest.approx(centres, abs=1e-6)
    assert (Rotation.from_quat(rows[::-1, 4:]) * rotation.inv()).magnitude().max() < 1e-6
    write_kitti(tmp_path / "kitti.txt", views)
    matrices = np.loadtxt(tmp_path / "kitti.txt").reshape(-1, 3, 4)
    assert matrices[..., 3] == pytest.approx(centres, abs=1e-6)
    assert matrices[..., :3] == pytest.approx(rotation.as_matrix(), abs=1e-6)


def test_clouds_are_read_by_others_without_what_is_not_finite(tmp_path: Path) -> None:
    points = torch.tensor([[1.0, 2, 3], [torch.nan, 0, 0], [-1e-3, 5, 1e4]])
    colours = torch.tensor([[1, 2, 3], [4, 5, 6], [255, 0, 9]], dtype=torch.uint8)
    write_point_text(tmp_path / "cloud.txt", points, colours)
    rows = np.loadtxt(tmp_path / "cloud.txt")
    assert rows.tolist() == [[1, 2, 3, 1, 2, 3], [-1e-3, 5, 1e4, 255, 0, 9]]
    write_points(tmp_path / "cloud.ply", points, colours)
    vertices = PlyData.read(tmp_path / "cloud.ply")["vertex"]
    assert [list(vertex) for vertex in vertices] == [
        [1, 2, 3, 1, 2, 3],
        [np.float32(-1e-3), 5, 1e4, 255, 0, 9],
    ]


def test_exported_names_are_unique_and_without_blanks() -> None:
    assert exported_names(("../a/my photo 1.jpg", "../a/2.jpg")) == ("my_photo_1.jpg", "2.jpg")
    assert exported_names(("x/left/1.jpg", "x/right/1.jpg")) == ("left/1.jpg", "right/1.jpg")
    assert exported_names(("p/../../q/1.jpg", "p/1.jpg")) == ("000000_1.jpg", "000001_1.jpg")
    assert exported_names(("/x/1.jpg", "x/1.jpg")) == ("000000_1.jpg", "000001_1.jpg")
    assert exported_names(("a b.jpg", "a_b.jpg")) == ("000000_a_b.jpg", "000001_a_b.jpg")


@pytest.fixture
def photographs(tmp_path: Path) -> list[Path]:
    """Two of 64x48, one of them stored sideways with an EXIF tag that says so."""
    plain = Image.new("RGB", (64, 48), (200, 0, 0))
    plain.paste((0, 0, 200), (0, 0, 64, 10))
    plain.save(tmp_path / "plain.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    plain.rotate(90, expand=True).save(tmp_path / "sideways.jpg", quality=97, exif=exif)
    return [tmp_path / "plain.png", tmp_path / "sideways.jpg"]


def small_scene(sources: list[Path | None]) -> object:
    views = made.scene().views.subset([0, 1])
    return replace(
        made.scene(),
        views=views,
        file_names=("one.png", "below/two.jpg"),
        sources=tuple(sources),
        width=64,
        height=48,
    )


@pytest.mark.parametrize("copy", [False, True])
def test_images_are_placed_upright(photographs: list[Path], tmp_path: Path, copy: bool) -> None:
    out = tmp_path / "out"
    assert place_images(out, small_scene(photographs), copy=copy) == 1
    assert place_images(out, small_scene(photographs), copy=copy) == 1  # again, over the first
    assert (out / "one.png").is_symlink() is not copy
    assert (out / "one.png").read_bytes() == photographs[0].read_bytes()
    with Image.open(out / "below" / "two.jpg") as image:
        assert image.size == (64, 48)
        assert image.getexif().get(0x0112, 1) == 1
        assert image.getpixel((32, 3))[2] > 150
    assert sorted(path.name for path in out.rglob("*")) == ["below", "one.png", "two.jpg"]


def test_an_image_that_lies_there_already_is_left_alone(photographs: list[Path], tmp_path: Path) -> None:
    before = photographs[0].read_bytes()
    scene = replace(small_scene(photographs), file_names=("plain.png", "two.jpg"))
    place_images(tmp_path, scene, copy=False)
    assert not photographs[0].is_symlink()
    assert photographs[0].read_bytes() == before


def test_images_that_are_gone_or_have_changed_are_named(photographs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1 of 2 images are missing; say with --images"):
        place_images(tmp_path / "out", small_scene([photographs[0], None]), copy=False)
    Image.new("RGB", (32, 24)).save(photographs[1])
    with pytest.raises(InputError, match=r"sideways\.jpg: is 32x24"):
        place_images(tmp_path / "out", small_scene(photographs), copy=False)
