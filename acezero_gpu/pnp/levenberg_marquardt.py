"""Non-linear refinement of absolute poses: many small Levenberg-Marquardt problems advance together."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from acezero_gpu.geometry import PinholeCamera, compose, orthonormalise
from acezero_gpu.geometry.reprojection import MIN_DEPTH
from acezero_gpu.pnp.robust_loss import ROBUST_LOSSES, LossName, robust_loss
from acezero_gpu.pnp.status import PoseStatus
from acezero_gpu.runtime import compiled

BEHIND_PX = 1e4
"""Residual counted for a point behind the camera: constant, so it has no gradient, but a step that moves a
point behind raises the cost and is rejected."""

_UPPER = [(i, j) for i in range(6) for j in range(i, 6)]
_PLACES = [_UPPER.index((min(i, j), max(i, j))) for i in range(6) for j in range(6)]
"""For each entry of a symmetric 6x6 matrix, row by row, its place in the upper triangle."""


@dataclass(frozen=True, slots=True)
class RefinementConfig:
    iterations: int = 10
    """Steps tried per problem; always all of them, since stopping early would wait for the device."""
    loss: LossName = "squared"
    """Robust loss of the reprojection error, by name (see ``robust_loss``)."""
    loss_scale_px: float = 10.0
    """Scale of the robust loss in pixels; no effect on ``squared``."""
    initial_damping: float = 1e-4
    """First factor of the diagonal that is added to the normal matrix (Marquardt's scaling)."""
    damping_decrease: float = 0.1
    """Factor on the damping after a step that lowered the cost."""
    damping_increase: float = 10.0
    """Factor on the damping after a step that was rejected."""
    compile: bool = False
    """Sum over the points in one fused pass, made by ``torch.compile``."""


@dataclass(frozen=True, slots=True)
class RefinedPose:
    """Result of ``refine_absolute_pose``."""

    cam_from_world: Float[Tensor, "*batch 3 4"]
    """The pose of the lowest cost that was visited."""
    cost: Float[Tensor, "*batch"]
    """``sum_i weight_i * loss(error_px_i²)`` there."""
    normal_matrix: Float[Tensor, "*batch 6 6"]
    """``JᵀWJ`` there, for the step ``(translation, rotation)`` of ``geometry.retract``; its inverse times the
    residual variance is the covariance."""
    status: Int64[Tensor, "*batch"]
    """``OK`` or ``NOT_REFINED``, of ``PoseStatus``."""


@dataclass(frozen=True, slots=True)
class ReprojectionProblem:
    """Correspondences with one row per component, as the inner loop wants them."""

    points_h: Float[Tensor, "*batch 4 n"]
    """Homogeneous world points; finite also where the weight is zero."""
    pixels: Float[Tensor, "*batch 2 n"]
    """Finite also where the weight is zero."""
    weights: Float[Tensor, "*batch n"]
    camera: PinholeCamera
    """Its batch dimensions broadcast against those of the poses."""


@dataclass(frozen=True, slots=True)
class _State:
    pose: Float[Tensor, "*batch 3 4"]
    cost: Float[Tensor, "*batch"]
    normal: Float[Tensor, "*batch 6 6"]
    gradient: Float[Tensor, "*batch 6 1"]


def refine_absolute_pose(
    points: Float[Tensor, "*#batch n 3"],
    pixels: Float[Tensor, "*#batch n 2"],
    camera: PinholeCamera,
    initial: Float[Tensor, "*batch 3 4"],
    config: RefinementConfig | None = None,
    *,
    weights: Float[Tensor, "*#batch n"] | Bool[Tensor, "*#batch n"] | None = None,
    loss_scale_px: Float[Tensor, "*#batch"] | None = None,
) -> RefinedPose:
    """Minimise ``sum_i w_i loss(|pixel_i - project(R x_i + t)|²)`` over the pose.

    Each problem has its own damping; a step is kept only if it lowers that problem's cost, so the result is
    never worse than ``initial``. Points of weight zero may hold anything. Points behind the camera pull
    nowhere and cost a constant. Problems whose points do not determine a pose, or that hold values that are
    not finite, end with status ``NOT_REFINED``; they do not touch the others. The camera's batch dimensions
    broadcast against those of ``initial``. ``loss_scale_px`` gives each problem its own scale, in place of
    that of ``config``.

    Reference: Madsen, Nielsen and Tingleff, Methods for non-linear least squares problems, 2004; robust
    losses by iteratively reweighted least squares. Differs from ACE0, which calls OpenCV's solver on one
    image at a time.
    """
    config = config or RefinementConfig()
    batch, n = initial.shape[:-2], points.shape[-2]
    if weights is None:
        weights = points.new_ones(n)
    used = weights > 0
    points = torch.where(used[..., None], points, 0).transpose(-1, -2)
    points_h = torch.cat([points, torch.ones_like(points[..., :1, :])], dim=-2)
    pixels = torch.where(used[..., None], pixels, 0).transpose(-1, -2)
    problem = ReprojectionProblem(
        points_h.expand(*batch, 4, n).contiguous(),
        pixels.expand(*batch, 2, n),
        weights.to(points.dtype).expand(*batch, n),
        camera,
    )
    return minimise_reprojection(problem, initial, config, loss_scale_px)


def minimise_reprojection(
    problem: ReprojectionProblem,
    initial: Float[Tensor, "*batch 3 4"],
    config: RefinementConfig,
    loss_scale_px: Float[Tensor, "*#batch"] | None = None,
) -> RefinedPose:
    """``refine_absolute_pose`` on rows that are laid out already."""
    if loss_scale_px is None:
        loss_scale_px = initial.new_full((), config.loss_scale_px)
    scale = loss_scale_px[..., None]
    # One problem alone would be compiled separately, for little.
    fused = config.compile and initial.dim() == 3 and len(initial) > 1
    linearise = _linearise_fused if fused else _linearise
    state = linearise(problem, initial, config.loss, scale)
    damping = torch.full_like(state.cost, config.initial_damping)
    for _ in range(config.iterations):
        trial = linearise(problem, _stepped(state, damping), config.loss, scale)
        better = trial.cost < state.cost  # false for NaN
        damping = damping * torch.where(better, config.damping_decrease, config.damping_increase)
        damping = damping.clamp(1e-9, 1e9)
        state = _State(
            torch.where(better[..., None, None], trial.pose, state.pose),
            torch.where(better, trial.cost, state.cost),
            torch.where(better[..., None, None], trial.normal, state.normal),
            torch.where(better[..., None, None], trial.gradient, state.gradient),
        )
    rotation = orthonormalise(state.pose[..., :3])  # products of many rotations drift in float32
    pose = torch.cat([rotation, state.pose[..., 3:]], dim=-1)
    solved = _is_determined(state.normal) & state.cost.isfinite() & pose.isfinite().all(-1).all(-1)
    pose = torch.where(solved[..., None, None], pose, initial)
    status = torch.where(solved, int(PoseStatus.OK), int(PoseStatus.NOT_REFINED))
    return RefinedPose(pose, state.cost, state.normal, status)


def _linearise(problem: ReprojectionProblem, pose: Tensor, loss_name: LossName, scale: Tensor) -> _State:
    """Cost, ``JᵀWJ`` and ``JᵀWr`` at a pose.

    The rows of ``J`` are those of ``geometry.reprojection_jacobian``, laid out as (6, u and v, n) so that
    each entry is written once and one matrix product forms both sums.
    """
    x_cam, y_cam, depth = (pose @ problem.points_h).unbind(-2)
    loss = robust_loss(loss_name)
    focal, principal = problem.camera.focal_px, problem.camera.principal_point_px
    fx, fy, cx, cy = (
        focal[..., None, 0],
        focal[..., None, 1],
        principal[..., None, 0],
        principal[..., None, 1],
    )
    inverse = depth.clamp_min(MIN_DEPTH).reciprocal()
    x, y = x_cam * inverse, y_cam * inverse
    fx_x, fy_y = fx * x, fy * y
    r_u = fx_x + (cx - problem.pixels[..., 0, :])
    r_v = fy_y + (cy - problem.pixels[..., 1, :])
    behind = depth <= MIN_DEPTH
    squared = (r_u * r_u + r_v * r_v).masked_fill(behind, BEHIND_PX**2)
    cost = (problem.weights * loss.loss(squared, scale)).sum(-1)
    weight = (problem.weights * loss.weight(squared, scale)).masked_fill(behind, 0)

    zero = torch.zeros_like(x)
    entries = [fx * inverse, zero, zero, fy * inverse, -fx_x * inverse, -fy_y * inverse]
    entries += [-fx_x * y, -fy - fy_y * y, fx + fx_x * x, fy_y * x, -fx * y, fy * x]
    rows = torch.stack([*entries, r_u, r_v], dim=-2).unflatten(-2, (7, 2))
    weighted = rows[..., :6, :, :] * weight[..., None, None, :]
    products = weighted.flatten(-2) @ rows.flatten(-2).transpose(-1, -2)
    return _State(pose, cost, products[..., :6], products[..., 6:])


def _linearise_fused(
    problem: ReprojectionProblem, pose: Tensor, loss_name: LossName, scale: Tensor
) -> _State:
    """``_linearise`` with every sum formed while the points are read once."""
    batch = len(pose)
    camera = problem.camera
    cost, sums = compiled(_fused_sums)(
        problem.points_h,
        problem.pixels,
        problem.weights,
        camera.focal_px.expand(batch, 2).contiguous(),
        camera.principal_point_px.expand(batch, 2).contiguous(),
        pose.contiguous(),
        scale.expand(batch, 1).contiguous(),
        loss_name,
    )
    columns = sums.unbind(-1)
    normal = torch.stack([columns[k] for k in _PLACES], dim=-1).unflatten(-1, (6, 6))
    return _State(pose, cost, normal, sums[:, 21:, None])


def _fused_sums(
    points_h: Tensor,
    pixels: Tensor,
    weights: Tensor,
    focal: Tensor,
    principal: Tensor,
    pose: Tensor,
    scale: Tensor,
    loss_name: str,
) -> tuple[Tensor, Tensor]:
    """Cost (batch), and the upper triangle of ``JᵀWJ`` followed by ``JᵀWr`` (batch, 27)."""
    x_w, y_w, z_w, _ = points_h.unbind(1)
    x_cam, y_cam, depth = (
        row[:, :1] * x_w + row[:, 1:2] * y_w + row[:, 2:3] * z_w + row[:, 3:] for row in pose.unbind(1)
    )
    fx, fy = focal[:, :1], focal[:, 1:]
    inverse = depth.clamp_min(MIN_DEPTH).reciprocal()
    x, y = x_cam * inverse, y_cam * inverse
    r_u = fx * x + (principal[:, :1] - pixels[:, 0])
    r_v = fy * y + (principal[:, 1:] - pixels[:, 1])
    behind = depth <= MIN_DEPTH
    squared = torch.where(behind, BEHIND_PX**2, r_u * r_u + r_v * r_v)
    loss = ROBUST_LOSSES[loss_name]
    cost = (weights * loss.loss(squared, scale)).sum(-1)
    weight = torch.where(behind, 0.0, weights * loss.weight(squared, scale))
    # Rows divided by the focal length; None stands for zero.
    w_u, w_v = weight * fx * fx, weight * fy * fy
    xy = x * y
    row_u = (inverse, None, -x * inverse, -xy, 1 + x * x, -y, r_u / fx)
    row_v = (None, inverse, -y * inverse, -1 - y * y, xy, x, r_v / fy)
    sums = []
    for i, j in [*_UPPER, *((k, 6) for k in range(6))]:
        total = torch.zeros_like(weight)
        for weighting, row in ((w_u, row_u), (w_v, row_v)):
            left, right = row[i], row[j]
            if left is not None and right is not None:
                total = total + weighting * left * right
        sums.append(total.sum(-1))
    return cost, torch.stack(sums, dim=-1)


def _stepped(state: _State, damping: Tensor) -> Tensor:
    """The pose after the step ``(JᵀWJ + damping diag(JᵀWJ)) delta = -JᵀWr``; no step if it is singular."""
    diagonal = state.normal.diagonal(dim1=-2, dim2=-1)
    floor = torch.finfo(diagonal.dtype).eps * diagonal.amax(-1, keepdim=True)
    damped = state.normal + torch.diag_embed(damping[..., None] * diagonal + floor)
    factor, info = torch.linalg.cholesky_ex(damped)
    delta = -torch.cholesky_solve(state.gradient, factor)[..., 0]
    usable = (info == 0)[..., None] & delta.isfinite()
    return compose(small_motion(torch.where(usable, delta, 0)), state.pose)


def small_motion(delta: Tensor) -> Tensor:
    """``[R | t]`` of ``delta = (t, rotation vector r)``, with R that of the quaternion ``(1, r/2) / norm``.

    It agrees with ``geometry.retract`` to second order and is a rotation for any ``r``. Unlike the
    exponential map it has no case at zero; pypose picks that case by boolean indexing, which waits for the
    device.
    """
    half = delta[..., 3:] / 2
    x, y, z = half.unbind(-1)
    norm = 1 + half.square().sum(-1)
    s = 2 / norm
    rows = [
        torch.stack([1 - s * (y * y + z * z), s * (x * y - z), s * (x * z + y), delta[..., 0]], dim=-1),
        torch.stack([s * (x * y + z), 1 - s * (x * x + z * z), s * (y * z - x), delta[..., 1]], dim=-1),
        torch.stack([s * (x * z - y), s * (y * z + x), 1 - s * (x * x + y * y), delta[..., 2]], dim=-1),
    ]
    return torch.stack(rows, dim=-2)


def _is_determined(normal: Tensor) -> Tensor:
    """Positive definite with a margin of rounding error, after scaling to a unit diagonal."""
    scale = normal.diagonal(dim1=-2, dim2=-1).rsqrt()
    margin = 10 * torch.finfo(normal.dtype).eps
    scaled = normal * scale[..., None] * scale[..., None, :]
    eye = torch.eye(6, dtype=normal.dtype, device=normal.device)
    _, info = torch.linalg.cholesky_ex(scaled - margin * eye)
    return (info == 0) & scaled.isfinite().all(-1).all(-1)
