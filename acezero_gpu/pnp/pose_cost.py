"""The robust reprojection cost of a pose and its exact derivatives, in operations that autograd can follow.

Derivatives by the pose are those by the step ``(translation, rotation)`` of ``geometry.retract``.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from acezero_gpu.geometry import PinholeCamera, project, reprojection_jacobian, transform_points
from acezero_gpu.geometry.reprojection import MIN_DEPTH
from acezero_gpu.pnp.levenberg_marquardt import BEHIND_PX
from acezero_gpu.pnp.robust_loss import RobustLoss, robust_loss


@dataclass(frozen=True, slots=True)
class PoseProblem:
    """``sum_i w_i loss(|pixel_i - project(R x_i + t)|²)``, with every batch dimension spelled out."""

    points: Float[Tensor, "*batch n 3"]
    """World points; zero where they are hidden."""
    pixels: Float[Tensor, "*batch n 2"]
    weights: Float[Tensor, "*batch n"]
    camera: PinholeCamera
    loss: RobustLoss
    scale_px: Float[Tensor, "*batch 1"]
    """Scale of the loss."""

    def where(self, solved: Bool[Tensor, "*batch"]) -> "PoseProblem":
        """The same, but all weights zero and all numbers harmless where not ``solved``.

        Selecting on the way in is what keeps gradients clean: a result that is only discarded afterwards
        still sends back 0 times infinity.
        """

        def select(values: Tensor, trailing: int, harmless: float) -> Tensor:
            return torch.where(solved.reshape(*solved.shape, *[1] * trailing), values, harmless)

        focal, principal = self.camera.focal_px, self.camera.principal_point_px
        return PoseProblem(
            select(self.points, 2, 0.0),
            select(self.pixels, 2, 0.0),
            select(self.weights, 1, 0.0),
            PinholeCamera(select(focal, 1, 1.0), select(principal, 1, 0.0)),
            self.loss,
            select(self.scale_px, 1, 1.0),
        )


def make_pose_problem(
    points: Tensor,
    pixels: Tensor,
    camera: PinholeCamera,
    initial: Tensor,
    loss: str,
    weights: Tensor | None,
    loss_scale_px: Tensor | float,
) -> PoseProblem:
    """Inputs broadcast to the batch of ``initial``, or a ``ValueError`` that names what does not fit.

    Correspondences of weight zero that are not finite are replaced, so that they cannot spoil a sum.
    """
    if initial.dim() < 2 or initial.shape[-2:] != (3, 4):
        raise ValueError(f"initial must have the shape (..., 3, 4), got {tuple(initial.shape)}.")
    if points.dim() < 2 or points.shape[-1] != 3:
        raise ValueError(f"points must have the shape (..., n, 3), got {tuple(points.shape)}.")
    batch, n = initial.shape[:-2], points.shape[-2]
    if weights is None:
        weights = points.new_ones(n)
    elif weights.dtype == torch.bool:
        weights = weights.to(points.dtype)
    scale = initial.new_full((), loss_scale_px) if isinstance(loss_scale_px, float) else loss_scale_px
    points, pixels, weights, focal, principal, scale = (
        _expanded(name, value, initial, shape)
        for name, value, shape in (
            ("points", points, (*batch, n, 3)),
            ("pixels", pixels, (*batch, n, 2)),
            ("weights", weights, (*batch, n)),
            ("camera.focal_px", camera.focal_px, (*batch, 2)),
            ("camera.principal_point_px", camera.principal_point_px, (*batch, 2)),
            ("loss_scale_px", scale, batch),
        )
    )
    hidden = (weights == 0) & ~(points.isfinite().all(-1) & pixels.isfinite().all(-1))
    points = torch.where(hidden[..., None], 0.0, points)
    pixels = torch.where(hidden[..., None], 0.0, pixels)
    weights = torch.where(hidden, 0.0, weights)  # cuts the gradient of a weight that has nothing to weigh
    return PoseProblem(
        points, pixels, weights, PinholeCamera(focal, principal), robust_loss(loss), scale[..., None]
    )


def _expanded(name: str, value: Tensor, like: Tensor, shape: tuple[int, ...]) -> Tensor:
    if value.dtype != like.dtype or value.device != like.device:
        raise ValueError(
            f"{name} is {value.dtype} on {value.device}, initial is {like.dtype} on {like.device}; "
            "give all of one type and on one device."
        )
    try:
        return value.expand(shape)
    except RuntimeError:
        raise ValueError(
            f"{name} must broadcast to the shape {tuple(shape)}, that of initial's batch, got {tuple(value.shape)}."
        ) from None


@dataclass(frozen=True, slots=True)
class PoseResiduals:
    """What cost and derivatives at one pose need of every correspondence."""

    points_cam: Float[Tensor, "*batch n 3"]
    """A point on the axis stands in for one behind the camera, so that nothing is divided by zero."""
    residual: Float[Tensor, "*batch n 2"]
    squared: Float[Tensor, "*batch n"]
    in_front: Bool[Tensor, "*batch n"]
    factor: Float[Tensor, "*batch n"]
    """``w_i loss'(r_i²)``; zero behind the camera."""


