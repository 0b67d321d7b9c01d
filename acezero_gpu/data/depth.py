"""Depth maps that come with the images, in metres."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import imageio.v3 as iio
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from acezero_gpu.data.file_matching import is_depth_map, match_files
from acezero_gpu.data.image_set import files_of
from acezero_gpu.runtime import InputError

DEPTH_SUFFIXES = frozenset({".png", ".npy", ".tif", ".tiff", ".pgm"})
INVALID_MM = 65535
"""Depth cameras write the largest 16-bit value where they measured nothing."""


@runtime_checkable
class DepthSource(Protocol):
    """Anything that knows the depth of some images: files, a sensor, a network."""

    def depth_m(self, index: int) -> Float[Tensor, "h w"] | None:
        """Depth along the optical axis of image ``index``, 0 where unknown; None if there is no map."""
        ...


@dataclass(frozen=True, slots=True)
class DepthFiles:
    """Depth maps on disk, one per image or none: a ``DepthSource``.

    16-bit images hold millimetres, ``.npy`` arrays metres. A map may have another size than its image.
    """

    paths: tuple[Path | None, ...]
    """The depth file of each image, in the order of the images."""

    def depth_m(self, index: int) -> Float[Tensor, "h w"] | None:
        path = self.paths[index]
        return None if path is None else read_depth(path)


def find_depth_files(spec: str | Path, names: Sequence[str]) -> DepthFiles:
    """The depth files that a folder or glob names, matched to the images.

    Files whose name equals that of an image (up to ``.color`` and ``.depth``) belong to it, and images
    without one have no depth. Where no name fits, both are paired in order, and then there must
    be as many maps as images. ``InputError`` otherwise.
    """
    files = files_of(spec, DEPTH_SUFFIXES)
    if not files:
        raise InputError(f"{spec}: no depth map matches; give a folder or glob of 16-bit PNG or .npy files.")
    files = [file for file in files if is_depth_map(file)] or files  # their colour images may lie beside them
    return DepthFiles(tuple(match_files(names, files, spec=spec, kind="depth maps")))


def read_depth(path: Path) -> Float[Tensor, "h w"]:
    """One depth map in metres; what is not finite, negative or marked invalid becomes 0."""
    in_metres = path.suffix.lower() == ".npy"
    try:
        values = np.load(path) if in_metres else iio.imread(path, plugin="pillow", index=0)
    except Exception as error:  # decoders raise almost any type for damaged data
        raise InputError(f"{path}: not a readable depth map ({error}); replace or remove it.") from error
    if values.ndim != 2 or (not in_metres and values.dtype.itemsize < 2):
        raise InputError(
            f"{path}: a depth map is one channel, 16-bit millimetres or .npy metres, "
            f"but this is {values.dtype} of shape {values.shape}; convert it."
        )
    if not in_metres:
        values = np.where(values == INVALID_MM, 0, values) / 1000.0
    depth = np.nan_to_num(values.astype(np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    return torch.from_numpy(np.maximum(depth, 0.0))


def depth_at(
    depth_m: Float[Tensor, "h w"], pixels: Float[Tensor, "k 2"], width: int, height: int
) -> Float[Tensor, " k"]:
    """The depth map's value under each pixel of an image of this size; 0 where unknown.

    Of the nearest cell: a mean across an edge would be a depth where nothing is.
    """
    rows, columns = depth_m.shape
    u = (pixels[:, 0] * (columns / width)).long().clamp(0, columns - 1)
    v = (pixels[:, 1] * (rows / height)).long().clamp(0, rows - 1)
    return depth_m[v, u]
