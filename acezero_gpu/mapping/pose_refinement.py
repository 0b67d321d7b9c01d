"""Poses that learn along with the map."""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from acezero_gpu.geometry import orthonormalise, retract

RefinementName = Literal["none", "naive", "mlp"]


@dataclass(frozen=True, slots=True)
class PoseRefinementConfig:
    """Whether and how poses follow the reprojection loss."""

    name: RefinementName = "mlp"
    """``mlp``: one small network gives all corrections; ``naive``: six free numbers per image; ``none``."""
    lr: float = 0.001
    """Learning rate of AdamW for the corrections."""
    wait: int = 0
    """Steps during which poses stay as given."""
    zero_initialised: bool = True
    """Start from exactly the given poses; ACE0's last layer starts random."""


class PoseTable(nn.Module):
    """Poses of all frames; ``forward()`` gives the current ones."""

    initial: Tensor

    def __init__(self, initial: Float[Tensor, "v 3 4"]) -> None:
        super().__init__()
        self.register_buffer("initial", initial.detach().clone())

    def forward(self) -> Float[Tensor, "v 3 4"]:
        return self.initial


class NaivePoseTable(PoseTable):
    """A free step per frame: ``retract(initial, delta)``."""

    def __init__(self, initial: Float[Tensor, "v 3 4"]) -> None:
        super().__init__(initial)
        self.delta = nn.Parameter(torch.zeros(len(initial), 6, dtype=initial.dtype, device=initial.device))

    def forward(self) -> Float[Tensor, "v 3 4"]:
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

    def forward(self) -> Float[Tensor, "v 3 4"]:
        flat = self.initial.flatten(1)
        x = flat
        for layer in self.input_layers:
            x = F.relu(layer(x))
        x = x + self.skip(flat)
        for layer in self.hidden:
            x = F.relu(layer(x))
        moved = (flat + self.STEP * self.output(x)).unflatten(1, (3, 4))
        return torch.cat([orthonormalise(moved[..., :3]), moved[..., 3:]], dim=-1)


def make_pose_table(initial: Float[Tensor, "v 3 4"], config: PoseRefinementConfig) -> PoseTable:
    """The table that ``config`` names."""
    if config.name == "mlp":
        return MlpPoseTable(initial, zero_initialised=config.zero_initialised)
    if config.name == "naive":
        return NaivePoseTable(initial)
    return PoseTable(initial)
