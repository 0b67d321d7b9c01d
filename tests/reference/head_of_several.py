"""A stand-in for one head of a map whose heads are not trained: it says what the whole map says of it."""

from dataclasses import dataclass

from torch import Tensor

from acezero_gpu.network import SceneMap


@dataclass(frozen=True)
class HeadOfSeveral(SceneMap):
    """One of the heads by itself."""

    whole: SceneMap | None = None
    index: int = 0

    def scene_coordinates(self, features: Tensor, chunk_cells: int = 65536) -> Tensor:
        assert self.whole is not None
        return self.whole.scene_coordinates(features)[self.index][None]


def heads_of(whole: SceneMap) -> tuple[SceneMap, ...]:
    """What ``parts`` of such a map should give."""
    return tuple(
        HeadOfSeveral(whole.head.one(row), "one", 48, 1.0, whole=whole, index=row)
        for row in range(whole.head.count)
    )
