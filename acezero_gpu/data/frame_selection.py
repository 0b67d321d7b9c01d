"""Which frames of a video are worth keeping: the sharpest of each stretch of time."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class FrameSelection:
    """What to keep of a video; without ``fps`` and ``every`` each frame is a stretch of its own."""

    fps: float | None = None
    """Stretches per second, by the frames' own times."""
    every: int | None = None
    """Frames per stretch."""
    min_sharpness: float = 0.0
    """Frames that are less sharp are left out, and with them stretches that have none."""
    max_frames: int | None = None
    """If more stretches are left, neighbouring ones are put together until there are so many."""
    min_side_px: int = 540
    """Frames are reduced to this shortest side before anything else (ACE0's 540); 0 keeps their size."""

    def flags(self) -> list[str]:
        """The command line that selects the same, but for the size."""
        given = {"--fps": self.fps, "--every": self.every, "--max-frames": self.max_frames}
        given |= {"--min-sharpness": self.min_sharpness or None}
        return [word for flag, value in given.items() if value is not None for word in (flag, f"{value:g}")]


def sharpness(grey: UInt8[np.ndarray, "h w"]) -> float:
    """Variance of the Laplacian of an image of grey values 0 to 255 (Pech-Pacheco et al., ICPR 2000).

    It depends on the scene and on the size, so it compares frames of one video and says little across videos.
    Images of fewer than three rows or columns have none: 0.
    """
    if min(grey.shape) < 3:
        return 0.0
    values = grey.astype(np.float32)
    laplacian = values[:-2, 1:-1] + values[2:, 1:-1] + values[1:-1, :-2] + values[1:-1, 2:]
    laplacian -= 4 * values[1:-1, 1:-1]
    return float(laplacian.var())


def select_frames(
    times_s: Float[np.ndarray, " n"], sharp: Float[np.ndarray, " n"], selection: FrameSelection
) -> Int[np.ndarray, " m"]:
    """Rows of the frames to keep, ascending; of equally sharp ones of a stretch the first."""
    stretch = np.arange(len(times_s))
    if selection.fps is not None and len(times_s):
        # A frame that is due exactly at a border may be a rounding error early.
        stretch = np.floor((times_s - times_s[0]) * selection.fps + 1e-6).astype(np.int64)
    elif selection.every is not None:
        stretch = stretch // selection.every
    kept = _sharpest(stretch, sharp)
    kept = kept[sharp[kept] >= selection.min_sharpness]
    if selection.max_frames is not None and len(kept) > selection.max_frames:
        group = np.arange(len(kept)) * selection.max_frames // len(kept)
        kept = kept[_sharpest(group, sharp[kept])]
    return kept


def _sharpest(stretch: NDArray[np.int64], sharp: NDArray[np.float64]) -> NDArray[np.int64]:
    """The row of the sharpest frame of each stretch."""
    order = np.lexsort((-sharp, stretch))
    return np.sort(order[np.unique(stretch[order], return_index=True)[1]])
