"""One shared focal length that learns along with the map."""

from dataclasses import dataclass

import torch
from torch import nn

from acezero_gpu.geometry import PinholeCamera


@dataclass(frozen=True, slots=True)
class CalibrationConfig:
    """Whether and how the focal length follows the reprojection loss."""

    refine: bool = True
    """Learn the shared focal length."""
    lr: float = 0.001
    """Learning rate of AdamW for its relative change."""


class FocalScale(nn.Module):
    """``f = (1 + alpha) f0`` for all images; alpha starts at 0."""

    def __init__(self, camera: PinholeCamera) -> None:
        super().__init__()
        self._initial = camera
        self.alpha = nn.Parameter(torch.zeros((), device=camera.focal_px.device))

    def forward(self) -> PinholeCamera:
        return PinholeCamera(self._initial.focal_px * (1 + self.alpha), self._initial.principal_point_px)
