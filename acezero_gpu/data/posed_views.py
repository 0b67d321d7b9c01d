"""What registration gives and mapping takes: images with poses, focal lengths and confidences."""

from collections.abc import Sequence
from dataclasses import dataclass

import pypose as pp
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from acezero_gpu.geometry import matrix_from_se3


@dataclass(frozen=True, slots=True)
class PosedViews:
    """One row per image, in the order of the image set."""

    names: tuple[str, ...]
    """The image paths as they were given; unique."""
    cam_from_world: Float[Tensor, "n 7"]
    """pypose SE3, world to camera, OpenCV axes."""
    focal_px: Float[Tensor, " n"]
    """Focal length in pixels of the image file as stored (``_original_px``)."""
    confidence: Float[Tensor, " n"]
    """Inlier count of the registration; 0 for an image that failed, inf for a pose that was given."""

    @property
    def matrices(self) -> Float[Tensor, "n 3 4"]:
        """``[R | t]``, world to camera."""
        return matrix_from_se3(pp.SE3(self.cam_from_world))

    def subset(self, rows: Sequence[int]) -> "PosedViews":
        """The views at these positions, in this order."""
        rows = list(rows)
        return PosedViews(
            tuple(self.names[row] for row in rows),
            pp.SE3(torch.as_tensor(self.cam_from_world)[rows]),
            self.focal_px[rows],
            self.confidence[rows],
        )

    def registered(self, min_confidence: float) -> Bool[Tensor, " n"]:
        """Which images count as registered: confidence at or above the threshold."""
        return self.confidence >= min_confidence
