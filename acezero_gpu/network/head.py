"""The per-scene head: features of a cell → scene coordinates. Several heads may be one module, as an ensemble."""

import math
from collections.abc import Sequence
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

    ``ensemble_of`` makes one module of several heads: all its weights have a leading dimension, and so have its
    features and scene coordinates.
    """

    centre: Float[Tensor, "*heads 3"]
    unit: Float[Tensor, "*heads 1"]
    """What the predicted offsets are measured in, in units of the world; beside the weights, because half precision
    has no room for a world of millimetres."""

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
        self.register_buffer("unit", torch.ones(1))
        self._sharpness = math.log(2.0) / (1.0 - MIN_DIVISOR)

    @property
    def count(self) -> int:
        """How many heads this is."""
        return len(self.output.weight) if self._is_ensemble else 1

    @property
    def _is_ensemble(self) -> bool:
        return self.output.weight.dim() == 3

    def forward(self, features: Float[Tensor, "*heads n c"]) -> Float[Tensor, "*heads n 3"]:
        x = _linear(self.input_skip, features) + _apply(self.first, features)
        for block in self.blocks:
            x = x + _apply(block, x)
        x = F.relu(_linear(self.hidden_1, x), inplace=True)
        x = F.relu(_linear(self.hidden_2, x), inplace=True)
        # The division needs more digits than half precision has.
        out = _linear(self.output, x).float()
        divisor = (F.softplus(out[..., 3:], beta=self._sharpness) + MIN_DIVISOR).clamp(max=MAX_DIVISOR)
        offset = out[..., :3] / divisor
        if self._is_ensemble:
            return offset * self.unit[:, None] + self.centre[:, None]
        return offset * self.unit + self.centre

    def of_all(self, features: Float[Tensor, "n c"]) -> Float[Tensor, "heads n 3"]:
        """What each head makes of the same features."""
        if self._is_ensemble:
            return self(features.expand(self.count, -1, -1))
        return self(features)[None]

    def one(self, index: int) -> "Head":
        """One of the heads of an ensemble, by itself, to predict with; a copy."""
        if not self._is_ensemble:
            raise ValueError("a single head has no others beside it")
        state = {name: value[index] for name, value in self.state_dict().items()}
        return head_from_state(state).to(self.centre.device).eval().requires_grad_(False)


def _block(channels: int, width: int) -> nn.ModuleList:
    return nn.ModuleList([nn.Linear(channels, width), nn.Linear(width, width), nn.Linear(width, width)])


def _apply(layers: nn.Module, x: Tensor) -> Tensor:
    for layer in layers.children():
        x = F.relu(_linear(layer, x), inplace=True)
    return x


def _linear(layer: nn.Module, x: Tensor) -> Tensor:
    """The layer, or the layers of an ensemble: as many products in one."""
    if isinstance(layer, nn.Linear) and layer.weight.dim() == 3:
        return torch.baddbmm(layer.bias[:, None], x, layer.weight.mT)
    result: Tensor = layer(x)
    return result


def ensemble_of(heads: Sequence[Head]) -> Head:
    """One module, on the CPU, of copies of several heads of one size; of one head itself."""
    if len(heads) == 1:
        return heads[0]
    states = [head.state_dict() for head in heads]
    return head_from_state({name: torch.stack([state[name] for state in states]) for name in states[0]})


def parameter_count(module: nn.Module) -> int:
    """Trainable numbers of a module."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


def head_from_state(state: dict[str, Tensor]) -> Head:
    """A head, or an ensemble, of the size that a saved state has."""
    width, channels = state["first.0.weight"].shape[-2:]
    blocks = len({key.split(".")[1] for key in state if key.startswith("blocks.")})
    leading = state["first.0.weight"].shape[:-2]
    with torch.device("meta"):  # no weights are drawn that would be replaced at once
        head = Head(channels, HeadConfig(width=width, blocks=blocks), torch.zeros(3))
        for module in head.modules():
            for name, parameter in module.named_parameters(recurse=False):
                setattr(module, name, nn.Parameter(parameter.detach().expand(*leading, *parameter.shape)))
        head.centre, head.unit = (x.expand(*leading, -1) for x in (head.centre, head.unit))
    # Files that were written before heads had a unit are in that of their world.
    unit = torch.ones(*leading, 1, device=state["first.0.weight"].device)
    values = {"unit": unit} | {key: value.detach().float().clone() for key, value in state.items()}
    head.load_state_dict(values, assign=True)
    return head
