"""Robust losses of a squared residual, as pairs ``loss(r²)`` and ``weight(r²) = d loss / d r²``.

All take the scale in the residual's unit and agree with ``r²`` for small residuals: ``loss(0) = 0`` and
``weight(0) = 1``. ``weight`` is the factor of iteratively reweighted least squares (Triggs et al. 2000,
without the second-order correction).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

LossName = Literal["squared", "huber", "cauchy", "truncated", "tukey"]
Scale = float | Tensor
"""One number, or a tensor that broadcasts against the squared residuals."""
LossFunction = Callable[[Tensor, Scale], Tensor]


@dataclass(frozen=True, slots=True)
class RobustLoss:
    """One loss: both functions take the squared residual and the scale."""

    loss: LossFunction
    """``loss(r², scale)``."""
    weight: LossFunction
    """``d loss / d r²`` at the same arguments."""


def squared_loss(squared: Float[Tensor, "*batch"], scale: Scale) -> Float[Tensor, "*batch"]:
    """``r²``; the scale has no effect."""
    return squared


def squared_weight(squared: Float[Tensor, "*batch"], scale: Scale) -> Float[Tensor, "*batch"]:
    return squared.new_ones(()).expand_as(squared)


def huber_loss(squared: Float[Tensor, "*batch"], scale: Scale) -> Float[Tensor, "*batch"]:
    """``r²`` up to the scale ``s``, then the tangent line ``2 s r - s²`` (Huber 1964)."""
    bounded = squared.clamp_max(scale * scale)
    return bounded + 2 * scale * (squared.clamp_min(scale * scale).sqrt() - scale)


def huber_weight(squared: Float[Tensor, "*batch"], scale: Scale) -> Float[Tensor, "*batch"]:
    return scale * squared.clamp_min(scale * scale).rsqrt()


def cauchy_loss(squared: Float[Tensor, "*batch"], scale: Scale) -> Float[Tensor, "*batch"]:
    """``s² log(1 + r²/s²)``: grows without bound, but outliers hardly pull."""
    return scale * scale * (squared / (scale * scale)).log1p()


def cauchy_weight(squared: Float[Tensor, "*batch"], scale: Scale) -> Float[Tensor, "*batch"]:
    return (squared / (scale * scale) + 1).reciprocal()


def truncated_loss(squared: Float[Tensor, "*batch"], scale: Scale) -> Float[Tensor, "*batch"]:
    """``min(r², s²)``: least squares over the inliers, selected anew at every evaluation (MSAC)."""
    return squared.clamp_max(scale * scale)


def truncated_weight(squared: Float[Tensor, "*batch"], scale: Scale) -> Float[Tensor, "*batch"]:
    return (squared < scale * scale).to(squared.dtype)


def tukey_loss(squared: Float[Tensor, "*batch"], scale: Scale) -> Float[Tensor, "*batch"]:
    """``s²/3 (1 - (1 - r²/s²)³)``, constant from the scale on (Beaton and Tukey 1974).

    Computed as ``s² (x - x² + x³/3)`` with ``x = min(r²/s², 1)``: 1 minus the cube would round to the scale's
    precision where residuals are small against it.
    """
    x = (squared / (scale * scale)).clamp_max(1)
    return x * (1 - x * (1 - x / 3)) * (scale * scale)


def tukey_weight(squared: Float[Tensor, "*batch"], scale: Scale) -> Float[Tensor, "*batch"]:
    return (1 - squared / (scale * scale)).clamp_min(0).square()


ROBUST_LOSSES: dict[str, RobustLoss] = {
    "squared": RobustLoss(squared_loss, squared_weight),
    "huber": RobustLoss(huber_loss, huber_weight),
    "cauchy": RobustLoss(cauchy_loss, cauchy_weight),
    "truncated": RobustLoss(truncated_loss, truncated_weight),
    "tukey": RobustLoss(tukey_loss, tukey_weight),
}


def robust_loss(name: str) -> RobustLoss:
    """The pair of that name; ``ValueError`` names the choices."""
    if name not in ROBUST_LOSSES:
        raise ValueError(f"No robust loss is called {name!r}; choose one of {', '.join(ROBUST_LOSSES)}.")
    return ROBUST_LOSSES[name]
