"""Joint refinement of poses, points and one shared camera from observations of the points."""

from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from acezero_gpu.adjustment.observation_model import (
    Estimate,
    Prediction,
    intrinsic_columns,
    predict,
    prediction_jacobian,
)
from acezero_gpu.adjustment.reduced_solvers import solve_conjugate_gradients, solve_dense
from acezero_gpu.adjustment.schur import (
    NormalEquations,
    ReducedSolver,
    Step,
    Structure,
    build_normal_equations,
    solve_damped,
)
from acezero_gpu.geometry import PinholeCamera, camera_centres, retract

NEAR_SHARE = 1e-3
"""A point nearer than this share of the median depth counts as behind its camera."""
SMALLEST_DAMPING = 1e-12
"""Damping never falls below this, so that the free scale stays damped."""
LARGEST_DAMPING = 1e16
"""With more damping than this no step can lower the cost."""


@dataclass(frozen=True, slots=True)
class BundleAdjustmentConfig:
    """What moves, how errors count, and when to stop."""

    max_iterations: int = 50
    """Steps tried, accepted or not."""
    loss: str = "huber"
    """``squared``, ``huber`` or ``cauchy``: the cost of an observation is half the loss of its squared error."""
    loss_scale_px: float = 2.0
    """Where the robust loss leaves the square."""
    refine_poses: bool = True
    """Move the views that ``fixed_views`` does not hold."""
    refine_points: bool = True
    """Move the points."""
    refine_focal: bool = False
    """Move the focal length; the ratio of its two axes stays."""
    refine_principal_point: bool = False
    """Move the principal point."""
    refine_radial: bool = False
    """Move ``k1`` and ``k2``."""
    focal_prior_weight: float = 0.0
    """Adds half of this times the squared logarithm of (focal length / initial focal length) to the cost, in px²."""
    initial_damping: float = 1e-4
    """Levenberg-Marquardt damping of the first step, relative to the diagonal of the normal equations."""
    cost_tolerance: float = 1e-7
    """Stop when an accepted step lowers the cost by less than this share."""
    step_tolerance: float = 1e-9
    """Stop when a step would lower the cost by less than this share even by its own model."""
    dense_views: int = 600
    """Up to this many moving views the reduced system is factorised; beyond, conjugate gradients."""
    cg_iterations: int = 200
    """Most conjugate-gradient iterations per step."""
    cg_tolerance: float = 1e-2
    """Conjugate gradients stop when the preconditioned residual has fallen to this share."""


@dataclass(frozen=True, slots=True)
class BundleProblem:
    """Views, points and what the views saw of the points."""

    cam_from_world: Float[Tensor, "views 3 4"]
    """World to camera, ``[R | t]``."""
    points: Float[Tensor, "points 3"]
    """World coordinates."""
    camera: PinholeCamera
    """One camera, shared by all views."""
    view_index: Int[Tensor, " k"]
    """The view of each observation."""
    point_index: Int[Tensor, " k"]
    """The point of each observation."""
    pixels: Float[Tensor, "k 2"]
    """Where it was seen."""
    radial: Float[Tensor, " 2"] | None = None
    """``k1, k2``; zero if not given."""
    weights: Float[Tensor, " k"] | None = None
    """Factor on each observation's cost; one if not given."""
    fixed_views: Bool[Tensor, " views"] | None = None
    """Views whose pose is held. Without any, the first observed view is held (see ``bundle_adjust``)."""


class AdjustmentStatus(StrEnum):
    """How an adjustment ended."""

    CONVERGED = "the cost no longer falls"
    ITERATION_LIMIT = "the iteration limit was reached"
    STALLED = "no damping gave a step that lowers the cost"
    EMPTY = "there was nothing to adjust"


@dataclass(frozen=True, slots=True)
class BundleAdjustmentResult:
    """The refined estimate, with what remains at each observation."""

    cam_from_world: Float[Tensor, "views 3 4"]
    """World to camera."""
    points: Float[Tensor, "points 3"]
    """World coordinates."""
    camera: PinholeCamera
    """The shared camera."""
    radial: Float[Tensor, " 2"]
    """``k1, k2``."""
    cost_initial: float
    """Half the sum of weighted losses at the start, with the prior, in px²."""
    cost_final: float
    """The same at the end; never larger."""
    residuals_px: Float[Tensor, "k 2"]
    """Predicted minus observed pixel; without meaning where ``depth`` is not positive."""
    depth: Float[Tensor, " k"]
    """Depth of the point in its view."""
    iterations: int
    """Steps tried."""
    status: AdjustmentStatus
    """Why it stopped."""


