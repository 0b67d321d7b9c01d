"""7-Scenes (Shotton et al., CVPR 2013) and 12-Scenes (Valentin et al., 3DV 2016): RGB-D frames with poses."""

import re
from pathlib import Path

from acezero_gpu.io.datasets.image_set_folder import SceneFiles, read_matrix, read_text
from acezero_gpu.runtime import InputError

SEVEN_SCENES_FOCAL_PX = 525.0
"""What ACE0 takes for it; the set comes without calibrated colour cameras."""


def seven_scenes(folder: Path) -> SceneFiles:
    """``seq-NN/`` with ``frame-NNNNNN.color.png``, ``.depth.png``, ``.pose.txt``.

    Sequences of ``TrainSplit.txt`` are mapped, those of ``TestSplit.txt`` are queries. Stems get their sequence's
    name in front, since frames are counted from 0 in each. The truth is KinectFusion's.
    """
    scene = SceneFiles((SEVEN_SCENES_FOCAL_PX, SEVEN_SCENES_FOCAL_PX), "m", "KinectFusion")
    splits = (("TrainSplit.txt", scene.mapping), ("TestSplit.txt", scene.queries))
    for file, stems in splits:
        for number in _sequences(folder / file):
            sequence = folder / f"seq-{number:02d}"
            if (sequence / sequence.name).is_dir():  # as its own archive has it
                sequence = sequence / sequence.name
            if not sequence.is_dir():
                raise InputError(
                    f"{folder / file}: names sequence {number}, but {sequence.name} is not there."
                )
            stems += _add_frames(scene, sequence, f"{sequence.name}_")
    return scene


def twelve_scenes(folder: Path) -> SceneFiles:
    """``data/frame-NNNNNN.color.jpg``, ``.depth.png``, ``.pose.txt`` with ``split.txt`` and ``info.txt``.

    The first sequence of ``split.txt`` is queries, the others are mapped, as the set's authors have it.
    """
    scene = SceneFiles(_colour_focal_px(folder / "info.txt"), "m", "BundleFusion")
    stems = _add_frames(scene, folder / "data", "")
    ranges = re.findall(r"start=(\d+)\s*;\s*end=(\d+)", read_text(folder / "split.txt"))
    if len(ranges) < 2:
        raise InputError(f"{folder / 'split.txt'}: not a list of sequences with their start and end.")
    first_start, first_end = (int(value) for value in ranges[0])
    for stem in stems:
        number = int(re.sub(r"\D", "", stem))
        (scene.queries if first_start <= number <= first_end else scene.mapping).append(stem)
    return scene


def _add_frames(scene: SceneFiles, folder: Path, prefix: str) -> list[str]:
    added = []
    for picture in sorted(folder.glob("frame-*.color.*")):
        frame = picture.name.split(".")[0]
        stem = f"{prefix}{frame}"
        scene.images[stem] = picture
        depth, pose = folder / f"{frame}.depth.png", folder / f"{frame}.pose.txt"
        if depth.is_file():
            scene.depth[stem] = depth
        if pose.is_file() and (matrix := read_matrix(pose)) is not None:
            scene.world_from_cam[stem] = matrix
        added.append(stem)
    return added


def _sequences(path: Path) -> list[int]:
    found = [int(number) for number in re.findall(r"sequence\s*(\d+)", read_text(path))]
    if not found:
        raise InputError(f"{path}: names no sequence.")
    return found


def _colour_focal_px(path: Path) -> tuple[float, float]:
    match = re.search(r"m_calibrationColorIntrinsic\s*=\s*([-\d. e]+)", read_text(path))
    values = [float(value) for value in match[1].split()] if match else []
    if len(values) < 6 or not min(values[0], values[5]) > 0:
        raise InputError(
            f"{path}: has no m_calibrationColorIntrinsic, the 4x4 intrinsics of the colour camera."
        )
    return values[0], values[5]
