"""Robust estimation of poses from correspondences with outliers."""

from acezero_gpu.ransac.absolute_pose import estimate_absolute_pose
from acezero_gpu.ransac.config import RansacConfig
from acezero_gpu.ransac.expected_loss import (
    PoseDistribution,
    PoseDistributionConfig,
    pose_loss,
    sample_pose_distribution,
)
from acezero_gpu.ransac.result import AbsolutePoseResult
from acezero_gpu.ransac.rigid_pose import RigidRansacConfig, estimate_rigid_pose
from acezero_gpu.ransac.unknown_focal import FocalRansacConfig, estimate_pose_and_focal

__all__ = [
    "AbsolutePoseResult",
    "FocalRansacConfig",
    "PoseDistribution",
    "PoseDistributionConfig",
    "RansacConfig",
    "RigidRansacConfig",
    "estimate_absolute_pose",
    "estimate_pose_and_focal",
    "estimate_rigid_pose",
    "pose_loss",
    "sample_pose_distribution",
]
