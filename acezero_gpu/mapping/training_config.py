"""What a mapping round depends on: its settings, its frames."""

from dataclasses import dataclass, field, replace
from typing import Literal

from jaxtyping import Bool, Float, Int
from torch import Tensor

from acezero_gpu.geometry import PinholeCamera
from acezero_gpu.mapping.calibration import CalibrationConfig
from acezero_gpu.mapping.losses import LossConfig
from acezero_gpu.mapping.pose_refinement import PoseRefinementConfig
from acezero_gpu.mapping.schedule import ScheduleConfig
from acezero_gpu.network import HeadConfig


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """Everything that one mapping round depends on."""

    head: HeadConfig = field(default_factory=HeadConfig)
    optimiser: Literal["muon", "adamw"] = "muon"
    """Of the head. ``muon``: its matrices by Muon, the rest by AdamW; ``adamw``: all of it by AdamW, as in ACE0."""
    loss: LossConfig = field(default_factory=LossConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    poses: PoseRefinementConfig = field(default_factory=PoseRefinementConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    batch_size: int = 5120
    """Patches per step, of each head."""
    inlier_px: float = 10.0
    """Reprojection error below which a patch counts for the early cool-down, at a shortest side of 480 pixels;
    scaled with the resolution."""
    mixed_precision: bool = True
    """Half precision for the head's matrix products on a GPU."""
    report_every: int = 100
    """Steps between two lines of the log, and between two looks at the inlier share."""

    def scaled(self, pixel_scale: float) -> "TrainingConfig":
        """The same training for another resolution: everything in pixels times ``pixel_scale``."""
        loss = replace(
            self.loss,
            soft_clamp_px=self.loss.soft_clamp_px * pixel_scale,
            wide_clamp_px=self.loss.wide_clamp_px * pixel_scale,
            narrow_clamp_px=self.loss.narrow_clamp_px * pixel_scale,
            soft_clamp_min_px=self.loss.soft_clamp_min_px * pixel_scale,
            hard_clamp_px=self.loss.hard_clamp_px * pixel_scale,
        )
        return replace(self, loss=loss, inlier_px=self.inlier_px * pixel_scale)


@dataclass(frozen=True, slots=True)
class FrameTable:
    """The frames of a round: which images, where they start from, and the shared camera."""

    frames: Int[Tensor, " f"]
    """Indices of the images in the buffer."""
    cam_from_world: Float[Tensor, "f 3 4"]
    """Starting poses."""
    camera: PinholeCamera
    """In pixels of the network image."""
    radial: Float[Tensor, " 2"] | None = None
    """``k1, k2`` of the shared lens; none means no distortion."""
    depth_targets: Float[Tensor, "f dr dc"] | None = None
    """Depths on a coarse grid over the network image, 0 where unknown; they supervise a round without a map."""
    image_size: tuple[int, int] = (0, 0)
    """Height and width of the network image, needed with ``depth_targets``."""
    fixed: Bool[Tensor, " f"] | None = None
    """Frames whose poses no refinement moves; none if not given."""
