"""Tiny archives laid out as the published ones, and the image sets that become of them."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from acezero_gpu.io.datasets import DATASETS, Prepared, fetch, prepare
from acezero_gpu.runtime import InputError

POSE = np.eye(4)
POSE[:3, :3] = Rotation.from_euler("xyz", [10, 20, 30], degrees=True).as_matrix()
POSE[:3, 3] = [1.0, 2.0, 3.0]
"""Camera to world."""
LOST = np.full((4, 4), np.inf)


def text(matrix: np.ndarray) -> bytes:
    return "\n".join(" ".join(f"{value:.12f}" for value in row) for row in matrix).encode()


def picture(width: int = 8, height: int = 6, kind: str = "PNG") -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (width, height)).save(data, kind)
    return data.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()


def frame(folder: str, number: int, pose: np.ndarray, kind: str = "png") -> dict[str, bytes]:
    start = f"{folder}frame-{number:06d}"
    return {
        f"{start}.color.{kind}": picture(),
        f"{start}.depth.png": picture(),
        f"{start}.pose.txt": text(pose),
    }


def made(name: str, folder: Path, archive: str, members: dict[str, bytes]) -> list[Prepared]:
    (folder / archive).write_bytes(zipped(members))
    scenes = list(prepare(DATASETS[name], folder, [archive]))
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    return scenes


def facts(scene: Prepared) -> dict:
    return json.loads((scene.folder / "set.json").read_text())


def lines(scene: Prepared, name: str) -> list[str]:
    return (scene.folder / name).read_text().split()


def test_seven_scenes(tmp_path: Path) -> None:
    members = {
        "chess/TrainSplit.txt": b"sequence1\r\n",
        "chess/TestSplit.txt": b"sequence2\r\n",
        "chess/seq-01.zip": zipped(frame("seq-01/", 0, POSE) | frame("seq-01/", 1, LOST)),
        "chess/seq-02.zip": zipped(frame("seq-02/", 0, POSE) | {"seq-02/Thumbs.db": b""}),
    }
    (scene,) = made("7scenes", tmp_path, "chess.zip", members)
    assert (scene.folder.name, scene.images, scene.posed) == ("chess", 3, 2)
    assert lines(scene, "mapping.txt") == ["seq-01_frame-000000", "seq-01_frame-000001"]
    assert lines(scene, "query.txt") == ["seq-02_frame-000000"]
    assert sorted(path.stem for path in (scene.folder / "images").iterdir()) == [
        "seq-01_frame-000000",
        "seq-01_frame-000001",
        "seq-02_frame-000000",
    ]
    np.testing.assert_allclose(np.loadtxt(scene.folder / "poses/seq-02_frame-000000.txt"), POSE)
    assert len(list((scene.folder / "depth").iterdir())) == 3
    assert (facts(scene)["fx"], facts(scene)["unit"], facts(scene)["cx"]) == (525.0, "m", 4.0)


def test_twelve_scenes(tmp_path: Path) -> None:
    members = {
        "apt1/kitchen/split.txt": b"sequence0 [frames=2]  [start=0 ; end=1]\nsequence1 [frames=1]  [start=2 ; end=2]\n",
        "apt1/kitchen/info.txt": b"m_versionNumber = 4\n"
        b"m_calibrationColorIntrinsic = 572.0 0 320 0 0 571.0 240 0 0 0 1 0 0 0 0 1 \n",
    }
    for number in range(3):
        members |= frame("apt1/kitchen/data/", number, POSE, "jpg")
    (scene,) = made("12scenes", tmp_path, "apt1.zip", members)
    assert scene.folder.name == "apt1_kitchen"
    assert lines(scene, "query.txt") == ["frame-000000", "frame-000001"]
    assert lines(scene, "mapping.txt") == ["frame-000002"]
    assert (facts(scene)["fx"], facts(scene)["fy"]) == (572.0, 571.0)


def colmap(names: list[str]) -> dict[str, bytes]:
    """A text model of images four times as large, all at the same pose."""
    world_from_cam = Rotation.from_matrix(POSE[:3, :3])
    x, y, z, w = world_from_cam.inv().as_quat()
    t = -world_from_cam.inv().apply(POSE[:3, 3])
    rows = [f"{i + 1} {w} {x} {y} {z} {t[0]} {t[1]} {t[2]} 1 {name}\n\n" for i, name in enumerate(names)]
    return {
        "sparse/0/cameras.txt": b"1 SIMPLE_PINHOLE 32 24 40 16 12\n",
        "sparse/0/images.txt": "".join(rows).encode(),
    }


def test_mip_nerf_360(tmp_path: Path) -> None:
    names = [f"DSC{number:02d}.JPG" for number in range(17)]
    members = {f"garden/images_4/{name}": picture(kind="JPEG") for name in names}
    members |= {f"garden/{path}": content for path, content in colmap(names).items()}
    (scene,) = made("mip360", tmp_path, "360_v2.zip", members)
    assert (scene.folder.name, scene.posed, scene.images) == ("garden", 17, 17)
    assert lines(scene, "query.txt") == ["DSC00", "DSC08", "DSC16"]
    assert facts(scene)["fx"] == pytest.approx(10.0)
    np.testing.assert_allclose(np.loadtxt(scene.folder / "poses/DSC03.txt"), POSE, atol=1e-9)
    split = json.loads((scene.folder / "split.json").read_text())
    assert split["test_filenames"] == ["DSC00.jpg", "DSC08.jpg", "DSC16.jpg"]
    assert len(split["train_filenames"]) == 14


def test_tanks_and_temples(tmp_path: Path) -> None:
    names = [f"{number:06d}.jpg" for number in range(14)]
    members = {f"training/Barn/{name}": picture(kind="JPEG") for name in names}
    members |= {f"training/Truck/{name}": picture(kind="JPEG") for name in names}
    members |= {f"training/Truck/{path}": content for path, content in colmap(names).items()}
    barn, truck = made("tanks-and-temples", tmp_path, "training.zip", members)
    assert (barn.folder.name, barn.posed, barn.images) == ("training_Barn", 0, 14)
    assert "fx" not in facts(barn)
    assert lines(barn, "query.txt") == ["000004", "000012"]
    assert (truck.posed, facts(truck)["truth"]) == (14, "COLMAP")


def test_cambridge_landmarks(tmp_path: Path) -> None:
    x, y, z, w = Rotation.from_matrix(POSE[:3, :3]).inv().as_quat()
    head = "Visual Landmark Dataset V1\nImageFile, Camera Position [X Y Z W P Q R]\n\n"
    members = {
        "ShopFacade/seq1/frame00001.png": picture(),
        "ShopFacade/seq2/frame00001.png": picture(),
        "ShopFacade/dataset_train.txt": f"{head}seq1/frame00001.png 1 2 3 {w} {x} {y} {z}\n".encode(),
        "ShopFacade/dataset_test.txt": f"{head}seq2/frame00001.png 1 2 3 {w} {x} {y} {z}\n".encode(),
        "ShopFacade/reconstruction.nvm": b"NVM_V3\n\n2\na.jpg 1600 1 0 0 0 0 0 0 0\nb.jpg 1700 1 0 0 0 0 0 0 0\n0\n",
    }
    (scene,) = made("cambridge", tmp_path, "ShopFacade.zip", members)
    np.testing.assert_allclose(np.loadtxt(scene.folder / "poses/seq1_frame00001.txt"), POSE, atol=1e-9)
    assert lines(scene, "query.txt") == ["seq2_frame00001"]
    assert facts(scene)["fx"] == 1650.0


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none of chess\.zip is there.*--download"):
        list(prepare(DATASETS["7scenes"], tmp_path, ["chess.zip"]))
    with pytest.raises(InputError, match="fetched by hand"):
        fetch(
            DATASETS["tanks-and-temples"],
            tmp_path,
            ["training.zip"],
            lambda _name: lambda _done, _total: None,
        )
    with pytest.raises(InputError, match="no scene that is laid out as published"):
        made("mip360", tmp_path, "360_v2.zip", {"garden/readme.txt": b"x"})
    with pytest.raises(InputError, match="names sequence 3"):
        made(
            "7scenes",
            tmp_path,
            "fire.zip",
            {"fire/TrainSplit.txt": b"sequence3", "fire/TestSplit.txt": b"sequence4"},
        )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["360_v2.zip", "fire.zip"]
