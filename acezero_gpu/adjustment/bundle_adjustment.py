"""Joint refinement of poses, points and one shared camera from observations of the points."""

from functools import partial

import torch
from torch import Tensor

from acezero_gpu.adjustment.coarse_space import make_coarse_space
from acezero_gpu.adjustment.components import restore_scale
from acezero_gpu.adjustment.objective import Objective
from acezero_gpu.adjustment.observation_graph import MOST_PAIRS
from acezero_gpu.adjustment.observation_model import Estimate
from acezero_gpu.adjustment.point_refinement import refine_points
from acezero_gpu.adjustment.problem import (
    AdjustmentStatus,
    BundleAdjustmentConfig,
    BundleAdjustmentResult,
    BundleProblem,
)
from acezero_gpu.adjustment.problem_checks import check_problem
from acezero_gpu.adjustment.reduced_solvers import solve_conjugate_gradients, solve_dense
from acezero_gpu.adjustment.schur import ReducedSolver, solve_damped
from acezero_gpu.runtime.progress import report

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

    Robust losses act as weights ``ρ'`` that follow each accepted step. After every step each point moves on by
    itself while that lowers its own cost, which saves steps of the whole (embedded point iterations; Jeong et al.,
    Pushing the Envelope of Modern Methods for Bundle Adjustment, CVPR 2010).

    Gauge: views that hang together by points form a part (``component_of_view``), and each part is adjusted in a frame
    of its own, with the camera shared. Held views define the frame; a part where ``fixed_views`` holds none holds
    its first view. With one held view the scale is free: damping keeps it from drifting far, and the part is
    rescaled about that view so that the mean distance of its views from their centroid stays as it was.

    Bad input: what is not finite counts for nothing, comes back as it was, and leaves the rest alone; so do views
    without observations. A point that only one view sees is held and does not count. Points without parallax at
    the start (duplicate views, pure rotation, points as good as infinitely far) are directions: they keep their
    distance from the views that see them and hold the rotations alone. An observation whose point lies
    behind its view has no pull and costs as much as an error of one (initial) focal length.
    Wrong shapes, indices out of range and a camera that is not finite raise ``ValueError``.

    Computed in double precision, also for single-precision input (where the device has it). The cost never rises:
    where no step helps, the last estimate comes back with ``status`` saying why. Sums over points on CUDA are
    formed in no fixed order, so that two runs agree to rounding only.
    Reference: Triggs et al., 2000; step control after Nielsen, Damping Parameter in Marquardt's Method, 1999.
    """
    check_problem(problem)
    objective = Objective(problem, config)
    estimate, costs, iterations, status = _minimise(objective, config)
    deep = objective.free_points & objective.triangulated
    estimate = restore_scale(estimate, objective.start, objective.gauge, deep)
    estimate = objective.points_carried_along(estimate)
    prediction = objective.predict_places(estimate)
    order_back = objective.order.argsort()
    dtype = problem.points.dtype
    return BundleAdjustmentResult(
        cam_from_world=_where_known(objective.known_views, estimate.cam_from_world, problem.cam_from_world),
        points=_where_known(objective.known_points, estimate.points, problem.points),
        camera=estimate.camera.to(problem.points.device, dtype),
        radial=estimate.radial.to(dtype),
        cost_initial=costs[0],
        cost_final=costs[1],
        residuals_px=(prediction.pixels - objective.pixels)[order_back].to(dtype),
        depth=prediction.depth[order_back].to(dtype),
        iterations=iterations,
        status=status,
        component_of_view=objective.gauge.component_of_view,
        triangulated=objective.triangulated,
    )


def _minimise(
    objective: Objective, config: BundleAdjustmentConfig
) -> tuple[Estimate, tuple[float, float], int, AdjustmentStatus]:
    """The estimate, the costs before and after, the steps tried, and how it ended."""
    graph, estimate = objective.graph, objective.start
    cost = first_cost = float(objective.cost(estimate, objective.predict(estimate)))
    if not objective.has_free_parameters:
        return estimate, (cost, cost), 0, AdjustmentStatus.EMPTY
    solver = _solver(objective, config)
    point_steps = config.point_steps if config.refine_points else 0
    normal = objective.linearise(estimate)
    damping, growth = config.initial_damping, FIRST_GROWTH
    status, tried = AdjustmentStatus.ITERATION_LIMIT, 0
    while tried < config.max_iterations:
        tried += 1
        report(tried, config.max_iterations, "adjustment steps")
        step = solve_damped(normal, graph, damping, solver)
        candidate, candidate_cost = refine_points(objective, objective.moved(estimate, step), point_steps)
        new_cost, expected, solved = torch.stack(
            [candidate_cost, step.predicted_decrease, step.solved]
        ).tolist()
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
                status = AdjustmentStatus.STALLED if solved else AdjustmentStatus.SINGULAR
                break
    return estimate, (first_cost, cost), tried, status


def _where_known(known: Tensor, refined: Tensor, given: Tensor) -> Tensor:
    """Rows that were finite as refined, the others as given, in the precision given."""
    return torch.where(known.view(-1, *[1] * (given.ndim - 1)), refined.to(given.dtype), given)


def _solver(objective: Objective, config: BundleAdjustmentConfig) -> ReducedSolver:
    graph = objective.graph
    if graph.views <= config.dense_views and graph.pair_count <= MOST_PAIRS:
        return solve_dense
    return partial(
        solve_conjugate_gradients,
        max_iterations=config.cg_iterations,
        tolerance=config.cg_tolerance,
        space=make_coarse_space(objective.start, graph, objective.tells_depth) if graph.views > 1 else None,
    )
