"""What gsplat does here: drawing Gaussians, and deciding where more of them are needed."""

import importlib
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
    """What gsplat cannot do without and is not there, and what to do; None if nothing is missing.

    Where gsplat came without kernels for this machine they are compiled now, once, for some minutes.
    """
    if importlib.util.find_spec("gsplat") is None:
        return "gsplat is not installed: pip install 'acezero-gpu[splat]'"
    if not torch.cuda.is_available():
        return "gsplat needs an NVIDIA GPU, and none was found"
    try:
        kernels = kernels_of_gsplat()
    except (RuntimeError, OSError, ImportError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return f"gsplat's kernels cannot be compiled ({reason})"
    if kernels is None:
        return "gsplat needs the CUDA toolkit (nvcc) to compile its kernels, and did not find it"
    return None


def kernels_of_gsplat() -> object | None:
    """Its compiled part; None where it cannot be compiled for want of a CUDA toolkit."""
    return importlib.import_module("gsplat.cuda._backend")._C


def gsplat_backend() -> SplatBackend:
    """gsplat itself, on the current GPU; only where ``missing_requirement`` finds nothing missing."""
    from gsplat import DefaultStrategy, rasterization

    return SplatBackend(rasterization, DefaultStrategy, torch.device("cuda"))
