"""How good are poses? Alignment to the truth, errors per image and per pair, and tables of them."""

from acezero_gpu.evaluation.pairwise import PairwiseErrors, pairwise_errors
from acezero_gpu.evaluation.pose_errors import EvaluationConfig, PoseReport, evaluate_poses
from acezero_gpu.evaluation.report_table import report_table
from acezero_gpu.evaluation.trajectory_alignment import (
    AlignmentConfig,
    AlignmentStatus,
    TrajectoryAlignment,
    align_trajectory,
    trajectory_extent,
)

__all__ = [
    "AlignmentConfig",
    "AlignmentStatus",
    "EvaluationConfig",
    "PairwiseErrors",
    "PoseReport",
    "TrajectoryAlignment",
    "align_trajectory",
    "evaluate_poses",
    "pairwise_errors",
    "report_table",
    "trajectory_extent",
]
