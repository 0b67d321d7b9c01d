"""Joint refinement of poses, points and one shared camera from observations of the points."""

from dataclasses import replace
from functools import partial

import torch

from acezero_gpu.adjustment.objective import Objective
from acezero_gpu.adjustment.observation_graph import ObservationGraph
from acezero_gpu.adjustment.observation_model import Estimate
from acezero_gpu.adjustment.problem import (
    AdjustmentStatus,
    BundleAdjustmentConfig,
    BundleAdjustmentResult,
    BundleProblem,
)
from acezero_gpu.adjustment.reduced_solvers import solve_conjugate_gradients, solve_dense
from acezero_gpu.adjustment.schur import ReducedSolver, solve_damped
from acezero_gpu.geometry import camera_centres

SMALLEST_DAMPING = 1e-12
"""Damping never falls below this, so that a free scale stays damped."""
LARGEST_DAMPING = 1e16
"""With more damping than this no step is expected to lower the cost."""
FIRST_GROWTH = 2.0
"""Factor on the damping after a refused step; it doubles with every further one."""
EXACT_SHARE = 1e-20
"""A decrease below this share of the initial cost is rounding, however small the cost has become."""


def bundle_adjust(
    problem: BundleProblem, config: BundleAdjustmentConfig = BundleAdjustmentConfig()
) -> BundleAdjustmentResult:
    """Minimise ``½ Σ w ρ(|project(R X + t) - pixel|²)`` by Levenberg-Marquardt with the points eliminated.

    Robust losses act as weights ``ρ'`` that follow each accepted step. An observation whose point lies behind
    its view has no pull and costs as much as an error of one (initial) focal length; nothing becomes NaN, and
    a pose, point or pixel that is not finite on entry leaves the others alone.

    Gauge: held views define the frame. Where poses and points both move and ``fixed_views`` holds none, the
    first observed view is held. With one held view the scale is free: damping keeps it from drifting far, and
    the result is rescaled about that view so that the mean distance of the observed views from their centroid
    stays as it was.

    Computed in double precision, also for single-precision input (where the device has it). The cost never
    rises: where no step helps, the input comes back with ``status`` saying so. On CUDA sums are formed in no fixed
    order, so that two runs agree to rounding only.
    Reference: Triggs et al., 2000; step control after Nielsen, Damping Parameter in Marquardt's Method, 1999.
    """
    objective = Objective(problem, config)
    estimate, costs, iterations, status = _minimise(objective, config)
    if objective.pivot_view is not None:
        estimate = _restore_scale(estimate, objective)
    prediction = objective.predict(estimate)
    order_back = objective.order.argsort()
    dtype = problem.points.dtype
    return BundleAdjustmentResult(
        cam_from_world=estimate.cam_from_world.to(dtype),
        points=estimate.points.to(dtype),
        camera=estimate.camera.to(problem.points.device, dtype),
        radial=estimate.radial.to(dtype),
        cost_initial=costs[0],
        cost_final=costs[1],
        residuals_px=(prediction.pixels - objective.pixels)[order_back].to(dtype),
        depth=prediction.depth[order_back].to(dtype),
        iterations=iterations,
        status=status,
    )


def _minimise(
    objective: Objective, config: BundleAdjustmentConfig
) -> tuple[Estimate, tuple[float, float], int, AdjustmentStatus]:
    """The estimate, the costs before and after, the steps tried, and how it ended."""
    graph, estimate = objective.graph, objective.start
    cost = first_cost = float(objective.cost(estimate, objective.predict(estimate)))
    if len(graph) == 0 or not (graph.views or objective.columns or config.refine_points):
        return estimate, (cost, cost), 0, AdjustmentStatus.EMPTY
    solver = _solver(graph, config)
    normal = objective.linearise(estimate)
    damping, growth = config.initial_damping, FIRST_GROWTH
    status, tried = AdjustmentStatus.ITERATION_LIMIT, 0
    while tried < config.max_iterations:
        tried += 1
        step = solve_damped(normal, graph, damping, solver)
        candidate = objective.moved(estimate, step)
        new_cost = objective.cost(candidate, objective.predict(candidate))
        new_cost, expected, solved = torch.stack([new_cost, step.predicted_decrease, step.solved]).tolist()
        if solved and expected <= config.step_tolerance * cost + EXACT_SHARE * first_cost:
            # After a refused step it is the damping, not the minimum, that leaves nothing to expect.
            status = AdjustmentStatus.CONVERGED if growth == FIRST_GROWTH else AdjustmentStatus.STALLED
            break
        if solved and new_cost < cost:
            gain = (cost - new_cost) / expected
            small = cost - new_cost <= config.cost_tolerance * cost
            estimate, cost = candidate, new_cost
            if small:
                status = AdjustmentStatus.CONVERGED
                break
            damping = max(damping * max(1 / 3, 1 - (2 * gain - 1) ** 3), SMALLEST_DAMPING)
            growth = FIRST_GROWTH
            normal = objective.linearise(estimate)
        else:
            damping, growth = damping * growth, 2.0 * growth
            if damping > LARGEST_DAMPING:
                status = AdjustmentStatus.STALLED
                break
    return estimate, (first_cost, cost), tried, status


def _solver(graph: ObservationGraph, config: BundleAdjustmentConfig) -> ReducedSolver:
    if graph.views <= config.dense_views:
        return solve_dense
    return partial(
        solve_conjugate_gradients, max_iterations=config.cg_iterations, tolerance=config.cg_tolerance
    )


def _restore_scale(estimate: Estimate, objective: Objective) -> Estimate:
    """Scaled about the held view so that the observed views spread about their centroid as at the start.

    Unchanged where the views coincide, since their spread then says nothing.
    """
    observed = objective.graph.view.unique()
    centres = camera_centres(estimate.cam_from_world)
    before = camera_centres(objective.start.cam_from_world)
    spread, spread_before = (
        (x - x.nanmean(0)).norm(dim=-1).nanmean() for x in (centres[observed], before[observed])
    )
    scale = spread_before / spread
    scale = torch.where(scale.isfinite() & (scale > 0), scale, 1.0)
    pivot = centres[objective.pivot_view]
    poses = estimate.cam_from_world.clone()
    scaled = pivot + scale * (centres[observed] - pivot)
    poses[observed, :, 3:] = -poses[observed][..., :3] @ scaled[..., None]
    return replace(estimate, cam_from_world=poses, points=pivot + scale * (estimate.points - pivot))
