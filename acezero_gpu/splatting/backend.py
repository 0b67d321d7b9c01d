"""What gsplat does here: drawing Gaussians, and deciding where more of them are needed."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Rasterise = Callable[..., tuple[Tensor, Tensor, dict[str, Any]]]
"""Called as ``gsplat.rasterization`` is."""


@dataclass(frozen=True, slots=True)
class SplatBackend:
    """The two parts of gsplat that a training needs."""

    rasterise: Rasterise
    """Gaussians and cameras → pictures ``(c, h, w, 3)``, their opacity, and what the strategy wants to know."""
    make_strategy: Callable[..., Any]
    """``gsplat.DefaultStrategy``: duplicates, splits and removes Gaussians while they are trained."""
    device: torch.device
    """Where it draws."""


def missing_requirement() -> str | None:
    """A sentence on what gsplat cannot do without and is not there; None if nothing is missing."""
    if importlib.util.find_spec("gsplat") is None:
        return "gsplat is not installed; pip install gsplat"
    if not torch.cuda.is_available():
        return "gsplat needs an NVIDIA GPU, and none was found"
    return None


def gsplat_backend() -> SplatBackend:
    """gsplat itself, on the current GPU; its first call compiles its kernels, for some minutes."""
    from gsplat import DefaultStrategy, rasterization

    return SplatBackend(rasterization, DefaultStrategy, torch.device("cuda"))
