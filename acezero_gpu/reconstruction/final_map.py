"""How large the map is that is kept: how many heads, how wide, and what they are trained on at once."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from acezero_gpu.mapping import PoseRefinementConfig, TrainingConfig, taught_heads


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

    encoder: str = ""
    """Which encoder all this is for, by the beginning of its identifier; with another one the map has one head, as
    ``training`` says. Features that see far around tell a few images apart, and narrow heads then learn each of them
    by heart, at any depth. Empty: for all encoders."""

    def __post_init__(self) -> None:
        least = {"heads": 1, "views_per_head": 1, "width": 0, "batch_size": 0, "full_batches": 0}
        for name, bound in least.items():
            if getattr(self, name) < bound:
                raise ValueError(f"final_map.{name} must be {bound} at least, not {getattr(self, name)}")

    def with_encoder(self, identifier: str) -> "FinalMapConfig":
        """What holds for the features of this encoder."""
        return self if identifier.startswith(self.encoder) else FinalMapConfig()

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


def final_training(
    config: FinalMapConfig,
    common: TrainingConfig,
    poses: PoseRefinementConfig,
    images: int,
    log: Callable[[str], None],
) -> tuple[TrainingConfig, int]:
    """Training of a map of so many images, and how many heads it has; ``common`` is what all rounds share."""
    heads = config.heads_for(images)
    if heads > 1 and poses.reestimates:
        log(
            f"one head instead of {heads}, because poses are re-estimated in its map (poses.name={poses.name})"
        )
        heads = 1
    elif config.heads > 1:
        log(f"{images} images teach {heads} heads, {config.views_per_head} at least for each")
    return config.training(common, heads), heads