def bundle_adjust(
    problem: BundleProblem, config: BundleAdjustmentConfig = BundleAdjustmentConfig()
) -> BundleAdjustmentResult:
    """Minimise ``½ Σ w ρ(|project(R X + t) - pixel|²)`` by Levenberg-Marquardt with the points eliminated.

    Robust losses act as weights ``ρ'`` that follow each accepted step. An observation whose point lies behind its
    view has no pull and costs as much as an error of one (initial) focal length; nothing becomes NaN.

    Gauge: held views define the frame. Where poses and points both move and ``fixed_views`` holds none, the first
    observed view is held; with fewer than two held views the scale is free, damping alone keeps it, and the result
    is rescaled about the held camera so that the mean distance of the cameras from their centroid stays.

    Computed in double precision, also for single-precision input (where the device has it). The cost never rises:
    where no step helps, the input comes back with ``status`` saying so.
    Reference: Triggs et al., 2000; step control after Nielsen, Damping Parameter in Marquardt's Method, 1999.
    """
    adjuster = _Adjuster(problem, config)
    start = adjuster.start
    estimate, costs, iterations, status = _minimise(adjuster, config)
    if config.refine_poses and config.refine_points and adjuster.held is not None:
        estimate = _restore_scale(estimate, start, adjuster.held)
    prediction = adjuster.predict(estimate)
    order_back = adjuster.order.argsort()
    dtype = problem.points.dtype
    return BundleAdjustmentResult(
        cam_from_world=estimate.cam_from_world.to(dtype),
        points=estimate.points.to(dtype),
        camera=estimate.camera.to(problem.points.device, dtype),
        radial=estimate.radial.to(dtype),
        cost_initial=costs[0],
        cost_final=costs[1],
        residuals_px=(prediction.pixels - adjuster.pixels)[order_back].to(dtype),
        depth=prediction.depth[order_back].to(dtype),
        iterations=iterations,
        status=status,
    )


