"""Models that pycolmap opens and agrees with, and the way back."""

import shutil
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from reference import exported_scene as made

from acezero_gpu.io.colmap_export import colmap_model
from acezero_gpu.io.colmap_reader import read_colmap_cameras
from acezero_gpu.io.colmap_writer import write_colmap_binary, write_colmap_text
from acezero_gpu.io.export_scene import ColouredPoints
from acezero_gpu.runtime import InputError

WRITERS = {"binary": write_colmap_binary, "text": write_colmap_text}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    model = colmap_model(made.scene(), made.tracks())
    folder = tmp_path_factory.mktemp("colmap")
    for name, write in WRITERS.items():
        write(folder / name, model)
    return {name: folder / name for name in WRITERS}


@pytest.mark.parametrize("kind", WRITERS)
def test_pycolmap_reads_it_and_reprojects_its_points(folders: dict[str, Path], kind: str) -> None:
    """Observations were put half a pixel off; pycolmap, with its own camera, must find exactly that."""
    model = pycolmap.Reconstruction(str(folders[kind]))
    assert model.num_reg_images() == made.VIEWS
    assert len(model.points3D) == made.POINTS
    camera = model.cameras[1]
    assert camera.model.name == "RADIAL"
    assert camera.params == pytest.approx([made.FOCAL_PX, 320, 240, *made.RADIAL])
    errors = []
    for point_id, point in model.points3D.items():
        assert point.xyz == pytest.approx(made.points()[point_id - 1], abs=1e-6)
        assert point.color.tolist() == [(3 * (point_id - 1) + c) % 256 for c in range(3)]
        assert point.error == pytest.approx(0.5, abs=1e-4)
        assert len(point.track.elements) == made.VIEWS - 1
        for element in point.track.elements:
            image = model.images[element.image_id]
            keypoint = image.points2D[element.point2D_idx]
            assert keypoint.point3D_id == point_id
            errors.append(keypoint.xy - image.project_point(point.xyz))
    assert np.abs(np.array(errors) - [0.5, 0]).max() < 1e-3
    assert model.compute_mean_reprojection_error() == pytest.approx(0.5, abs=1e-3)
    names = [model.images[row + 1].name for row in range(made.VIEWS)]
    assert names == [f"a_{row}.jpg" for row in range(made.VIEWS)]


@pytest.mark.parametrize("kind", WRITERS)
def test_poses_come_back(folders: dict[str, Path], kind: str) -> None:
    found = read_colmap_cameras(folders[kind])
    expected = made.poses().numpy()[:, [6, 3, 4, 5, 0, 1, 2]]
    assert np.array([image.pose for image in found.images]) == pytest.approx(expected, abs=1e-12)
    assert found.cameras[1].named()["k2"] == made.RADIAL[1]


def test_our_reader_reads_what_pycolmap_writes(folders: dict[str, Path], tmp_path: Path) -> None:
    model = pycolmap.Reconstruction(str(folders["binary"]))
    for kind, write in (("binary", model.write_binary), ("text", model.write_text)):
        (tmp_path / kind / "sparse" / "0").mkdir(parents=True)
        write(str(tmp_path / kind / "sparse" / "0"))
        found = read_colmap_cameras(tmp_path / kind)
        assert found.folder == tmp_path / kind / "sparse" / "0"
        expected = made.poses().numpy()[:, [6, 3, 4, 5, 0, 1, 2]]
        assert np.array([image.pose for image in found.images]) == pytest.approx(expected, abs=1e-9)
        assert found.cameras[1].parameters == pytest.approx((made.FOCAL_PX, 320, 240, *made.RADIAL))


@pytest.mark.parametrize("kind", WRITERS)
def test_a_straight_lens_and_points_without_tracks(tmp_path: Path, kind: str) -> None:
    cloud = ColouredPoints(made.tracks().tracks.points, made.tracks().colours)
    WRITERS[kind](tmp_path, colmap_model(made.scene((0.0, 0.0)), cloud))
    model = pycolmap.Reconstruction(str(tmp_path))
    assert model.cameras[1].model.name == "SIMPLE_PINHOLE"
    assert len(model.points3D) == made.POINTS
    assert all(len(point.track.elements) == 0 for point in model.points3D.values())
    expected = made.seen_px(made.poses().numpy()[0], made.points(), (0.0, 0.0))
    found = np.array([model.images[1].project_point(model.points3D[p + 1].xyz) for p in range(made.POINTS)])
    assert np.abs(found - expected).max() < 1e-3


@pytest.mark.parametrize("kind", WRITERS)
def test_damage_is_named(folders: dict[str, Path], kind: str, tmp_path: Path) -> None:
    suffix = ".bin" if kind == "binary" else ".txt"
    shutil.copytree(folders[kind], tmp_path / "cut")
    images = tmp_path / "cut" / f"images{suffix}"
    images.write_bytes(images.read_bytes()[:60] if kind == "binary" else b"1 0.5 0.5 0.5\n\n")
    with pytest.raises(InputError, match=f"images{suffix}: damaged"):
        read_colmap_cameras(tmp_path / "cut")
    images.unlink()
    with pytest.raises(InputError, match=f"images{suffix} is missing"):
        read_colmap_cameras(tmp_path / "cut")
    shutil.copytree(folders[kind], tmp_path / "other")
    (tmp_path / "other" / "cameras.txt").write_text("2 PINHOLE 640 480 500 500 320 240\n")
    (tmp_path / "other" / "images.txt").write_text("1 1 0 0 0 0 0 0 7 a.jpg\n\n")
    for name in ("cameras.bin", "images.bin"):
        (tmp_path / "other" / name).unlink(missing_ok=True)
    with pytest.raises(InputError, match="camera 7"):
        read_colmap_cameras(tmp_path / "other")


def test_where_there_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        read_colmap_cameras(tmp_path / "absent")
    with pytest.raises(InputError, match="no COLMAP model"):
        read_colmap_cameras(tmp_path)
