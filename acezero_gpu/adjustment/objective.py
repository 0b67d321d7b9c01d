"""The cost of a joint adjustment, its linearisation, and what a step does to the estimate."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from acezero_gpu.adjustment.components import components, make_gauge
from acezero_gpu.adjustment.observation_graph import ObservationGraph, rows_per_chunk
from acezero_gpu.adjustment.observation_model import (
    Estimate,
    Prediction,
    intrinsic_columns,
    point_jacobian,
    predict,
    prediction_jacobian,
)
from acezero_gpu.adjustment.parallax import parallax
from acezero_gpu.adjustment.problem import BundleAdjustmentConfig, BundleProblem
from acezero_gpu.adjustment.schur import NormalEquations, NormalEquationsBuilder, Step, empty_table
from acezero_gpu.geometry import PinholeCamera, camera_centres, retract
from acezero_gpu.pnp.robust_loss import robust_loss
from acezero_gpu.runtime import chunk_ranges

NEAR_SHARE = 1e-3
"""A point nearer than this share of the median depth counts as behind its view."""


class Objective:
    """A problem in working precision with its observations ordered by point, and what of it counts."""

    def __init__(self, problem: BundleProblem, config: BundleAdjustmentConfig) -> None:
        device = problem.points.device
        dtype = torch.float32 if device.type == "mps" else torch.float64
        self._config = config
        self._loss = robust_loss(config.loss)
        self.order = problem.point_index.argsort(stable=True)
        view, point = problem.view_index[self.order].long(), problem.point_index[self.order].long()
        pixels = problem.pixels[self.order].to(dtype)
        weights = torch.ones_like(pixels[:, 0])
        if problem.weights is not None:
            weights = problem.weights[self.order].to(dtype)
        radial = torch.zeros_like(problem.camera.focal_px) if problem.radial is None else problem.radial
        poses, points = problem.cam_from_world.to(dtype), problem.points.to(dtype)
        self.known_views, self.known_points = poses.isfinite().flatten(1).all(-1), points.isfinite().all(-1)
        self.start = Estimate(
            torch.where(self.known_views[:, None, None], poses, torch.eye(3, 4).to(poses)),
            torch.where(self.known_points[:, None], points, 0.0),
            problem.camera.to(device, dtype),
            radial.to(device, dtype),
        )
        counts = pixels.isfinite().all(-1) & weights.isfinite() & (weights > 0)
        counts = counts & self.known_views[view] & self.known_points[point]
        # In memory x before y, as predictions are.
        self.pixels = torch.where(pixels.isfinite(), pixels, 0.0).T.contiguous().T
        counts = self._without_untriangulated(view, point, counts)
        self._weights = torch.where(counts, weights, 0.0)
        self.columns = intrinsic_columns(
            config.refine_focal, config.refine_principal_point, config.refine_radial
        )
        of_view, of_point = components(view[counts], point[counts], len(poses), len(points))
        self.gauge = make_gauge(
            of_view,
            of_point,
            problem.fixed_views,
            poses_move=config.refine_poses,
            points_move=config.refine_points,
        )
        self.graph = ObservationGraph(
            view, point, self.gauge.moving, len(points), points_move=config.refine_points
        )
        self._anchors: Tensor | None = None
        if config.refine_points and self._some_without_parallax:
            self._anchors = self._mean_centres(self.start)
            self._anchors[self.triangulated] = torch.nan
        depth = predict(self.start, view, point, pixels.new_zeros(())).depth
        depth = torch.where(counts & (depth > 0), depth, torch.nan)
        self._near = NEAR_SHARE * depth.nanmedian().nan_to_num(1.0)
        self._cost_behind = self._loss.loss(self.start.camera.focal_px.square().mean(), config.loss_scale_px)

    def _without_untriangulated(
        self, view: Int[Tensor, " k"], point: Int[Tensor, " k"], counts: Bool[Tensor, " k"]
    ) -> Bool[Tensor, " k"]:
        """What counts still, once points are held that one view alone sees."""
        start = self.start
        several, self.triangulated, self._direction = parallax(
            start.points, start.cam_from_world, view[counts], point[counts], start.camera.focal_px.mean()
        )
        self._some_without_parallax = bool((several & ~self.triangulated).any())
        self.free_points = several & self._config.refine_points
        return counts & several[point] if self._config.refine_points else counts

    def _across(self, by_point: Float[Tensor, "k 2 3"], chunk: slice) -> Float[Tensor, "k 2 3"]:
        """Derivatives by what may move of the points: without parallax not along their direction."""
        if not self._config.refine_points:
            return torch.zeros_like(by_point)
        if not self._some_without_parallax:
            return by_point
        point = self.graph.point[chunk]
        held = torch.where(self.triangulated[:, None], 0.0, self._direction).index_select(0, point)
        along = (by_point * held[:, None]).sum(-1, keepdim=True)
        return by_point - along * held[:, None]

    def _rotations_only(self, by_pose: Float[Tensor, "k 2 6"], chunk: slice) -> Float[Tensor, "k 2 6"]:
        """A direction says nothing of a translation, nor of the scale."""
        if not (self._config.refine_points and self._some_without_parallax):
            return by_pose
        deep = self.triangulated[self.graph.point[chunk]][:, None, None]
        return torch.cat([torch.where(deep, by_pose[..., :3], 0.0), by_pose[..., 3:]], dim=-1)

    def _stiff(self, points: Float[Tensor, "points 3 3"]) -> Float[Tensor, "points 3 3"]:
        """With the direction along which a point without parallax does not move made as stiff as the others."""
        if not self._some_without_parallax:
            return points
        outer = self._direction[:, :, None] * self._direction[:, None]
        trace = points.diagonal(dim1=1, dim2=2).sum(-1)
        return points + torch.where(self.triangulated, 0.0, trace)[:, None, None] * outer

    @property
    def has_free_parameters(self) -> bool:
        """Whether something may move and some observation counts."""
        free = self.graph.views > 0 or bool(self.columns) or bool(self.free_points.any())
        return free and bool((self._weights > 0).any())

    @property
    def tells_depth(self) -> Bool[Tensor, " k"]:
        """Observations that count, of points that are more than a direction."""
        return (self._weights > 0) & self.triangulated[self.graph.point]

    def predict(self, estimate: Estimate) -> Prediction:
        """Every observation, in the order of the graph; points without parallax as directions only."""
        return predict(estimate, self.graph.view, self.graph.point, self._near, self._anchors)

    def predict_places(self, estimate: Estimate) -> Prediction:
        """Every observation, with every point where it is."""
        return predict(estimate, self.graph.view, self.graph.point, self._near)

    def points_carried_along(self, estimate: Estimate) -> Estimate:
        """Points without parallax moved with the views that see them, as their directions are from there."""
        if self._anchors is None:
            return estimate
        now = self._mean_centres(estimate)
        shift = torch.where(self._anchors.isfinite() & now.isfinite(), now - self._anchors, 0.0)
        return replace(estimate, points=estimate.points + shift)

    def _mean_centres(self, estimate: Estimate) -> Float[Tensor, "points 3"]:
        """Of the views in which each point counts."""
        counts = self._weights > 0
        view, point = self.graph.view[counts], self.graph.point[counts]
        total = torch.zeros_like(estimate.points)
        total.index_add_(0, point, camera_centres(estimate.cam_from_world)[view])
        return total / torch.bincount(point, minlength=len(total))[:, None]

    def point_costs(self, prediction: Prediction) -> Float[Tensor, " points"]:
        """Half the sum of weighted losses over the observations of each point."""
        squared = _squared_norm(prediction.pixels - self.pixels)
        each = torch.where(
            prediction.in_front, self._loss.loss(squared, self._config.loss_scale_px), self._cost_behind
        )
        # Without weight a loss may be infinite.
        each = torch.where(self._weights > 0, 0.5 * self._weights * each, 0.0)
        return each.new_zeros(self.graph.points).index_add_(0, self.graph.point, each)

    def prior(self, estimate: Estimate) -> Float[Tensor, ""]:
        """The cost of the focal length."""
        return 0.5 * self._config.focal_prior_weight * self._focal_shift(estimate).square()

    def cost(self, estimate: Estimate, prediction: Prediction) -> Float[Tensor, ""]:
        """Half the sum of weighted losses, with the prior on the focal length."""
        return self.point_costs(prediction).sum() + self.prior(estimate)

    def _roots(self, prediction: Prediction, residual: Tensor, chunk: slice) -> Float[Tensor, "k 1 1"]:
        """Factor on derivatives and residuals, of the weight and of the loss that falls off."""
        pull = self._loss.weight(_squared_norm(residual), self._config.loss_scale_px)
        weights = self._weights[chunk]
        return torch.where(prediction.in_front & (weights > 0), weights * pull, 0.0).sqrt()[:, None, None]

    def linearise(self, estimate: Estimate) -> NormalEquations:
        """Normal equations of the iteratively reweighted least squares at ``estimate``."""
        builder = NormalEquationsBuilder(self.graph, len(self.columns), self.pixels)
        for chunk in chunk_ranges(len(self.graph), rows_per_chunk(self.pixels.device)):
            prediction = predict(
                estimate, self.graph.view[chunk], self.graph.point[chunk], self._near, self._anchors
            )
            residual = prediction.pixels - self.pixels[chunk]
            root = self._roots(prediction, residual, chunk)
            by_pose, by_point, by_intrinsics = prediction_jacobian(prediction, estimate, self.columns)
            by_pose, by_point = self._rotations_only(by_pose, chunk), self._across(by_point, chunk)
            builder.add(chunk, by_pose, by_point, by_intrinsics, residual, root)
        normal = builder.result()
        normal = replace(normal, points=self._stiff(normal.points))
        if self._config.refine_focal:
            normal.intrinsics[0, 0] += self._config.focal_prior_weight
            normal.gradient_intrinsics[0] += self._config.focal_prior_weight * self._focal_shift(estimate)
        return normal

    def point_equations(
        self, estimate: Estimate, prediction: Prediction
    ) -> tuple[Float[Tensor, "points 3 3"], Float[Tensor, "points 3"]]:
        """The points' own blocks of the normal equations and of the gradient, all else held."""
        table = empty_table(self.pixels, len(self.graph), 2, 4)
        everything = slice(0, len(self.graph))
        residual = prediction.pixels - self.pixels
        root = self._roots(prediction, residual, everything)
        by_point = self._across(point_jacobian(prediction, estimate), everything)
        torch.mul(by_point, root, out=table[:-1, :, :3])
        torch.mul(residual[..., None], root, out=table[:-1, :, 3:])
        blocks = self.graph.by_point.products(table, table)
        return self._stiff(blocks[:, :3, :3]), blocks[:, :3, 3]

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


def _squared_norm(vectors: Float[Tensor, "k 2"]) -> Float[Tensor, " k"]:
    """Written out: a sum over two numbers at a time is slow."""
    x, y = vectors.unbind(-1)
    return x * x + y * y
