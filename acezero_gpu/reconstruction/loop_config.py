"""All settings of the loop."""

from dataclasses import dataclass, field, replace

from acezero_gpu.mapping import ScheduleConfig, TrainingConfig, taught_heads
from acezero_gpu.reconstruction.joint_adjustment import JointRefinementConfig
from acezero_gpu.reconstruction.seeds import SeedConfig
from acezero_gpu.reconstruction.stopping import StoppingConfig
from acezero_gpu.registration import RegistrationConfig


@dataclass(frozen=True, slots=True)
class FinalMapConfig:
    """The map of the last round, and that of ``acezero map``: the one that pictures are located in."""

    heads: int = 1
    """The most heads, each of which learns a part of the scene."""
    views_per_head: int = 16
    """No more heads than there are so many images for each; one that has seen few is not found by others."""
    width: int = 0
    """Channels of its heads; 0: as many as ``training.head`` has."""
    batch_size: int = 0
    """Patches per step of each head; 0: as many as ``training`` has."""
    full_batches: int = 0
    """With more heads than this their batches shrink, so that all together stay as large, but to a half at least: a
    head of few images has few patches to learn. 0: they never do."""

    def __post_init__(self) -> None:
        least = {"heads": 1, "views_per_head": 1, "width": 0, "batch_size": 0, "full_batches": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"final_map.{name} must be {bound} at least, not {getattr(self, name)}")

    def heads_for(self, images: int) -> int:
        """How many heads so many images teach."""
        return taught_heads(self.heads, images, self.views_per_head)

    def training(self, common: TrainingConfig, heads: int) -> TrainingConfig:
        """``common`` with the size of this map's heads and batches, where there are so many heads."""
        batch = self.batch_size or common.batch_size
        if self.full_batches and heads > self.full_batches:
            batch = max(-(-batch // 2), round(batch * self.full_batches / heads))
        head = replace(common.head, width=self.width or common.head.width)
        return replace(common, head=head, batch_size=batch)


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
