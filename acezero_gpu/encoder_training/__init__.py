"""Trains the encoder from photographs alone."""

from acezero_gpu.encoder_training.config import EncoderTrainingConfig
from acezero_gpu.encoder_training.pictures import load_pictures, picture_paths
from acezero_gpu.encoder_training.trainer import CHECKPOINT, LOG, WEIGHTS, EncoderTrainer

__all__ = [
    "CHECKPOINT",
    "LOG",
    "WEIGHTS",
    "EncoderTrainer",
    "EncoderTrainingConfig",
    "load_pictures",
    "picture_paths",
]