class _Adjuster:
    """The problem in working precision, ordered by point, with the indices that do not change."""

    def __init__(self, problem: BundleProblem, config: BundleAdjustmentConfig) -> None:
        device = problem.points.device
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self.config = config
        self.order = problem.point_index.argsort(stable=True)
        self.view_index = problem.view_index[self.order].long()
        self.point_index = problem.point_index[self.order].long()
        self.pixels = problem.pixels[self.order].to(dtype)
        weights = torch.ones_like(problem.pixels[:, 0]) if problem.weights is None else problem.weights
        self.weights = weights[self.order].to(dtype)
        radial = torch.zeros_like(problem.camera.focal_px) if problem.radial is None else problem.radial
        self.start = Estimate(
            problem.cam_from_world.to(dtype),
            problem.points.to(dtype),
            problem.camera.to(device, dtype),
            radial.to(dtype),
        )
        self.columns = intrinsic_columns(
            config.refine_focal, config.refine_principal_point, config.refine_radial
        )
        free, self.held = self._gauge(problem.fixed_views)
        self.structure = Structure(
            self.view_index, self.point_index, free, len(problem.points), points_move=config.refine_points
        )
        depth = predict(self.start, self.view_index, self.point_index, self.pixels.new_tensor(0.0)).depth
        typical = torch.where(depth > 0, depth, torch.nan).nanmedian().nan_to_num(1.0)
        self.near = NEAR_SHARE * typical
        self.behind_cost = self.loss(self.start.camera.focal_px.square().mean())

    def _gauge(self, fixed_views: Tensor | None) -> tuple[Tensor, int | None]:
        """Which views move, and the one held view about which the scale is restored, if it is free."""
        views = len(self.start.cam_from_world)
        everywhere = torch.ones(views, dtype=torch.bool, device=self.pixels.device)
        if not self.config.refine_poses:
            return ~everywhere, None
        free = everywhere if fixed_views is None else ~fixed_views
        if not self.config.refine_points or len(self.view_index) == 0:
            return free, None
        held = (~free).nonzero()[:, 0].tolist()
        if not held:
            held = [int(self.view_index.min())]
            free = free.clone()
            free[held[0]] = False
        return free, held[0] if len(held) == 1 else None

    def loss(self, squared: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        return robust_loss(self.config.loss, squared, self.config.loss_scale_px)

    def predict(self, estimate: Estimate) -> Prediction:
        return predict(estimate, self.view_index, self.point_index, self.near)

    def cost(self, estimate: Estimate, prediction: Prediction) -> float:
        """The documented cost; the one place where the host waits for the device."""
        squared = (prediction.pixels - self.pixels).square().sum(-1)
        each = torch.where(prediction.in_front, self.loss(squared), self.behind_cost)
        shift = self._focal_shift(estimate)
        return float(
            0.5 * (self.weights * each).sum() + 0.5 * self.config.focal_prior_weight * shift.square()
        )

    def linearise(self, estimate: Estimate, prediction: Prediction) -> NormalEquations:
        residual = prediction.pixels - self.pixels
        weight = self.weights * robust_weight(
            self.config.loss, residual.square().sum(-1), self.config.loss_scale_px
        )
        root = torch.where(prediction.in_front, weight, 0.0).sqrt()[:, None, None]
        by_pose, by_point, by_intrinsics = prediction_jacobian(prediction, estimate, self.columns)
        by_point = by_point * root if self.config.refine_points else torch.zeros_like(by_point)
        normal = build_normal_equations(
            self.structure, by_pose * root, by_point, by_intrinsics * root, residual * root[..., 0]
        )
        if self.config.refine_focal:
            normal.intrinsics[0, 0] += self.config.focal_prior_weight
            normal.gradient_intrinsics[0] += self.config.focal_prior_weight * self._focal_shift(estimate)
        return normal

    def moved(self, estimate: Estimate, step: Step) -> Estimate:
        """The estimate after a step."""
        free = self.structure.free_views
        poses = estimate.cam_from_world.index_copy(
            0, free, retract(estimate.cam_from_world[free], step.poses)
        )
        change = estimate.radial.new_zeros(5)
        change[self.columns] = step.intrinsics
        camera = PinholeCamera(
            estimate.camera.focal_px * change[0].exp(), estimate.camera.principal_point_px + change[1:3]
        )
        return Estimate(poses, estimate.points + step.points, camera, estimate.radial + change[3:])

    def _focal_shift(self, estimate: Estimate) -> Float[Tensor, ""]:
        return (estimate.camera.focal_px[0] / self.start.camera.focal_px[0]).log()


def _minimise(
    adjuster: _Adjuster, config: BundleAdjustmentConfig
) -> tuple[Estimate, tuple[float, float], int, AdjustmentStatus]:
    estimate = adjuster.start
    prediction = adjuster.predict(estimate)
    cost = first_cost = adjuster.cost(estimate, prediction)
    structure = adjuster.structure
    if len(adjuster.view_index) == 0 or not (structure.views or adjuster.columns or config.refine_points):
        return estimate, (cost, cost), 0, AdjustmentStatus.EMPTY
    solver = _solver(structure, config)
    normal = adjuster.linearise(estimate, prediction)
    damping, growth = config.initial_damping, 2.0
    for iteration in range(1, config.max_iterations + 1):
        step = solve_damped(normal, structure, damping, solver)
        candidate = adjuster.moved(estimate, step)
        candidate_prediction = adjuster.predict(candidate)
        new_cost = adjuster.cost(candidate, candidate_prediction)
        expected = float(step.predicted_decrease)
        solved = bool(step.solved)
        if solved and expected <= config.step_tolerance * cost:
            return estimate, (first_cost, cost), iteration, AdjustmentStatus.CONVERGED
        if solved and new_cost < cost:
            gain = (cost - new_cost) / expected
            converged = cost - new_cost <= config.cost_tolerance * cost
            estimate, prediction, cost = candidate, candidate_prediction, new_cost
            if converged:
                return estimate, (first_cost, cost), iteration, AdjustmentStatus.CONVERGED
            damping, growth = max(damping * max(1 / 3, 1 - (2 * gain - 1) ** 3), SMALLEST_DAMPING), 2.0
            normal = adjuster.linearise(estimate, prediction)
        else:
            damping, growth = damping * growth, 2.0 * growth
            if damping > LARGEST_DAMPING:
                return estimate, (first_cost, cost), iteration, AdjustmentStatus.STALLED
    return estimate, (first_cost, cost), config.max_iterations, AdjustmentStatus.ITERATION_LIMIT


def _solver(structure: Structure, config: BundleAdjustmentConfig) -> ReducedSolver:
    if structure.views <= config.dense_views:
        return solve_dense
    return partial(
        solve_conjugate_gradients, max_iterations=config.cg_iterations, tolerance=config.cg_tolerance
    )


def _restore_scale(estimate: Estimate, start: Estimate, held: int) -> Estimate:
    """Scaled about the held camera so that the mean distance of the cameras from their centroid is the initial one.

    Unchanged where the cameras coincide, since their spread then says nothing.
    """
    centres, before = camera_centres(estimate.cam_from_world), camera_centres(start.cam_from_world)
    spread, spread_before = (x.sub(x.mean(0)).norm(dim=-1).mean() for x in (centres, before))
    scale = spread_before / spread
    scale = torch.where(scale.isfinite() & (scale > 0), scale, 1.0)
    pivot = centres[held]
    rotation = estimate.cam_from_world[..., :3]
    translation = -rotation @ (pivot + scale * (centres - pivot))[..., None]
    return replace(
        estimate,
        cam_from_world=torch.cat([rotation, translation], dim=-1),
        points=pivot + scale * (estimate.points - pivot),
    )


def robust_loss(name: str, squared: Float[Tensor, "*n"], scale: float) -> Float[Tensor, "*n"]:
    s = scale * scale
    if name == "squared":
        return squared
    if name == "huber":
        return torch.where(squared <= s, squared, 2 * scale * squared.clamp_min(s).sqrt() - s)
    return s * (squared / s).log1p()


def robust_weight(name: str, squared: Float[Tensor, "*n"], scale: float) -> Float[Tensor, "*n"]:
    s = scale * scale
    if name == "squared":
        return torch.ones_like(squared)
    if name == "huber":
        return scale / squared.clamp_min(s).sqrt()
    return 1 / (1 + squared / s)