def pose_residuals(problem: PoseProblem, pose: Float[Tensor, "*batch 3 4"]) -> PoseResiduals:
    """Every correspondence at a pose."""
    points_cam = transform_points(pose, problem.points)
    in_front = ~(points_cam[..., 2] <= MIN_DEPTH)  # true for NaN, which must not pass for a point behind
    axis = torch.eye(3, dtype=pose.dtype, device=pose.device)[2]
    points_cam = torch.where(in_front[..., None], points_cam, axis)
    residual = project(points_cam, problem.camera) - problem.pixels
    squared = residual.square().sum(-1)
    factor = problem.weights * torch.where(in_front, problem.loss.weight(squared, problem.scale_px), 0.0)
    return PoseResiduals(points_cam, residual, squared, in_front, factor)


def robust_cost(problem: PoseProblem, terms: PoseResiduals) -> Float[Tensor, "*batch"]:
    """``sum_i w_i loss(r_i²)``."""
    squared = torch.where(terms.in_front, terms.squared, BEHIND_PX**2)
    return (problem.weights * problem.loss.loss(squared, problem.scale_px)).sum(-1)


def rounding_cost(
    problem: PoseProblem, terms: PoseResiduals, pose: Float[Tensor, "*batch 3 4"]
) -> Float[Tensor, "*batch"]:
    """What one rounding of each projection adds to the weighted sum of squared residuals, in pixels².

    A camera point is a sum of terms of the size of ``x`` and ``t``, which may be large against its depth.
    """
    size = problem.points.norm(dim=-1) + pose[..., 3].norm(dim=-1, keepdim=True)
    focal = problem.camera.focal_px.amax(-1, keepdim=True)
    rounding = torch.finfo(pose.dtype).eps * focal * size / terms.points_cam[..., 2]
    return (terms.factor * rounding.square()).sum(-1)


def half_gradient(problem: PoseProblem, terms: PoseResiduals) -> Float[Tensor, "*batch 6"]:
    """``JᵀWr``: half the derivative of the cost by the pose.

    With ``g_i`` that of the i-th term by its camera point it is ``sum_i (g_i, x_i × g_i)``.
    """
    by_point = _pulled_back(problem, terms)
    by_rotation = torch.linalg.cross(terms.points_cam, by_point)
    return torch.cat([by_point, by_rotation], dim=-1).sum(-2)


def gauss_newton_matrix(problem: PoseProblem, terms: PoseResiduals) -> Float[Tensor, "*batch 6 6"]:
    """``JᵀWJ``: ``hessian`` without its second derivatives."""
    jacobian, _ = reprojection_jacobian(terms.points_cam, problem.camera)
    weighted = jacobian * terms.factor[..., None, None]
    return weighted.flatten(-3, -2).transpose(-1, -2) @ jacobian.flatten(-3, -2)


