from pathlib import Path

import numpy as np
import pypose as pp
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from acezero_gpu.data.posed_views import PosedViews
from acezero_gpu.io.pose_file import (
    match_to_images,
    quote_name,
    read_pose_file,
    read_pose_folder,
    read_poses,
    write_pose_file,
)
from acezero_gpu.runtime import InputError

UNIT = "1 0 0 0 0 0 0 500 inf"


def random_views(names: list[str], dtype: torch.dtype = torch.float64, seed: int = 0) -> PosedViews:
    generator = torch.Generator().manual_seed(seed)
    n = len(names)
    quaternion = torch.nn.functional.normalize(
        torch.randn(n, 4, generator=generator, dtype=torch.float64), dim=-1
    )
    translation = 10 * torch.randn(n, 3, generator=generator, dtype=torch.float64)
    focal = 500 + 10 * torch.rand(n, generator=generator, dtype=torch.float64)
    confidence = torch.randint(0, 4000, (n,), generator=generator).to(dtype)
    pose = pp.SE3(torch.cat([translation, quaternion], dim=-1).to(dtype))
    return PosedViews(tuple(names), pose, focal.to(dtype), confidence)


def test_a_line_is_name_scalar_first_quaternion_translation_focal_confidence(tmp_path: Path) -> None:
    views = random_views(["images/a.png"])
    write_pose_file(tmp_path / "poses.txt", views)
    name, *fields = (tmp_path / "poses.txt").read_text().split()
    w, x, y, z, tx, ty, tz, focal, confidence = map(float, fields)
    rotation = Rotation.from_quat([x, y, z, w]).as_matrix()
    assert name == "images/a.png"
    assert np.allclose(views.matrices[0, :, :3], rotation, atol=1e-12)
    assert np.allclose(views.matrices[0, :, 3], [tx, ty, tz], atol=1e-12)
    assert (focal, confidence) == (float(views.focal_px[0]), float(views.confidence[0]))


def test_writing_and_reading_give_the_same_numbers(tmp_path: Path, dtype: torch.dtype) -> None:
    views = random_views([f"{index}.png" for index in range(50)], dtype)
    write_pose_file(tmp_path / "poses.txt", views)
    again = read_pose_file(tmp_path / "poses.txt", dtype=dtype)
    assert again.names == views.names
    assert torch.equal(again.cam_from_world.tensor()[:, :3], views.cam_from_world.tensor()[:, :3])
    tolerance = {torch.float32: 1e-7, torch.float64: 1e-15}[dtype]
    assert torch.allclose(
        again.cam_from_world.tensor(), views.cam_from_world.tensor(), atol=tolerance, rtol=0
    )
    assert torch.equal(again.focal_px, views.focal_px)
    assert torch.equal(again.confidence, views.confidence)
    assert [path.name for path in tmp_path.iterdir()] == ["poses.txt"]


file_names = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=12
)


