"""The cost of a joint adjustment, its linearisation, and what a step does to the estimate."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from acezero_gpu.adjustment.observation_graph import ObservationGraph, rows_per_chunk
from acezero_gpu.adjustment.observation_model import (
    Estimate,
    Prediction,
    intrinsic_columns,
    predict,
    prediction_jacobian,
)
from acezero_gpu.adjustment.problem import BundleAdjustmentConfig, BundleProblem
from acezero_gpu.adjustment.schur import NormalEquations, NormalEquationsBuilder, Step
from acezero_gpu.geometry import PinholeCamera, retract
from acezero_gpu.pnp.robust_loss import robust_loss
from acezero_gpu.runtime import chunk_ranges

NEAR_SHARE = 1e-3
"""A point nearer than this share of the median depth counts as behind its view."""


class Objective:
    """A problem in working precision with its observations ordered by point."""

    def __init__(self, problem: BundleProblem, config: BundleAdjustmentConfig) -> None:
        device = problem.points.device
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self._config = config
        self._loss = robust_loss(config.loss)
        self.order = problem.point_index.argsort(stable=True)
        view_index, point_index = (
            problem.view_index[self.order].long(),
            problem.point_index[self.order].long(),
        )
        pixels = problem.pixels[self.order].to(dtype)
        weights = (
            torch.ones_like(pixels[:, 0])
            if problem.weights is None
            else problem.weights[self.order].to(dtype)
        )
        usable = pixels.isfinite().all(-1) & weights.isfinite()
        self.pixels = torch.where(usable[:, None], pixels, 0.0)
        self._weights = torch.where(usable, weights, 0.0)
        radial = torch.zeros_like(problem.camera.focal_px) if problem.radial is None else problem.radial
        self.start = Estimate(
            problem.cam_from_world.to(dtype),
            problem.points.to(dtype),
            problem.camera.to(device, dtype),
            radial.to(device, dtype),
        )
        self.columns = intrinsic_columns(
            config.refine_focal, config.refine_principal_point, config.refine_radial
        )
        moving, self.pivot_view = _gauge(problem, config)
        self.graph = ObservationGraph(
            view_index, point_index, moving, len(problem.points), points_move=config.refine_points
        )
        depth = predict(self.start, view_index, point_index, pixels.new_zeros(())).depth
        self._near = NEAR_SHARE * torch.where(depth > 0, depth, torch.nan).nanmedian().nan_to_num(1.0)
        self._cost_behind = self._loss.loss(self.start.camera.focal_px.square().mean(), config.loss_scale_px)

    def predict(self, estimate: Estimate) -> Prediction:
        """Every observation, in the order of the graph."""
        return predict(estimate, self.graph.view, self.graph.point, self._near)

    def cost(self, estimate: Estimate, prediction: Prediction) -> Float[Tensor, ""]:
        """Half the sum of weighted losses, with the prior on the focal length."""
        squared = (prediction.pixels - self.pixels).square().sum(-1)
        each = torch.where(
            prediction.in_front, self._loss.loss(squared, self._config.loss_scale_px), self._cost_behind
        )
        prior = self._config.focal_prior_weight * self._focal_shift(estimate).square()
        return 0.5 * ((self._weights * each).sum() + prior)

    def linearise(self, estimate: Estimate) -> NormalEquations:
        """Normal equations of the iteratively reweighted least squares at ``estimate``."""
        builder = NormalEquationsBuilder(self.graph, len(self.columns), self.pixels)
        for chunk in chunk_ranges(len(self.graph), rows_per_chunk(self.pixels.device)):
            prediction = predict(estimate, self.graph.view[chunk], self.graph.point[chunk], self._near)
            residual = prediction.pixels - self.pixels[chunk]
            pull = self._loss.weight(residual.square().sum(-1), self._config.loss_scale_px)
            root = torch.where(prediction.in_front, self._weights[chunk] * pull, 0.0).sqrt()[:, None, None]
            by_pose, by_point, by_intrinsics = prediction_jacobian(prediction, estimate, self.columns)
            by_point = by_point * root if self._config.refine_points else torch.zeros_like(by_point)
            builder.add(chunk, by_pose * root, by_point, by_intrinsics * root, residual * root[..., 0])
        normal = builder.result()
        if self._config.refine_focal:
            normal.intrinsics[0, 0] += self._config.focal_prior_weight
            normal.gradient_intrinsics[0] += self._config.focal_prior_weight * self._focal_shift(estimate)
        return normal

    def moved(self, estimate: Estimate, step: Step) -> Estimate:
        """The estimate after a step."""
        views = self.graph.moving_views
        poses = estimate.cam_from_world.index_copy(
            0, views, retract(estimate.cam_from_world[views], step.poses)
        )
        change = estimate.radial.new_zeros(5)
        change[self.columns] = step.intrinsics
        camera = PinholeCamera(
            estimate.camera.focal_px * change[0].exp(), estimate.camera.principal_point_px + change[1:3]
        )
        return Estimate(poses, estimate.points + step.points, camera, estimate.radial + change[3:])

    def _focal_shift(self, estimate: Estimate) -> Float[Tensor, ""]:
        return (estimate.camera.focal_px[0] / self.start.camera.focal_px[0]).log()


def _gauge(
    problem: BundleProblem, config: BundleAdjustmentConfig
) -> tuple[Bool[Tensor, " views"], int | None]:
    """Which views move, and the one held view about which the scale is restored, if the scale is free."""
    every = torch.ones(len(problem.cam_from_world), dtype=torch.bool, device=problem.points.device)
    if not config.refine_poses:
        return ~every, None
    moving = every if problem.fixed_views is None else ~problem.fixed_views
    if not config.refine_points or len(problem.view_index) == 0:
        return moving, None
    held = (~moving).nonzero()[:, 0].tolist()
    if not held:
        held = [int(problem.view_index.min())]
        moving[held[0]] = False
    return moving, held[0] if len(held) == 1 else None
