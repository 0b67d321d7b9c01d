"""COLMAP sparse models to files: three text files, or three binary ones (little endian).

The layout is that of COLMAP's documentation (https://colmap.github.io/format.html). Rigs and frames are left out:
where their files are absent, COLMAP makes one of each per camera and image.
"""

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from acezero_gpu.io.colmap_model import CAMERA_MODELS, ColmapModel
from acezero_gpu.runtime.atomic import write_atomically

_OBSERVATION = np.dtype([("pixel", "<f8", 2), ("point", "<i8")])


def write_colmap_text(folder: Path, model: ColmapModel) -> None:
    """``cameras.txt``, ``images.txt`` and ``points3D.txt``; each appears complete or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "cameras.txt", "".join(_camera_lines(model)))
    write_atomically(folder / "images.txt", "".join(_image_lines(model)))
    write_atomically(folder / "points3D.txt", "".join(_point_lines(model)))


def write_colmap_binary(folder: Path, model: ColmapModel) -> None:
    """``cameras.bin``, ``images.bin`` and ``points3D.bin``; each appears complete or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "cameras.bin", b"".join(_camera_bytes(model)))
    write_atomically(folder / "images.bin", b"".join(_image_bytes(model)))
    write_atomically(folder / "points3D.bin", b"".join(_point_bytes(model)))


def _camera_lines(model: ColmapModel) -> Iterator[str]:
    yield "# CAMERA_ID MODEL WIDTH HEIGHT PARAMS[]\n"
    for camera in model.cameras:
        head = f"{camera.camera_id} {camera.model} {camera.width} {camera.height}"
        yield f"{head} {_numbers(camera.parameters)}\n"


def _image_lines(model: ColmapModel) -> Iterator[str]:
    yield "# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME\n# POINTS2D[] as X Y POINT3D_ID\n"
    for image in model.images:
        yield f"{image.image_id} {_numbers(image.pose)} {image.camera_id} {image.name}\n"
        rows = zip(image.pixels.tolist(), image.point_ids.tolist(), strict=True)
        yield " ".join(f"{_numbers(pixel)} {point}" for pixel, point in rows) + "\n"


def _point_lines(model: ColmapModel) -> Iterator[str]:
    yield "# POINT3D_ID X Y Z R G B ERROR TRACK[] as IMAGE_ID POINT2D_IDX\n"
    points = model.points
    for row, point_id in enumerate(points.ids.tolist()):
        colour = " ".join(map(str, points.colours[row].tolist()))
        track = "".join(f" {image} {index}" for image, index in points.tracks[row].tolist())
        position = _numbers(points.positions[row].tolist())
        yield f"{point_id} {position} {colour} {points.errors_px[row]:.6g}{track}\n"


def _camera_bytes(model: ColmapModel) -> Iterator[bytes]:
    yield struct.pack("<Q", len(model.cameras))
    for camera in model.cameras:
        number = CAMERA_MODELS[camera.model].number
        yield struct.pack("<iiQQ", camera.camera_id, number, camera.width, camera.height)
        yield struct.pack(f"<{len(camera.parameters)}d", *camera.parameters)


def _image_bytes(model: ColmapModel) -> Iterator[bytes]:
    yield struct.pack("<Q", len(model.images))
    for image in model.images:
        yield struct.pack("<i7di", image.image_id, *image.pose, image.camera_id)
        yield image.name.encode("utf-8", errors="surrogateescape") + b"\0"
        observations = np.empty(len(image.pixels), _OBSERVATION)
        observations["pixel"], observations["point"] = image.pixels, image.point_ids
        yield struct.pack("<Q", len(observations)) + observations.tobytes()


def _point_bytes(model: ColmapModel) -> Iterator[bytes]:
    points = model.points
    yield struct.pack("<Q", len(points.ids))
    for row, point_id in enumerate(points.ids.tolist()):
        position, colour = points.positions[row].tolist(), points.colours[row].tolist()
        yield struct.pack("<Q3d3Bd", point_id, *position, *colour, points.errors_px[row])
        track = points.tracks[row].astype("<i4")
        yield struct.pack("<Q", len(track)) + track.tobytes()


def _numbers(values: tuple[float, ...] | list[float]) -> str:
    return " ".join(f"{value:.17g}" for value in values)
