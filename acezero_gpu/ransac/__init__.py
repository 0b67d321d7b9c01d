"""Robust estimation of poses from correspondences with outliers."""

from acezero_gpu.ransac.absolute_pose import estimate_absolute_pose
from acezero_gpu.ransac.config import RansacConfig
from acezero_gpu.ransac.result import AbsolutePoseResult

__all__ = ["AbsolutePoseResult", "RansacConfig", "estimate_absolute_pose"]