@settings(max_examples=200, deadline=None)
@given(names=st.lists(file_names, min_size=1, max_size=3, unique=True))
def test_any_file_name_survives(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    path = tmp_path_factory.mktemp("poses") / "poses.txt"
    write_pose_file(path, random_views(names))
    assert read_pose_file(path).names == tuple(names)


def test_plain_names_stay_plain_and_others_are_quoted() -> None:
    assert quote_name("images/frame-000000.color.png") == "images/frame-000000.color.png"
    assert quote_name("my photo.png") == '"my photo.png"'
    assert quote_name('say "x"\\y') == '"say \\"x\\"\\\\y"'


def test_files_of_ace0_are_read_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "poses.txt").write_text(
        f"# a comment\n\nC:\\data\\1.png {UNIT}\r\ndata/it's.png 0.70710678 0 0.7071 0 1 2 3 525.5 1234\n"
    )
    views = read_pose_file(tmp_path / "poses.txt")
    assert views.names == ("C:\\data\\1.png", "data/it's.png")
    assert torch.allclose(views.cam_from_world.tensor()[1, 3:].norm(), torch.tensor(1.0))
    assert views.confidence.tolist() == [float("inf"), 1234.0]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("my photo.png " + UNIT, "10 numbers instead of 9"),
        ("a.png 1 0 0 0 0 0 0 500", "8 numbers instead of 9"),
        ("a.png 1 0 0 0 0 0 zero 500 1", "tz is 'zero'"),
        ("a.png 1 0 0 0 nan 0 0 500 1", "not finite"),
        ("a.png 1.02 0 0 0 0 0 0 500 1", "norm 1.02"),
        ("a.png 0 0 0 0 0 0 0 500 1", "norm 0"),
        ("a.png 1 0 0 0 0 0 0 0 1", "focal length"),
        ("a.png 1 0 0 0 0 0 0 inf 1", "focal length"),
        ("a.png 1 0 0 0 0 0 0 500 nan", "confidence"),
        ("a.png 1 0 0 0 0 0 0 500 -1", "confidence"),
        ('"a.png ' + UNIT, "does not end"),
        ("first.png " + UNIT, "has a pose already"),
    ],
)
def test_a_wrong_line_is_named_by_file_and_number(tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / "poses.txt").write_text(f"first.png {UNIT}\n\n{line}\n")
    with pytest.raises(InputError) as error:
        read_pose_file(tmp_path / "poses.txt")
    assert "poses.txt:3" in str(error.value)
    assert words in str(error.value)


def test_an_absent_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.txt"):
        read_pose_file(tmp_path / "none.txt")


def test_a_pose_that_is_not_finite_is_written_as_failed(tmp_path: Path) -> None:
    views = random_views(["a.png", "b.png"])
    pose = views.cam_from_world.tensor().clone()
    pose[0, 1] = float("nan")
    write_pose_file(
        tmp_path / "p.txt", PosedViews(views.names, pp.SE3(pose), views.focal_px, views.confidence + 1)
    )
    again = read_pose_file(tmp_path / "p.txt")
    assert again.confidence[0] == 0
    assert again.confidence[1] > 0
    assert torch.equal(again.matrices[0, :, :3], torch.eye(3))


def write_matrix(path: Path, rotation: np.ndarray, centre: np.ndarray) -> None:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, centre
    np.savetxt(path, matrix)


def test_matrices_are_camera_to_world_and_matched_by_frame(tmp_path: Path) -> None:
    rotations = Rotation.random(3, rng=np.random.default_rng(0)).as_matrix()
    centres = np.random.default_rng(1).normal(size=(3, 3))
    names = [f"seq/frame-00000{index}.color.png" for index in (2, 0, 1)]
    for index in range(3):
        write_matrix(tmp_path / f"frame-00000{index}.pose.txt", rotations[index], centres[index])
    views = read_pose_folder(tmp_path, names, 525.0, dtype=torch.float64)
    order = [2, 0, 1]
    assert np.allclose(views.matrices[:, :, :3], rotations[order].transpose(0, 2, 1), atol=1e-9)
    seen = (
        np.einsum("nij,nj->ni", views.matrices[:, :, :3].numpy(), centres[order])
        + views.matrices[:, :, 3].numpy()
    )
    assert np.allclose(seen, 0, atol=1e-9)
    assert views.focal_px.tolist() == [525.0] * 3
    assert views.confidence.isinf().all()
    assert read_poses(f"{tmp_path}/*.txt", names, 525.0).names == tuple(names)


