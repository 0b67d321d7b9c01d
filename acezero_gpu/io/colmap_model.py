"""A COLMAP sparse model in memory, and its camera models."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

NO_POINT = -1
"""What COLMAP has for the point of a keypoint that belongs to none."""


class CameraModel(NamedTuple):
    """One of COLMAP's camera models: its number in binary files, and the names of its parameters."""

    number: int
    parameters: tuple[str, ...]


def _model(number: int, parameters: str) -> CameraModel:
    return CameraModel(number, tuple(parameters.split()))


CAMERA_MODELS = {
    "SIMPLE_PINHOLE": _model(0, "f cx cy"),
    "PINHOLE": _model(1, "fx fy cx cy"),
    "SIMPLE_RADIAL": _model(2, "f cx cy k1"),
    "RADIAL": _model(3, "f cx cy k1 k2"),
    "OPENCV": _model(4, "fx fy cx cy k1 k2 p1 p2"),
    "OPENCV_FISHEYE": _model(5, "fx fy cx cy k1 k2 k3 k4"),
    "FULL_OPENCV": _model(6, "fx fy cx cy k1 k2 p1 p2 k3 k4 k5 k6"),
    "FOV": _model(7, "fx fy cx cy omega"),
    "SIMPLE_RADIAL_FISHEYE": _model(8, "f cx cy k1"),
    "RADIAL_FISHEYE": _model(9, "f cx cy k1 k2"),
    "THIN_PRISM_FISHEYE": _model(10, "fx fy cx cy k1 k2 p1 p2 k3 k4 sx1 sy1"),
    "RAD_TAN_THIN_PRISM_FISHEYE": _model(11, "fx fy cx cy k0 k1 k2 k3 k4 k5 p0 p1 s0 s1 s2 s3"),
}
"""By name, as COLMAP's documentation lists them."""


@dataclass(frozen=True, slots=True)
class ColmapCamera:
    """Intrinsics; pixels are counted as here: the centre of the top-left one is (0.5, 0.5)."""

    camera_id: int
    model: str
    """A key of ``CAMERA_MODELS``."""
    width: int
    height: int
    parameters: tuple[float, ...]
    """In the order of the model's parameters."""

    def named(self) -> dict[str, float]:
        """The parameters by their names; a shared focal length is ``fx`` and ``fy``."""
        values = dict(zip(CAMERA_MODELS[self.model].parameters, self.parameters, strict=True))
        if "f" in values:
            focal = values.pop("f")
            values |= {"fx": focal, "fy": focal}
        return values


@dataclass(frozen=True, slots=True)
class ColmapImage:
    """One posed image and where it sees points."""

    image_id: int
    pose: tuple[float, ...]
    """World to camera, OpenCV axes: ``qw qx qy qz tx ty tz``."""
    camera_id: int
    name: str
    """Path of the file below the model's image folder."""
    pixels: NDArray[np.float64]
    """``(k, 2)``: observations, lens distortion included."""
    point_ids: NDArray[np.int64]
    """``(k,)``: the point that each is of, ``NO_POINT`` for none."""


@dataclass(frozen=True, slots=True)
class ColmapPoints:
    """The points of a model; row i is of the point with the id ``ids[i]``."""

    ids: NDArray[np.int64]
    positions: NDArray[np.float64]
    """``(p, 3)``."""
    colours: NDArray[np.uint8]
    """``(p, 3)``."""
    errors_px: NDArray[np.float64]
    """``(p,)``: mean reprojection error."""
    tracks: tuple[NDArray[np.int64], ...]
    """One ``(length, 2)`` table per point: image id, and row of the image's observations."""


@dataclass(frozen=True, slots=True)
class ColmapModel:
    """Cameras, images and points, as the three files of a sparse model hold them."""

    cameras: tuple[ColmapCamera, ...]
    images: tuple[ColmapImage, ...]
    points: ColmapPoints
