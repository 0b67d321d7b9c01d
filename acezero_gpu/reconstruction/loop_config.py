"""All settings of the loop."""

from dataclasses import dataclass, field

from acezero_gpu.mapping import ScheduleConfig, TrainingConfig
from acezero_gpu.reconstruction.final_map import FinalMapConfig
from acezero_gpu.reconstruction.joint_adjustment import JointRefinementConfig
from acezero_gpu.reconstruction.seeds import SeedConfig
from acezero_gpu.reconstruction.stopping import StoppingConfig
from acezero_gpu.registration import RegistrationConfig


@dataclass(frozen=True, slots=True)
class LoopConfig:
    """The loop and its three kinds of mapping rounds."""

    seeds: SeedConfig = field(default_factory=SeedConfig)
    stopping: StoppingConfig = field(default_factory=StoppingConfig)
    registration: RegistrationConfig = field(default_factory=RegistrationConfig)
    joint: JointRefinementConfig = field(default_factory=JointRefinementConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """What all rounds share; the three schedules and pose refinements below replace its own."""
    seed_schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(iterations=10000))
    """Rounds that map a seed's few images, if any do; their poses and the focal length stay fixed."""
    growth_schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """Rounds in between."""
    final_schedule: ScheduleConfig = field(
        default_factory=lambda: ScheduleConfig(name="circle", lr_max=0.005)
    )
    """The last round, with a fresh head and the loss ``dyntanh``."""
    final_map: FinalMapConfig = field(default_factory=FinalMapConfig)
    """How large the last round's map is."""
    final_pose_wait: int = 5000
    """Steps of the last round before poses move."""
    grow_first: bool = True
    """Images join the best seed by their keypoints before any map is trained, where ``joint.when`` is ``every``. Seeds
    are mapped where none joins so."""
    warm_start: bool = True
    """Growth rounds continue the head of the round before; otherwise each starts afresh."""
    fix_focal: bool = False
    """Keep the focal length as given."""
