"""The per-scene head: features of a cell → scene coordinates."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class HeadConfig:
    """Size of the head."""

    width: int = 512
    """Channels of every hidden layer."""
    blocks: int = 1
    """Residual blocks of three layers after the first one."""


MIN_DIVISOR = 0.25
MAX_DIVISOR = 100.0
"""Bounds of the homogeneous divisor: a predicted offset is stretched by between 1/100 and 4."""


class Head(nn.Module):
    """Residual MLP with a homogeneous output: ``coordinates = xyz / h + centre`` (ACE, CVPR 2023, sec. 3).

    ``h = softplus(w)`` with a bias and sharpness such that ``w = 0`` gives 1, kept within [1/4, 100]: the
    network reaches near and far points without large weights.
    """

    def __init__(self, channels: int, config: HeadConfig, centre: Float[Tensor, "3"]) -> None:
        super().__init__()
        width = config.width
        self.config = config
        self.channels = channels
        self.input_skip = nn.Linear(channels, width) if channels != width else nn.Identity()
        self.first = _block(channels, width)
        self.blocks = nn.ModuleList(_block(width, width) for _ in range(config.blocks))
        self.hidden_1 = nn.Linear(width, width)
        self.hidden_2 = nn.Linear(width, width)
        self.output = nn.Linear(width, 4)
        self.register_buffer("centre", centre.detach().clone().float())
        self._sharpness = math.log(2.0) / (1.0 - MIN_DIVISOR)

    def forward(self, features: Float[Tensor, "n c"]) -> Float[Tensor, "n 3"]:
        x = self.input_skip(features) + _apply(self.first, features)
        for block in self.blocks:
            x = x + _apply(block, x)
        x = F.relu(self.hidden_1(x))
        x = F.relu(self.hidden_2(x))
        # The division needs more digits than half precision has.
        out = self.output(x).float()
        divisor = (F.softplus(out[:, 3:], beta=self._sharpness) + MIN_DIVISOR).clamp(max=MAX_DIVISOR)
        return out[:, :3] / divisor + self.centre


def _block(channels: int, width: int) -> nn.ModuleList:
    return nn.ModuleList([nn.Linear(channels, width), nn.Linear(width, width), nn.Linear(width, width)])


def _apply(layers: nn.Module, x: Tensor) -> Tensor:
    for layer in layers.children():
        x = F.relu(layer(x))
    return x


def parameter_count(module: nn.Module) -> int:
    """Trainable numbers of a module."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def head_from_state(state: dict[str, Tensor]) -> Head:
    """A head of the size that a saved state has."""
    channels = state["first.0.weight"].shape[1]
    width = state["first.0.weight"].shape[0]
    blocks = len({key.split(".")[1] for key in state if key.startswith("blocks.")})
    head = Head(channels, HeadConfig(width=width, blocks=blocks), torch.zeros(3))
    head.load_state_dict({key: value.float() for key, value in state.items()})
    return head
