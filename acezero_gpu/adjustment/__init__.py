"""Joint refinement of poses, points and the camera from matched keypoints."""

from acezero_gpu.adjustment.bundle_adjustment import bundle_adjust
from acezero_gpu.adjustment.problem import (
    AdjustmentStatus,
    BundleAdjustmentConfig,
    BundleAdjustmentResult,
    BundleProblem,
)

__all__ = [
    "AdjustmentStatus",
    "BundleAdjustmentConfig",
    "BundleAdjustmentResult",
    "BundleProblem",
    "bundle_adjust",
]
