"""Absolute pose from point correspondences: minimal solver and non-linear refinement."""

from acezero_gpu.pnp.differentiable import PoseRefinement, refine_implicit, refine_unrolled
from acezero_gpu.pnp.focal_refinement import RefinedPoseAndFocal, refine_pose_and_focal
from acezero_gpu.pnp.levenberg_marquardt import RefinedPose, RefinementConfig, refine_absolute_pose
from acezero_gpu.pnp.p3p import P3PSolutions, p3p
from acezero_gpu.pnp.robust_loss import ROBUST_LOSSES, LossName, RobustLoss, robust_loss
from acezero_gpu.pnp.status import PoseStatus

__all__ = [
    "ROBUST_LOSSES",
    "LossName",
    "P3PSolutions",
    "PoseRefinement",
    "PoseStatus",
    "RefinedPose",
    "RefinedPoseAndFocal",
    "RefinementConfig",
    "RobustLoss",
    "p3p",
    "refine_absolute_pose",
    "refine_implicit",
    "refine_pose_and_focal",
    "refine_unrolled",
    "robust_loss",
]
