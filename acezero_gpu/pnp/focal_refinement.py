"""Non-linear refinement of absolute poses together with the focal length, many small problems at once."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from acezero_gpu.geometry import compose, orthonormalise
from acezero_gpu.geometry.reprojection import MIN_DEPTH
from acezero_gpu.pnp.levenberg_marquardt import BEHIND_PX, RefinementConfig, small_motion
from acezero_gpu.pnp.robust_loss import RobustLoss, robust_loss
from acezero_gpu.pnp.status import PoseStatus

_LARGEST_LOG_STEP = 1.0
"""A step changes the focal length by a factor of e at most, so that it can neither vanish nor overflow."""


@dataclass(frozen=True, slots=True)
class RefinedPoseAndFocal:
    """Result of ``refine_pose_and_focal``."""

    cam_from_world: Float[Tensor, "*batch 3 4"]
    """The pose of the lowest cost that was visited."""
    focal_px: Float[Tensor, "*batch"]
    """The focal length that goes with it, in pixels, the same in x and y."""
    cost: Float[Tensor, "*batch"]
    """``sum_i weight_i * loss(error_px_i²)`` there."""
    normal_matrix: Float[Tensor, "*batch 7 7"]
    """``JᵀWJ`` there, for the step ``(translation, rotation)`` of ``geometry.retract`` and the logarithm of the
    focal length; its inverse times the residual variance is the covariance."""
    focal_information: Float[Tensor, "*batch"]
    """One over the last diagonal entry of that inverse, without its loss of digits: the residual variance over
    this is the variance of the logarithm of the focal length. 0 where the focal length is undetermined."""
    status: Int64[Tensor, "*batch"]
    """``OK`` or ``NOT_REFINED``, of ``PoseStatus``."""


@dataclass(frozen=True, slots=True)
class _Problem:
    """Inputs with one row per component and all batch dimensions expanded."""

    points_h: Float[Tensor, "*batch 4 n"]
    offsets: Float[Tensor, "*batch 2 n"]
    """Pixels relative to the principal point."""
    weights: Float[Tensor, "*batch n"]
    loss: RobustLoss
    scale_px: float | Float[Tensor, "*#batch 1"]


@dataclass(frozen=True, slots=True)
class _State:
    pose: Float[Tensor, "*batch 3 4"]
    focal: Float[Tensor, "*batch"]
    cost: Float[Tensor, "*batch"]
    normal: Float[Tensor, "*batch 7 7"]
    """For the step that ``_linearise`` describes."""
    gradient: Float[Tensor, "*batch 7 1"]
    pivot: Float[Tensor, "*batch"]
    """Depth at which a step of the focal length keeps things as large as they are."""


def refine_pose_and_focal(
    points: Float[Tensor, "*#batch n 3"],
    pixels: Float[Tensor, "*#batch n 2"],
    principal_point_px: Float[Tensor, "*#batch 2"],
    initial: Float[Tensor, "*batch 3 4"],
    initial_focal_px: Float[Tensor, "*#batch"],
    config: RefinementConfig | None = None,
    *,
    weights: Float[Tensor, "*#batch n"] | Bool[Tensor, "*#batch n"] | None = None,
    loss_scale_px: Float[Tensor, "*#batch"] | None = None,
) -> RefinedPoseAndFocal:
    """Minimise ``sum_i w_i loss(|pixel_i - c - f π(R x_i + t)|²)`` over the pose and ``log f``.

    The principal point c is given, pixels are square. Each problem has its own damping, and its result is
    never worse than its start, which must have a positive focal length. Weights, points behind the camera,
    the loss's scale and failure are as in ``refine_absolute_pose``: where points do not determine all seven
    parameters, the status is ``NOT_REFINED`` and the start is returned. A focal length that is determined, but
    poorly, shows in ``focal_information``.

    Moving away and zooming in change the image nearly alike. A step of ``log f`` therefore moves the camera
    too, by that step times the pivot ``sum w r²/z / sum w r²/z²``, ``r² = (x² + y²)/z²``: the size of things
    at this depth does not change, the step's column of J is orthogonal to that of the translation along the
    axis, and float32 suffices.

    Reference: Madsen, Nielsen and Tingleff, Methods for non-linear least squares problems, 2004; robust
    losses by iteratively reweighted least squares. Differs from ACE0, which finds the focal length of all
    images together, by gradient descent with the map.
    """
    config = config or RefinementConfig()
    batch = initial.shape[:-2]
    problem = _problem(points, pixels, principal_point_px, batch, config, weights, loss_scale_px)
    start_focal = initial_focal_px.expand(batch)
    state = _linearise(problem, initial, start_focal)
    damping = torch.full_like(state.cost, config.initial_damping)
    for _ in range(config.iterations):
        trial = _linearise(problem, *_stepped(state, damping))
        better = trial.cost < state.cost  # false for NaN
        damping = damping * torch.where(better, config.damping_decrease, config.damping_increase)
        damping = damping.clamp(1e-9, 1e9)
        state = _chosen(better, trial, state)
    rotation = orthonormalise(state.pose[..., :3])  # products of many rotations drift in float32
    pose = torch.cat([rotation, state.pose[..., 3:]], dim=-1)
    information, determined = _focal_information(state.normal)
    solved = determined & state.cost.isfinite() & pose.isfinite().all(-1).all(-1) & (state.focal > 0)
    return RefinedPoseAndFocal(
        torch.where(solved[..., None, None], pose, initial),
        torch.where(solved, state.focal, start_focal),
        state.cost,
        _without_pivot(state.normal, state.pivot),
        torch.where(solved, information, 0),
        torch.where(solved, int(PoseStatus.OK), int(PoseStatus.NOT_REFINED)),
    )


def _problem(
    points: Tensor,
    pixels: Tensor,
    principal: Tensor,
    batch: torch.Size,
    config: RefinementConfig,
    weights: Tensor | None,
    loss_scale_px: Tensor | None,
) -> _Problem:
    n = points.shape[-2]
    if weights is None:
        weights = points.new_ones(n)
    used = weights > 0
    points = torch.where(used[..., None], points, 0).transpose(-1, -2)
    offsets = torch.where(used[..., None], pixels - principal[..., None, :], 0).transpose(-1, -2)
    return _Problem(
        torch.cat([points, torch.ones_like(points[..., :1, :])], dim=-2).expand(*batch, 4, n).contiguous(),
        offsets.expand(*batch, 2, n),
        weights.to(points.dtype).expand(*batch, n),
        robust_loss(config.loss),
        config.loss_scale_px if loss_scale_px is None else loss_scale_px[..., None],
    )


def _linearise(problem: _Problem, pose: Tensor, focal: Tensor) -> _State:
    """Cost, ``JᵀWJ`` and ``JᵀWr`` for a step ``(translation, rotation, s)`` that moves a camera point x by
    ``translation + rotation × x + s pivot e_z`` and multiplies the focal length by ``exp(s)``.

    The first six columns are those of ``geometry.reprojection_jacobian``; the last is
    ``f (x, y) (1 - pivot / z)`` with ``(x, y)`` after the division.
    """
    x_cam, y_cam, depth = (pose @ problem.points_h).unbind(-2)
    f = focal[..., None]
    inverse = depth.clamp_min(MIN_DEPTH).reciprocal()
    x, y = x_cam * inverse, y_cam * inverse
    fx, fy = f * x, f * y
    r_u, r_v = fx - problem.offsets[..., 0, :], fy - problem.offsets[..., 1, :]
    behind = depth <= MIN_DEPTH
    squared = (r_u * r_u + r_v * r_v).masked_fill(behind, BEHIND_PX**2)
    cost = (problem.weights * problem.loss.loss(squared, problem.scale_px)).sum(-1)
    weight = (problem.weights * problem.loss.weight(squared, problem.scale_px)).masked_fill(behind, 0)

    by_z = weight * (x * x + y * y) * inverse
    pivot = by_z.sum(-1) / (by_z * inverse).sum(-1).clamp_min(torch.finfo(f.dtype).tiny)
    stretch = 1 - pivot[..., None] * inverse
    zero = torch.zeros_like(x)
    f_inverse = f * inverse
    entries = [f_inverse, zero, zero, f_inverse, -fx * inverse, -fy * inverse]
    entries += [-fx * y, -f - fy * y, f + fx * x, fx * y, -fy, fx, fx * stretch, fy * stretch]
    rows = torch.stack([*entries, r_u, r_v], dim=-2).unflatten(-2, (8, 2))
    weighted = rows[..., :7, :, :] * weight[..., None, None, :]
    products = weighted.flatten(-2) @ rows.flatten(-2).transpose(-1, -2)
    return _State(pose, focal, cost, products[..., :7], products[..., 7:], pivot)


def _stepped(state: _State, damping: Tensor) -> tuple[Tensor, Tensor]:
    """Pose and focal length after ``(JᵀWJ + damping diag(JᵀWJ)) delta = -JᵀWr``; no step if it is singular.

    The camera also moves along its axis, as ``_linearise`` says.
    """
    diagonal = state.normal.diagonal(dim1=-2, dim2=-1)
    floor = torch.finfo(diagonal.dtype).eps * diagonal.amax(-1, keepdim=True)
    damped = state.normal + torch.diag_embed(damping[..., None] * diagonal + floor)
    factor, info = torch.linalg.cholesky_ex(damped)
    delta = -torch.cholesky_solve(state.gradient, factor)[..., 0]
    delta = torch.where((info == 0)[..., None] & delta.isfinite(), delta, 0)
    log_step = delta[..., 6].clamp(-_LARGEST_LOG_STEP, _LARGEST_LOG_STEP)
    axis = torch.eye(6, dtype=delta.dtype, device=delta.device)[2]
    motion = small_motion(delta[..., :6] + (log_step * state.pivot)[..., None] * axis)
    return compose(motion, state.pose), state.focal * log_step.exp()


def _chosen(better: Tensor, trial: _State, state: _State) -> _State:
    matrix = better[..., None, None]
    return _State(
        torch.where(matrix, trial.pose, state.pose),
        torch.where(better, trial.focal, state.focal),
        torch.where(better, trial.cost, state.cost),
        torch.where(matrix, trial.normal, state.normal),
        torch.where(matrix, trial.gradient, state.gradient),
        torch.where(better, trial.pivot, state.pivot),
    )


def _focal_information(normal: Tensor) -> tuple[Tensor, Tensor]:
    """Schur complement of the last parameter, and whether the matrix is positive definite with a margin of
    rounding error. Both after scaling to a unit diagonal."""
    diagonal = normal.diagonal(dim1=-2, dim2=-1)
    scale = diagonal.rsqrt()
    scaled = normal * scale[..., None] * scale[..., None, :]
    margin = 10 * torch.finfo(normal.dtype).eps
    factor, info = torch.linalg.cholesky_ex(
        scaled - margin * torch.eye(7, dtype=normal.dtype, device=normal.device)
    )
    determined = (info == 0) & factor.isfinite().all(-1).all(-1)
    information = factor[..., 6, 6].square() * diagonal[..., 6]
    return torch.where(determined, information, 0), determined


def _without_pivot(normal: Tensor, pivot: Tensor) -> Tensor:
    """The normal matrix for a step of ``log f`` that leaves the camera where it is."""
    shear = torch.eye(7, dtype=normal.dtype, device=normal.device).expand_as(normal).clone()
    shear[..., 2, 6] = -pivot
    return shear.transpose(-1, -2) @ normal @ shear
