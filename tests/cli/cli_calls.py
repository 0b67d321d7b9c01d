"""What a command said, and pictures to give it."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str

    @property
    def sentence(self) -> str:
        """The one complaint on stderr."""
        complaints = [line for line in self.err.splitlines() if line.startswith("acezero: ")]
        assert len(complaints) == 1, self.err
        assert "Traceback" not in self.err + self.out
        return complaints[0].removeprefix("acezero: ")


Call = Callable[..., Said]
SMALL = ("--device", "cpu", "--set", "bank.shortest_side_px=48", "--set", "bank.keypoint_side_px=48")
"""Flags for pictures of 64 x 48 pixels."""
LINE = "{name} 1 0 0 0 0 0 0 50 inf\n"
"""An image's line of a pose file."""


def picture(seed: int = 0, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """Smooth random grey, so that resizing and JPEG change little."""
    values = np.random.default_rng(seed).integers(40, 216, (4, 4), dtype=np.uint8)
    return Image.fromarray(values).resize(size, Image.Resampling.BICUBIC).convert("RGB")