def hessian(problem: PoseProblem, terms: PoseResiduals) -> Float[Tensor, "*batch 6 6"]:
    """The exact second derivative of half the cost along ``retract``.

    With ``P = d pixel / d x`` and ``A = d x / d delta = [I | -hat(x)]`` of each camera point ``x``, weights
    ``w`` and ``s = r²``, it is ``sum_i Aᵀ M A`` plus the turning of the camera points, where

        ``M = w loss'(s) PᵀP + 2 w loss''(s) PᵀrrᵀP + w loss'(s) sum_k r_k d²pixel_k/dx²``.

    The second and the third part are those that Gauss-Newton leaves out (Triggs et al., Bundle adjustment,
    2000, section 4.3, with the robust weights of section 3.3).
    """
    x = terms.points_cam
    _, by_point = reprojection_jacobian(x, problem.camera)
    # Forward mode gives loss'' of every loss, and needs no graph.
    _, slope = torch.func.jvp(
        lambda squared: problem.loss.weight(squared, problem.scale_px),
        (terms.squared,),
        (torch.ones_like(terms.squared),),
    )
    slope = problem.weights * torch.where(terms.in_front, slope, 0.0)
    pulled = (by_point.transpose(-1, -2) @ terms.residual[..., None])[..., 0]
    m = terms.factor[..., None, None] * (by_point.transpose(-1, -2) @ by_point)
    m = m + 2 * slope[..., None, None] * pulled[..., :, None] * pulled[..., None, :]
    gradient = _pulled_back(problem, terms)
    m = m + _projection_curvature(x, gradient)
    return _by_step(x, m) + _turning(x, gradient)


def _pulled_back(problem: PoseProblem, terms: PoseResiduals) -> Tensor:
    """``g_i = factor_i P_iᵀ r_i``: half the derivative of each term by its camera point."""
    x, y, z = terms.points_cam.unbind(-1)
    by_plane = terms.factor[..., None] * terms.residual * problem.camera.focal_px[..., None, :]
    g_x, g_y = (by_plane / z[..., None]).unbind(-1)
    return torch.stack([g_x, g_y, -(g_x * x + g_y * y) / z], dim=-1)


def _projection_curvature(x: Tensor, g: Tensor) -> Tensor:
    """``factor sum_k r_k d²pixel_k/dx²`` from ``g``: only the depth bends the projection."""
    inverse = 1 / x[..., 2]
    zero = torch.zeros_like(inverse)
    xz, yz, zz = (-inverse * g[..., 0], -inverse * g[..., 1], -2 * inverse * g[..., 2])
    return torch.stack([zero, zero, xz, zero, zero, yz, xz, yz, zz], dim=-1).unflatten(-1, (3, 3))


def _by_step(x: Tensor, m: Tensor) -> Tensor:
    """``sum_i A_iᵀ M_i A_i`` with ``A = [I | -hat(x)]``, whose rotation rows are ``x ×``."""
    columns = torch.linalg.cross(x[..., None, :], m, dim=-1)  # row j: x × m_j, the product -m_j hat(x)
    corner = torch.linalg.cross(x[..., :, None], columns, dim=-2).sum(-3)
    columns = columns.sum(-3)
    upper = torch.cat([m.sum(-3), columns], dim=-1)
    lower = torch.cat([columns.transpose(-1, -2), corner], dim=-1)
    return torch.cat([upper, lower], dim=-2)


def _turning(x: Tensor, g: Tensor) -> Tensor:
    """``sum_i gᵀ d²x/d rotation²``: a rotation r moves x by ``r × x + r × (r × x) / 2``."""
    outer = x.transpose(-1, -2) @ g
    trace = outer.diagonal(dim1=-2, dim2=-1).sum(-1)
    eye = torch.eye(3, dtype=x.dtype, device=x.device)
    block = (outer + outer.transpose(-1, -2)) / 2 - trace[..., None, None] * eye
    return torch.nn.functional.pad(block, (3, 0, 3, 0))
