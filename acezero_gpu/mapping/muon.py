"""Muon: every step of a weight matrix goes as far in all directions that its gradients have (K. Jordan et al., 2024).

AdamW scales single entries; the momentum of a matrix is mostly of few directions, and the others hardly move. Here
the momentum is replaced by the nearest matrix with equal singular values before the step. ``torch.optim.Muon`` takes
one matrix at a time and no batches of them, which ensembles of heads are, and makes ``GradScaler`` wait for the device.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""``a x + b x³ + c x⁵`` takes singular values between some 0.01 and 1 to between 0.7 and 1.2 in five rounds."""
ROUNDS = 5
ENTRY_SIZE = 0.4
"""Root mean square of a step's entries, in learning rates: like that of AdamW, so that both take the same rates."""


class Muon(torch.optim.Optimizer):
    """For matrices, and batches of them (the heads of an ensemble), which are stepped together by their size.

    ``GradScaler`` hands it the scale and whether a gradient overflowed; nothing waits for the device.
    """

    _step_supports_amp_scaling = True

    def __init__(
        self,
        parameters: Iterable[Tensor],
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.01,
        refresh: int = 1,
    ) -> None:
        """``refresh``: every how many steps the direction of a matrix is found anew, in turns with the others of its
        size. Between these it goes on in the last direction, which the momentum has hardly turned from."""
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        self.refresh = refresh
        self._steps = 0

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step of all matrices that have a gradient; Nesterov's momentum, decay beside the gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    by_shape.setdefault(parameter.shape, []).append(parameter)
            for parameters in by_shape.values():
                self._step_together(parameters, group)
        self._steps += 1

    def _step_together(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        states = [self.state[parameter] for parameter in parameters]
        for state, parameter in zip(states, parameters, strict=True):
            if "momentum" not in state:
                state["momentum"] = torch.zeros_like(parameter)
        averages = [state["momentum"] for state in states]
        gradient = torch.stack([parameter.grad for parameter in parameters if parameter.grad is not None])
        counts = gradient.new_ones(())
        overflows, scale = getattr(self, "found_inf", None), getattr(self, "grad_scale", None)
        if overflows is not None:
            # A gradient that overflowed is no step at all, which is decided where it lies.
            counts = 1.0 - overflows.clamp(max=1.0)
            gradient = torch.where(counts > 0, gradient / (1.0 if scale is None else scale), 0.0)
        average = torch.stack(averages)
        average += (1.0 - group["momentum"]) * counts * (gradient - average)
        torch._foreach_copy_(averages, average.unbind())
        started = all("direction" in state for state in states)
        turn = slice(-self._steps % self.refresh, None, self.refresh) if started else slice(None)
        if states[turn]:
            found = orthogonalised(gradient[turn].lerp(average[turn], group["momentum"]))
            for state, direction in zip(states[turn], found, strict=True):
                state["direction"] = direction
        size = ENTRY_SIZE * math.sqrt(max(gradient.shape[-2:]))
        decay = 1.0 - group["lr"] * group["weight_decay"] * counts
        torch._foreach_mul_(parameters, decay)
        step = torch._foreach_mul([state["direction"] for state in states], -group["lr"] * size * counts)
        torch._foreach_add_(parameters, step)


def orthogonalised(matrices: Float[Tensor, "*batch m n"]) -> Float[Tensor, "*batch m n"]:
    """About ``U Vᵀ`` of each ``U S Vᵀ``, by products alone; a matrix of zeros stays so.

    In bfloat16 on a GPU, where products cost a fraction and no digit beyond its three counts.
    """
    a, b, c = COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    wide = matrices.mT if tall else matrices
    x = wide.reshape(-1, *wide.shape[-2:])
    x = x.bfloat16() if x.is_cuda else x
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-12)
    for _ in range(ROUNDS):
        square = torch.bmm(x, x.mT)
        square = torch.baddbmm(square, square, square, beta=b, alpha=c)
        x = torch.baddbmm(x, square, x, beta=a)
    x = x.view(wide.shape).to(matrices.dtype)
    return x.mT if tall else x
