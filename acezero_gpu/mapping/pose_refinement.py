"""Poses that learn along with the map."""

from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from acezero_gpu.geometry import compose, invert, orthonormalise, retract
from acezero_gpu.mapping.pose_reestimation import ReestimationConfig

RefinementName = Literal["none", "naive", "mlp", "lm", "mlp+lm"]


@dataclass(frozen=True, slots=True)
class PoseRefinementConfig:
    """Whether and how poses follow the reprojection loss."""

    name: RefinementName = "mlp"
    """``mlp``: one small network gives all corrections; ``naive``: six free numbers per image; ``lm``: every frame is
    located anew in the map from time to time; ``mlp+lm``: both; ``none``."""
    lr: float = 0.001
    """Learning rate of AdamW for the corrections."""
    wait: int = 0
    """Steps during which poses stay as given."""
    zero_initialised: bool = True
    """Start from exactly the given poses; ACE0's last layer starts random."""
    reestimation: ReestimationConfig = field(default_factory=ReestimationConfig)
    """Of ``lm`` and ``mlp+lm``."""

    @property
    def reestimates(self) -> bool:
        """Whether frames are located anew in the map."""
        return self.name in ("lm", "mlp+lm")


class PoseTable(nn.Module):
    """Poses of all frames; ``forward()`` gives the current ones: ``motion ∘ learnt(initial)``.

    ``motion`` is what re-estimation has found for each frame, a rigid motion in its camera frame. It is absent until
    ``move_to`` is called, and the poses are then what learning alone makes of the given ones. Frames that are
    ``fixed`` keep the initial pose whatever is learnt or found.
    """

    initial: Tensor
    motion: Tensor | None
    fixed: Tensor | None

    def __init__(self, initial: Float[Tensor, "v 3 4"]) -> None:
        super().__init__()
        self.register_buffer("initial", initial.detach().clone())
        self.register_buffer("motion", None)
        self.register_buffer("fixed", None)

    def forward(self) -> Float[Tensor, "v 3 4"]:
        moved = self.learnt()
        if self.motion is not None:
            moved = compose(self.motion, moved)
        return moved if self.fixed is None else torch.where(self.fixed[:, None, None], self.initial, moved)

    def learnt(self) -> Float[Tensor, "v 3 4"]:
        """The given poses with the corrections that follow the gradient."""
        return self.initial

    @torch.no_grad()
    def move_to(self, cam_from_world: Float[Tensor, "v 3 4"]) -> None:
        """Makes these the current poses; what was learnt stays, and goes on from here.

        ``motion = pose ∘ learnt⁻¹`` leaves the learnt corrections and the input of their network as they are, so that
        ``forward()`` gives exactly the poses asked for, no frame jumps, and later corrections act on top.
        """
        motion = compose(cam_from_world, invert(self.learnt()))
        self.motion = torch.cat([orthonormalise(motion[..., :3]), motion[..., 3:]], dim=-1)


class NaivePoseTable(PoseTable):
    """A free step per frame: ``retract(initial, delta)``."""

    def __init__(self, initial: Float[Tensor, "v 3 4"]) -> None:
        super().__init__(initial)
        self.delta = nn.Parameter(torch.zeros(len(initial), 6, dtype=initial.dtype, device=initial.device))

    def learnt(self) -> Float[Tensor, "v 3 4"]:
        return retract(self.initial, self.delta)


class MlpPoseTable(PoseTable):
    """Corrections from a network of the given pose: ``pose + 0.1 mlp(pose)``, rotation by Gram-Schmidt (ACE0).

    Neighbouring poses share corrections, which keeps single frames from wandering off.
    """

    WIDTH = 128
    STEP = 0.1

    def __init__(self, initial: Float[Tensor, "v 3 4"], *, zero_initialised: bool) -> None:
        super().__init__(initial)
        width = self.WIDTH
        self.input_layers = nn.ModuleList(
            [nn.Linear(12, width), nn.Linear(width, width), nn.Linear(width, width)]
        )
        self.skip = nn.Linear(12, width)
        self.hidden = nn.ModuleList([nn.Linear(width, width), nn.Linear(width, width)])
        self.output = nn.Linear(width, 12)
        if zero_initialised:
            nn.init.zeros_(self.output.weight)
            nn.init.zeros_(self.output.bias)
        self.to(device=initial.device, dtype=initial.dtype)

    def learnt(self) -> Float[Tensor, "v 3 4"]:
        flat = self.initial.flatten(1)
        x = flat
        for layer in self.input_layers:
            x = F.relu(layer(x))
        x = x + self.skip(flat)
        for layer in self.hidden:
            x = F.relu(layer(x))
        moved = (flat + self.STEP * self.output(x)).unflatten(1, (3, 4))
        return torch.cat([orthonormalise(moved[..., :3]), moved[..., 3:]], dim=-1)


def make_pose_table(
    initial: Float[Tensor, "v 3 4"],
    config: PoseRefinementConfig,
    fixed: Bool[Tensor, " v"] | None = None,
) -> PoseTable:
    """The table that ``config`` names; poses of ``fixed`` frames stay as they are."""
    table: PoseTable
    if config.name in ("mlp", "mlp+lm"):
        table = MlpPoseTable(initial, zero_initialised=config.zero_initialised)
    elif config.name == "naive":
        table = NaivePoseTable(initial)
    else:
        table = PoseTable(initial)
    table.fixed = fixed
    return table
