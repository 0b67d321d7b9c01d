"""Mip-NeRF 360 (Barron et al., CVPR 2022), Tanks and Temples (Knapitsch et al., 2017), Cambridge Landmarks (Kendall et
al., ICCV 2015): photographs, and poses that structure from motion found."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from acezero_gpu.data.image_set import IMAGE_SUFFIXES, files_of
from acezero_gpu.io.colmap_model import ColmapImage
from acezero_gpu.io.colmap_reader import read_colmap_cameras
from acezero_gpu.io.datasets.image_set_folder import SceneFiles, every_eighth, read_text
from acezero_gpu.runtime import InputError

MIP360_IMAGES = "images_4"
"""A quarter of the resolution, which ACE0 was run on."""
MIP360_FIRST_QUERY, DEFAULT_FIRST_QUERY = 0, 4
"""Where the every-eighth split begins: Mip-NeRF 360's own, and ACE0's for all other sets."""


def mip360(folder: Path) -> SceneFiles:
    """``images_4/`` with the COLMAP model in ``sparse/0``, whose poses are the pseudo ground truth."""
    files = files_of(folder / MIP360_IMAGES, IMAGE_SUFFIXES)
    if not files:
        raise InputError(f"{folder / MIP360_IMAGES}: no image there; is the archive complete?")
    return _with_colmap(files, folder, MIP360_FIRST_QUERY)


def tanks_and_temples(folder: Path) -> SceneFiles:
    """Photographs in one folder; a COLMAP model in ``sparse/0`` below it gives poses and focal length."""
    files = files_of(folder, IMAGE_SUFFIXES) or files_of(folder / "images", IMAGE_SUFFIXES)
    if (folder / "sparse").is_dir():
        return _with_colmap(files, folder, DEFAULT_FIRST_QUERY)
    scene = SceneFiles(None, "arbitrary", "none")
    scene.images = {file.stem: file for file in files}
    scene.mapping, scene.queries = every_eighth(scene.images, DEFAULT_FIRST_QUERY)
    return scene


def cambridge(folder: Path) -> SceneFiles:
    """``seqN/frameNNNNN.png`` with ``dataset_train.txt``, ``dataset_test.txt`` and ``reconstruction.nvm``.

    A line of the lists is ``path x y z qw qx qy qz``: the camera's centre in metres, and its rotation from the world.
    The focal length is the median of those in the NVM file.
    """
    focal = _nvm_focal_px(folder / "reconstruction.nvm")
    scene = SceneFiles((focal, focal), "m", "VisualSFM")
    for name, stems in (("dataset_train.txt", scene.mapping), ("dataset_test.txt", scene.queries)):
        for path, values in _rows(folder / name):
            file = folder / path
            if not file.is_file():
                raise InputError(
                    f"{folder / name}: names {path}, which is not there; is the archive complete?"
                )
            stem = "_".join(Path(path).with_suffix("").parts)
            scene.images[stem] = file
            rotation = _rotation(values[3:])
            scene.world_from_cam[stem] = _matrix(rotation.T, values[:3])
            stems.append(stem)
    return scene


def _with_colmap(files: list[Path], folder: Path, first_query: int) -> SceneFiles:
    model = read_colmap_cameras(folder)
    by_stem = {file.stem: file for file in files}
    scene = SceneFiles(None, "arbitrary", "COLMAP")
    scene.images = dict(sorted(by_stem.items()))
    focal: list[float] = []
    for image in model.images:
        stem = Path(image.name).stem
        if stem not in by_stem:
            continue
        scene.world_from_cam[stem] = _world_from_cam(image)
        if not focal:
            camera = model.cameras[image.camera_id]
            with Image.open(by_stem[stem]) as picture:
                share = picture.size[0] / camera.width
            values = camera.named()
            focal = [values["fx"] * share, values["fy"] * share]
    if not focal:
        raise InputError(f"{model.folder}: poses none of the images in {folder}.")
    scene.focal_px = (focal[0], focal[1])
    scene.mapping, scene.queries = every_eighth(scene.images, first_query)
    return scene


def _world_from_cam(image: ColmapImage) -> NDArray[np.float64]:
    rotation = _rotation(np.array(image.pose[:4]))
    return _matrix(rotation.T, -rotation.T @ np.array(image.pose[4:]))


def _rotation(quaternion: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of ``w x y z``, which need not have unit norm."""
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    return np.eye(3) + 2.0 * (w * cross + cross @ cross)


def _matrix(rotation: NDArray[np.float64], centre: NDArray[np.float64]) -> NDArray[np.float64]:
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, centre
    return matrix


def _rows(path: Path) -> list[tuple[str, NDArray[np.float64]]]:
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        fields = line.split()
        if not fields or "/" not in fields[0] or "." not in fields[0]:
            continue  # three lines of heading
        try:
            values = np.array(fields[1:], dtype=np.float64)
        except ValueError:
            values = np.zeros(0)
        if values.shape != (7,) or not np.isfinite(values).all() or not np.linalg.norm(values[3:]) > 0:
            raise InputError(f"{path}:{number}: not a path and seven numbers, x y z qw qx qy qz.")
        rows.append((fields[0], values))
    if not rows:
        raise InputError(f"{path}: lists no image.")
    return rows


def _nvm_focal_px(path: Path) -> float:
    """Line 1 names the format, the next number is that of the images, then a line for each: name and focal length."""
    lines = [line.split() for line in read_text(path).splitlines() if line.strip()]
    try:
        if not lines[0][0].startswith("NVM"):
            raise ValueError
        count = int(lines[1][0])
        focal = [float(fields[1]) for fields in lines[2 : 2 + count]]
        if not len(focal) == count > 0:
            raise ValueError
        return float(np.median(focal))
    except (IndexError, ValueError):
        raise InputError(f"{path}: not a VisualSFM model with focal lengths.") from None
