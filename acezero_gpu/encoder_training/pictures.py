"""Training pictures: a folder of photographs in memory, with smaller copies for reduction without aliasing."""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import imageio.v3 as iio
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from acezero_gpu.runtime import InputError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
LONGEST_SIDE = 1024
SMALLEST_SIDE = 256
LEVELS = 3

Picture = tuple[UInt8[Tensor, "3 _ _"], ...]
"""Colour at full size, half, quarter."""

log = logging.getLogger(__name__)


def picture_paths(folders: Sequence[Path]) -> list[Path]:
    """Every picture below the folders, in the order of their names; ``InputError`` if there is none."""
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder of training pictures.")
    paths = sorted(
        (path for folder in folders for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES),
        key=lambda path: path.name,
    )
    if not paths:
        raise InputError(
            f"{', '.join(map(str, folders))}: no training pictures; .jpg, .png and .webp files are read."
        )
    return paths


def load_pictures(paths: Sequence[Path]) -> list[Picture]:
    """Decoded in threads. What cannot be read, or is too small to cut from, is left out with a warning."""
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(_load, paths))
    pictures = [picture for picture in found if picture is not None]
    if not pictures:
        raise InputError(f"none of the {len(paths)} training pictures can be used; see the warnings above.")
    return pictures


def _load(path: Path) -> Picture | None:
    try:
        image = Image.fromarray(iio.imread(path, plugin="pillow", mode="RGB"))
    except Exception as error:
        log.warning("%s: cannot be read (%s); left out", path, str(error).splitlines()[0])
        return None
    factor = LONGEST_SIDE / max(image.size)
    if factor < 1:
        image = image.resize(
            (round(image.width * factor), round(image.height * factor)), Image.Resampling.LANCZOS
        )
    if min(image.size) < SMALLEST_SIDE:
        log.warning("%s: smaller than %d pixels; left out", path, SMALLEST_SIDE)
        return None
    levels = []
    for level in range(LEVELS):
        small = image.reduce(2**level) if level else image
        levels.append(torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8))
        levels[-1] = levels[-1].view(small.height, small.width, 3).permute(2, 0, 1).contiguous()
    return tuple(levels)
