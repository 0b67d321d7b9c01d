"""Joint refinement of poses, points and the camera from matched keypoints."""

from acezero_gpu.adjustment.bundle_adjustment import (
    AdjustmentStatus,
    BundleAdjustmentConfig,
    BundleAdjustmentResult,
    BundleProblem,
    bundle_adjust,
)

__all__ = [
    "AdjustmentStatus",
    "BundleAdjustmentConfig",
    "BundleAdjustmentResult",
    "BundleProblem",
    "bundle_adjust",
]
