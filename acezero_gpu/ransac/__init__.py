"""Robust estimation of poses from correspondences with outliers."""

from acezero_gpu.ransac.absolute_pose import AbsolutePoseResult, RansacConfig, estimate_absolute_pose

__all__ = ["AbsolutePoseResult", "RansacConfig", "estimate_absolute_pose"]
