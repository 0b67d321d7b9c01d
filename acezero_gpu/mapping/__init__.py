"""A map from posed images."""

from acezero_gpu.mapping.calibration import CalibrationConfig
from acezero_gpu.mapping.feature_buffer import BufferConfig, FeatureBuffer
from acezero_gpu.mapping.losses import LossConfig, LossName
from acezero_gpu.mapping.pose_reestimation import ReestimationConfig
from acezero_gpu.mapping.pose_refinement import PoseRefinementConfig
from acezero_gpu.mapping.schedule import ScheduleConfig
from acezero_gpu.mapping.training import MappingResult, TrainingProgress, train_map
from acezero_gpu.mapping.training_config import FrameTable, TrainingConfig
from acezero_gpu.mapping.view_clusters import taught_heads, view_clusters

__all__ = [
    "BufferConfig",
    "CalibrationConfig",
    "FeatureBuffer",
    "FrameTable",
    "LossConfig",
    "LossName",
    "MappingResult",
    "PoseRefinementConfig",
    "ReestimationConfig",
    "ScheduleConfig",
    "TrainingConfig",
    "TrainingProgress",
    "taught_heads",
    "train_map",
    "view_clusters",
]