def test_a_lost_frame_has_no_pose_and_an_absent_file_is_an_error(tmp_path: Path) -> None:
    write_matrix(tmp_path / "a.txt", np.eye(3), np.zeros(3))
    np.savetxt(tmp_path / "b.txt", np.full((4, 4), -np.inf))
    views = read_pose_folder(tmp_path, ["a.png", "b.png"], 500.0)
    assert views.confidence.tolist() == [float("inf"), 0.0]
    with pytest.raises(InputError, match=r"no pose for image c\.png"):
        read_pose_folder(tmp_path, ["a.png", "c.png"], 500.0)
    assert read_pose_folder(tmp_path, ["c.png", "a.png"], 500.0, allow_missing=True).confidence[0] == 0
    with pytest.raises(InputError, match="focal length"):
        read_poses(tmp_path, ["a.png", "b.png"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("1 0 0\n0 1 0\n0 0 1\n", "shape"),
        ("1 0 0 0\n0 1 0\n", "not a table"),
        ("1 0 0 x\n" * 4, "not a table"),
        ("2 0 0 0\n0 2 0 0\n0 0 2 0\n0 0 0 1\n", "not a rigid"),
        ("1 0 0 0\n0 1 0 0\n0 0 -1 0\n0 0 0 1\n", "not a rigid"),
        ("1 0 0 0\n0 1 0 0\n0 0 1 0\n3 0 0 1\n", "not a rigid"),
    ],
)
def test_a_wrong_matrix_is_named(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(InputError, match=rf"a\.txt.*{words}"):
        read_pose_folder(tmp_path, ["a.png"], 500.0)


def test_rounded_rotations_become_exact(tmp_path: Path) -> None:
    rotation = Rotation.from_rotvec([0.3, -0.5, 0.9]).as_matrix()
    write_matrix(tmp_path / "a.txt", rotation.round(3), np.zeros(3))
    read = read_pose_folder(tmp_path, ["a.png"], 500.0, dtype=torch.float64).matrices[0, :, :3]
    assert np.allclose(read @ read.T, np.eye(3), atol=1e-12)
    assert np.allclose(read, rotation.T, atol=2e-3)


def test_views_are_matched_to_images_by_path_name_or_stem(tmp_path: Path) -> None:
    views = random_views(["old/a.png", "old/b.png", "old/c.png"])
    by_name = match_to_images(views, ["new/c.png", "new/a.png"])
    assert by_name.names == ("new/c.png", "new/a.png")
    assert torch.equal(by_name.cam_from_world.tensor(), views.cam_from_world.tensor()[[2, 0]])
    assert torch.equal(match_to_images(views, ["b.jpg"]).focal_px, views.focal_px[[1]])
    partial = match_to_images(views, ["b.jpg", "z.jpg"], allow_missing=True)
    assert partial.confidence.tolist() == [views.confidence[1], 0.0]
    assert torch.equal(partial.matrices[1, :, :3], torch.eye(3, dtype=torch.float64))
    with pytest.raises(InputError, match=r"no pose for image z\.jpg"):
        match_to_images(views, ["b.jpg", "z.jpg"])
    with pytest.raises(InputError, match="no pose"):
        match_to_images(views, ["y.jpg", "z.jpg"], allow_missing=True)


def test_a_given_focal_length_replaces_that_of_the_file(tmp_path: Path) -> None:
    write_pose_file(tmp_path / "poses.txt", random_views(["a.png", "b.png"]))
    assert read_poses(tmp_path / "poses.txt", ["b.png", "a.png"], 321.0).focal_px.tolist() == [321.0] * 2
    assert 500 <= read_poses(tmp_path / "poses.txt", ["b.png", "a.png"]).focal_px[0] <= 510


def test_real_poses_read_as_scipy_reads_them(real_data: Path) -> None:
    folder = real_data / "redkitchen" / "poses"
    if not folder.is_dir():
        pytest.skip("this image set is absent")
    files = sorted(folder.glob("*.txt"))[:5]
    views = read_pose_folder(folder, [f"{file.stem}.jpg" for file in files], 525.0, dtype=torch.float64)
    for row, file in enumerate(files):
        world_from_cam = np.loadtxt(file)
        quaternion = Rotation.from_matrix(world_from_cam[:3, :3]).inv().as_quat()
        ours = views.cam_from_world.tensor()[row, 3:].numpy()
        assert min(np.abs(ours - quaternion).max(), np.abs(ours + quaternion).max()) < 1e-6
        assert np.allclose(views.matrices[row, :, 3], np.linalg.inv(world_from_cam)[:3, 3], atol=1e-6)
