"""Cameras and poses of a COLMAP sparse model, from its text or binary files."""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from acezero_gpu.io.colmap_model import CAMERA_MODELS, ColmapCamera, ColmapImage
from acezero_gpu.runtime import InputError

_PLACES = ("", "sparse/0", "sparse")
"""Where below a given folder a model may lie."""
_OBSERVATION_BYTES = 24
_Entry = TypeVar("_Entry", ColmapCamera, ColmapImage)
_NONE = (np.zeros((0, 2)), np.zeros(0, np.int64))
_MODEL_OF_NUMBER = {model.number: name for name, model in CAMERA_MODELS.items()}


@dataclass(frozen=True, slots=True)
class PosedCameras:
    """What poses need of a model: points and observations are not read."""

    folder: Path
    """Where the model was found."""
    cameras: dict[int, ColmapCamera]
    """By their ids."""
    images: tuple[ColmapImage, ...]
    """In the order of their names, without observations."""


def read_colmap_cameras(path: str | Path) -> PosedCameras:
    """Cameras and images of the model in ``path``, ``path/sparse/0`` or ``path/sparse``; binary files go first.

    ``InputError``, naming the file, where there is no model, where a file is damaged, and for an image whose camera
    is not there.
    """
    folder, suffix = _find_model(Path(path))
    read_cameras, read_images = (
        (_cameras_of_bytes, _images_of_bytes) if suffix == ".bin" else (_cameras_of_text, _images_of_text)
    )
    cameras = {camera.camera_id: camera for camera in _parsed(folder / f"cameras{suffix}", read_cameras)}
    images = sorted(_parsed(folder / f"images{suffix}", read_images), key=lambda image: image.name)
    for image in images:
        if image.camera_id not in cameras:
            raise InputError(
                f"{folder / f'images{suffix}'}: {image.name} is of camera {image.camera_id}, which "
                f"cameras{suffix} does not have; the files belong to different models."
            )
    if not images:
        raise InputError(f"{folder / f'images{suffix}'}: holds no posed image.")
    return PosedCameras(folder, cameras, tuple(images))


def _find_model(path: Path) -> tuple[Path, str]:
    if not path.is_dir():
        raise InputError(f"{path}: no such folder; give one that holds cameras.bin and images.bin, or .txt.")
    for place in _PLACES:
        for suffix in (".bin", ".txt"):
            files = [path / place / f"{name}{suffix}" for name in ("cameras", "images")]
            absent = [file.name for file in files if not file.is_file()]
            if not absent:
                return path / place, suffix
            if len(absent) == 1:
                raise InputError(
                    f"{path / place}: {absent[0]} is missing; a model needs {files[0].name} and {files[1].name}."
                )
    raise InputError(
        f"{path}: no COLMAP model there (cameras.bin and images.bin, or .txt, also below sparse/0)."
    )


def _parsed(path: Path, parse: Callable[[bytes], list[_Entry]]) -> list[_Entry]:
    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    except (ValueError, KeyError, IndexError, struct.error) as error:
        raise InputError(f"{path}: damaged, or no file of COLMAP ({error}).") from None


def _cameras_of_text(data: bytes) -> list[ColmapCamera]:
    cameras = []
    for line in _lines(data):
        if line.strip():
            number, model, width, height, *values = line.split()
            cameras.append(_camera(int(number), model, int(width), int(height), tuple(map(float, values))))
    return cameras


def _images_of_text(data: bytes) -> list[ColmapImage]:
    """Every second line holds the observations of the image before it, and may be empty."""
    lines = list(_lines(data))
    while lines and not lines[0].strip():
        lines.pop(0)
    images = []
    for line in lines[::2]:
        if not line.strip():
            continue
        fields = line.strip().split(maxsplit=9)
        if len(fields) != 10:
            raise ValueError(f"{len(fields)} fields instead of 10 in a line of an image")
        pose = tuple(map(float, fields[1:8]))
        images.append(_image(int(fields[0]), pose, int(fields[8]), fields[9]))
    return images


def _lines(data: bytes) -> list[str]:
    text = data.decode("utf-8", errors="surrogateescape")
    return [line for line in text.splitlines() if not line.startswith("#")]


class _Cursor:
    """Reads one value after another from bytes."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, layout: str) -> tuple:
        values = struct.unpack_from(f"<{layout}", self._data, self._at)
        self._at += struct.calcsize(f"<{layout}")
        return values

    def word(self) -> str:
        end = self._data.index(b"\0", self._at)
        text, self._at = self._data[self._at : end], end + 1
        return text.decode("utf-8", errors="surrogateescape")

    def skip(self, count: int) -> None:
        self._at += count
        if self._at > len(self._data):
            raise ValueError("it ends too early")

    def end(self) -> None:
        if self._at != len(self._data):
            raise ValueError(f"{len(self._data) - self._at} bytes more than it should have")


def _cameras_of_bytes(data: bytes) -> list[ColmapCamera]:
    cursor, cameras = _Cursor(data), []
    for _ in range(cursor.take("Q")[0]):
        number, model_number, width, height = cursor.take("iiQQ")
        if model_number not in _MODEL_OF_NUMBER:
            raise ValueError(f"camera model {model_number} is unknown")
        model = _MODEL_OF_NUMBER[model_number]
        values = cursor.take(f"{len(CAMERA_MODELS[model].parameters)}d")
        cameras.append(_camera(number, model, width, height, values))
    cursor.end()
    return cameras


def _images_of_bytes(data: bytes) -> list[ColmapImage]:
    cursor, images = _Cursor(data), []
    for _ in range(cursor.take("Q")[0]):
        number, *pose, camera = cursor.take("i7di")
        name = cursor.word()
        cursor.skip(_OBSERVATION_BYTES * cursor.take("Q")[0])
        images.append(_image(number, tuple(pose), camera, name))
    cursor.end()
    return images


def _camera(number: int, model: str, width: int, height: int, values: tuple[float, ...]) -> ColmapCamera:
    if model not in CAMERA_MODELS:
        raise ValueError(f"camera model {model} is unknown")
    if len(values) != len(CAMERA_MODELS[model].parameters) or not np.isfinite(values).all():
        raise ValueError(f"camera {number} has not the parameters of a {model} camera")
    if min(width, height) <= 0 or values[0] <= 0:
        raise ValueError(f"camera {number} has no size or no focal length")
    return ColmapCamera(number, model, width, height, values)


def _image(number: int, pose: tuple[float, ...], camera: int, name: str) -> ColmapImage:
    norm = float(np.linalg.norm(pose[:4]))
    if not np.isfinite(pose).all() or abs(norm - 1) > 1e-2:
        raise ValueError(f"the pose of {name} is no pose")
    return ColmapImage(number, pose, camera, name, *_NONE)
