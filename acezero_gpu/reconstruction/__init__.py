"""The ACE0 loop in memory."""

from acezero_gpu.reconstruction.final_map import FinalMapConfig
from acezero_gpu.reconstruction.given_poses import GivenPoses
from acezero_gpu.reconstruction.image_bank import BankConfig, ImageBank
from acezero_gpu.reconstruction.joint_adjustment import JointRefinementConfig
from acezero_gpu.reconstruction.loop_config import LoopConfig
from acezero_gpu.reconstruction.reconstruct import reconstruct
from acezero_gpu.reconstruction.seeds import SeedConfig
from acezero_gpu.reconstruction.state import ReconstructionError, ReconstructionState, ReconstructionStep
from acezero_gpu.reconstruction.stopping import StoppingConfig

__all__ = [
    "BankConfig",
    "FinalMapConfig",
    "GivenPoses",
    "ImageBank",
    "JointRefinementConfig",
    "LoopConfig",
    "ReconstructionError",
    "ReconstructionState",
    "ReconstructionStep",
    "SeedConfig",
    "StoppingConfig",
    "reconstruct",
]
