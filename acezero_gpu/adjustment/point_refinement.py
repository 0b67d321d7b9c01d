"""Points moved on one by one while views and camera are held."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from acezero_gpu.adjustment.objective import Objective
from acezero_gpu.adjustment.observation_model import Estimate
from acezero_gpu.adjustment.schur import damped, solve_3x3

DAMPING = 1e-4
"""Relative to the diagonal; a step that still raises its point's cost is not taken."""


def refine_points(objective: Objective, estimate: Estimate, steps: int) -> tuple[Estimate, Float[Tensor, ""]]:
    """So many Gauss-Newton steps of each point, and the cost of all; a point stops at a step that does not help."""
    prediction = objective.predict(estimate)
    cost = objective.point_costs(prediction)
    active = objective.free_points
    for _ in range(steps):
        normal, gradient = objective.point_equations(estimate, prediction)
        step = solve_3x3(damped(normal, DAMPING), -gradient)
        trial = replace(estimate, points=estimate.points + torch.where(active[:, None], step, 0.0))
        prediction = objective.predict(trial)
        trial_cost = objective.point_costs(prediction)
        active = active & (trial_cost < cost)
        estimate = replace(estimate, points=torch.where(active[:, None], trial.points, estimate.points))
        cost = torch.where(active, trial_cost, cost)
    return estimate, cost.sum() + objective.prior(estimate)
