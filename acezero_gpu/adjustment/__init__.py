"""Joint refinement of poses, points and the camera from matched keypoints."""

from acezero_gpu.adjustment.bundle_adjustment import bundle_adjust
from acezero_gpu.adjustment.problem import (
    AdjustmentStatus,
    BundleAdjustmentConfig,
    BundleAdjustmentResult,
    BundleProblem,
)
from acezero_gpu.adjustment.tracks import Tracks, build_tracks, widest_angle_deg

__all__ = [
    "AdjustmentStatus",
    "BundleAdjustmentConfig",
    "BundleAdjustmentResult",
    "BundleProblem",
    "Tracks",
    "build_tracks",
    "bundle_adjust",
    "widest_angle_deg",
]
