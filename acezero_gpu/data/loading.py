"""Decoding: image files to uint8 tensors of the working size, in threads."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from acezero_gpu.data.image_set import EXIF_ORIENTATION, SIDEWAYS, ImageSet
from acezero_gpu.runtime.progress import report


@dataclass(frozen=True, slots=True)
class LoadedImages:
    """Every image of a set in memory, grey, at the working size."""

    image_set: ImageSet
    """The images that could be decoded, in the order of the rows."""
    pixels: UInt8[Tensor, "n 1 h w"]
    """Grey values; on the CPU."""

    def __len__(self) -> int:
        return len(self.image_set)

    @property
    def scale_xy(self) -> tuple[float, float]:
        """Working pixels per original pixel, along x and y; rounding the longer side makes them differ."""
        height, width = self.pixels.shape[-2:]
        return width / self.image_set.width, height / self.image_set.height

    def batch(
        self, indices: Sequence[int] | Int[Tensor, " b"] | slice, device: torch.device | str = "cpu"
    ) -> Float[Tensor, "b 1 h w"]:
        """These images as floats in [0, 1] on the device; the bytes travel, the division happens there."""
        if not isinstance(indices, slice):
            indices = torch.as_tensor(indices, dtype=torch.int64, device="cpu")
        return self.pixels[indices].to(device, non_blocking=True).float() / 255.0


def working_size(width: int, height: int, shortest_side: int) -> tuple[int, int]:
    """``(width, height)`` with the given shortest side and the same aspect ratio, to the nearest pixel."""
    factor = shortest_side / min(width, height)
    return max(shortest_side, round(width * factor)), max(shortest_side, round(height * factor))


def load_grey(
    image_set: ImageSet, shortest_side: int, *, workers: int | None = None, minimum: int = 2
) -> LoadedImages:
    """Decode all images, upright by their EXIF tag, resized so that the shortest side is ``shortest_side``.

    Smaller images are enlarged, so that a threshold in pixels means the same for every set. 16-bit images
    are scaled to 8 bits; transparent ones are laid on white. An image that cannot be decoded is left out
    with a warning; ``image_set`` of the result holds the others. ``InputError`` if fewer than ``minimum``
    remain. ``workers`` None: as many threads as Python's pool takes.
    """
    width, height = working_size(image_set.width, image_set.height, shortest_side)
    pixels = torch.empty((len(image_set), 1, height, width), dtype=torch.uint8)

    def load(row: int) -> None:
        pixels[row, 0] = torch.from_numpy(decode_image(image_set.paths[row], "L", (width, height)))

    failed = _run_threads(load, len(image_set), workers)
    kept = image_set.without(failed, minimum)
    if failed:
        pixels = pixels[[row for row in range(len(image_set)) if row not in failed]]
    return LoadedImages(kept, pixels)


def load_colours(
    paths: Sequence[Path], size_px: tuple[int, int], *, workers: int | None = None
) -> UInt8[Tensor, "n h w 3"]:
    """RGB of the images at ``size_px`` = (width, height), for colouring points; black where undecodable."""
    width, height = size_px
    colours = torch.zeros((len(paths), height, width, 3), dtype=torch.uint8)

    def load(row: int) -> None:
        colours[row] = torch.from_numpy(decode_image(paths[row], "RGB", size_px))

    _run_threads(load, len(paths), workers)
    return colours


def _run_threads(load: Callable[[int], None], count: int, workers: int | None) -> dict[int, str]:
    """Call ``load`` for every row; rows that raised, with the reason."""

    def attempt(row: int) -> str | None:
        try:
            load(row)
        except Exception as error:  # decoders raise almost any type for damaged data
            return f"{type(error).__name__}: {error}"
        return None

    with ThreadPoolExecutor(workers) as pool:
        reasons = []
        for reason in pool.map(attempt, range(count)):
            reasons.append(reason)
            report(len(reasons), count, "images")
    return {row: reason for row, reason in enumerate(reasons) if reason is not None}


def decode_image(path: Path, mode: str, size_px: tuple[int, int]) -> NDArray[np.uint8]:
    """Pixels of the upright image at ``size_px``; Lanczos, whose kernel widens with the reduction."""
    with Image.open(path) as image:
        if image.format == "JPEG":
            return np.array(_decode_jpeg(image, mode, size_px))
        # Their channels would be taken for colours and transparency.
        as_rgb = "RGB" if image.mode in ("CMYK", "YCbCr", "LAB", "HSV") else None
    values = iio.imread(path, plugin="pillow", index=0, rotate=True, mode=as_rgb)
    return np.array(_flatten(_eight_bit(values), mode).resize(size_px, Image.Resampling.LANCZOS))


def _decode_jpeg(image: Image.Image, mode: str, size_px: tuple[int, int]) -> Image.Image:
    """Through Pillow itself: its draft mode decodes luma alone, at 1/2, 1/4 or 1/8 scale: far faster."""
    sideways = image.getexif().get(EXIF_ORIENTATION) in SIDEWAYS
    stored_size = size_px[::-1] if sideways else size_px
    drafted = image.draft(mode, stored_size)
    # A scaled decode rounds its size up; the box is the part of it that the original covers exactly.
    box = drafted[1] if drafted is not None else None
    small = image.convert(mode).resize(stored_size, Image.Resampling.LANCZOS, box=box)
    return ImageOps.exif_transpose(small)


def _eight_bit(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Grey values of any file type as 0..255: booleans, 16-bit and 32-bit integers, floats in [0, 1]."""
    if values.dtype == np.uint8:
        return values.astype(np.uint8, copy=False)
    if values.dtype == np.bool_:
        scaled = values.astype(np.float32) * 255.0
    elif np.issubdtype(values.dtype, np.integer):
        scaled = values.astype(np.float32) / 257.0
    else:
        scaled = np.nan_to_num(values.astype(np.float32)) * 255.0
    return np.clip(np.round(scaled), 0, 255).astype(np.uint8)


def _flatten(values: NDArray[np.uint8], mode: str) -> Image.Image:
    """Grey, grey with alpha, RGB or RGBA as a picture without alpha: what is transparent shows white."""
    channels = 1 if values.ndim == 2 else values.shape[2]
    if channels in (2, 4):
        alpha = values[..., -1:].astype(np.float32) / 255.0
        values = np.round(values[..., :-1] * alpha + 255.0 * (1.0 - alpha)).astype(np.uint8)
    return Image.fromarray(
        values.squeeze(-1) if values.ndim == 3 and values.shape[2] == 1 else values
    ).convert(mode)
