"""Two calibrated views: essential matrices from five matches, their errors, poses and refinement.

``x_bᵀ E x_a = 0`` with ``E = [t]× R`` and ``b_from_a = [R | t]``, for rays ``x = (x/z, y/z, 1)``. The scale
of ``t`` cannot be seen; it is fixed to 1.
"""

from dataclasses import dataclass

import pypose as pp
import torch
from jaxtyping import Bool, Float, Int
from kornia.geometry.epipolar import find_essential
from torch import Tensor

from acezero_gpu.geometry import hat, orthonormalise
from acezero_gpu.pnp.robust_loss import RobustLoss

MIN_MATCHES = 5
SOLUTION_SLOTS = 6


def homogeneous(rays: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch 3"]:
    """``(x, y, 1)``."""
    return torch.cat([rays, torch.ones_like(rays[..., :1])], dim=-1)


def sample_matches(mask: Bool[Tensor, "b n"], uniform: Float[Tensor, "b h size"]) -> Int[Tensor, "b h size"]:
    """Slots of ``h`` samples without replacement among those in ``mask``, from uniform draws in [0, 1).

    A pair with fewer matches than a sample needs gets repeated or unmasked slots; the caller rejects it.
    """
    order = torch.argsort(mask.logical_not().to(torch.uint8), dim=1, stable=True)
    count = mask.sum(1)[:, None]
    chosen: list[Tensor] = []
    for position in range(uniform.shape[-1]):
        left = (count - position).clamp_min(1)
        rank = (uniform[..., position] * left).long().minimum(left - 1)
        # the rank-th of those not taken yet: step over the taken ones, lowest first
        for taken in torch.stack(chosen, -1).sort(-1).values.unbind(-1) if chosen else ():
            rank = rank + (rank >= taken)
        chosen.append(rank)
    ranks = torch.stack(chosen, -1).clamp(0, mask.shape[1] - 1)
    return order[:, None, :].expand(-1, ranks.shape[1], -1).gather(2, ranks)


def gather_matches(
    rays: Float[Tensor, "b n 2"], slots: Int[Tensor, "b h size"]
) -> Float[Tensor, "b h size 2"]:
    """The rays in those slots."""
    b, h, size = slots.shape
    return rays.gather(1, slots.flatten(1)[..., None].expand(-1, -1, 2)).view(b, h, size, 2)


def essential_hypotheses(
    rays_a: Float[Tensor, "b h 5 2"], rays_b: Float[Tensor, "b h 5 2"]
) -> tuple[Float[Tensor, "b m 3 3"], Bool[Tensor, "b m"]]:
    """Essential matrices of five matches each (Nistér, PAMI 2004, by kornia), and which slots hold one.

    A sample has up to ten real solutions, on average about four; six slots are kept, the first that are real.
    The roots of the degree-ten polynomial come from LAPACK: on CUDA one copy to the host and back per call.
    """
    b, h = rays_a.shape[:2]
    solutions = find_essential(rays_a.flatten(0, 1).double(), rays_b.flatten(0, 1).double())
    real = torch.isfinite(solutions[..., 0, 0])
    kept = real.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :SOLUTION_SLOTS]
    real = real.gather(1, kept)
    solutions = solutions.gather(1, kept[..., None, None].expand(-1, -1, 3, 3))
    solutions = torch.where(real[..., None, None], solutions, 0.0)
    return solutions.reshape(b, h * SOLUTION_SLOTS, 3, 3), real.reshape(b, h * SOLUTION_SLOTS)


@dataclass(frozen=True, slots=True)
class MatchMoments:
    """Products of coordinates, in which all epipolar quantities are linear: one matrix product each."""

    bilinear: Float[Tensor, "b n 9"]
    """``x_b x_aᵀ``, row by row: ``x_bᵀ E x_a`` is its dot product with ``E``."""
    quadratic: Float[Tensor, "b n 18"]
    """``x_a x_aᵀ`` and ``x_b x_bᵀ``, for the squared lengths of epipolar lines."""

    @classmethod
    def of(cls, rays_a: Float[Tensor, "b n 2"], rays_b: Float[Tensor, "b n 2"]) -> "MatchMoments":
        """Moments of normalised image coordinates."""
        a, b = homogeneous(rays_a), homogeneous(rays_b)
        quadratic = torch.cat([_outer(a, a), _outer(b, b)], dim=-1)
        return cls(_outer(b, a), quadratic)

    def take(self, slots: Int[Tensor, "b k"]) -> "MatchMoments":
        """The matches in these slots."""
        return MatchMoments(
            self.bilinear.gather(1, slots[..., None].expand(-1, -1, 9)),
            self.quadratic.gather(1, slots[..., None].expand(-1, -1, 18)),
        )

    def float(self) -> "MatchMoments":
        """In float32, for screening."""
        return MatchMoments(self.bilinear.float(), self.quadratic.float())


def sampson_squared(essential: Float[Tensor, "b m 3 3"], moments: MatchMoments) -> Float[Tensor, "b m n"]:
    """Squared Sampson distance: to first order, how far the four coordinates must move to fit ``E``.

    ``(x_bᵀ E x_a)² / ((E x_a)₁² + (E x_a)₂² + (Eᵀ x_b)₁² + (Eᵀ x_b)₂²)`` (Hartley & Zisserman, eq. 11.9).
    """
    algebraic = essential.flatten(-2) @ moments.bilinear.transpose(1, 2)
    slope = _line_form(essential, essential) @ moments.quadratic.transpose(1, 2)
    return algebraic.square_().div_(slope.clamp_min_(torch.finfo(slope.dtype).eps ** 2))


def essential_matrix(b_from_a: Float[Tensor, "*batch 3 4"]) -> Float[Tensor, "*batch 3 3"]:
    """``[t]× R``."""
    return hat(b_from_a[..., 3]) @ b_from_a[..., :3]


def poses_of_essential(essential: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 4 3 4"]:
    """The four poses with unit translation that share an essential matrix, without an SVD.

    ``t tᵀ = ½ tr(E Eᵀ) I - E Eᵀ`` and ``|t|² R = cof(E) ∓ [t]× E`` (Horn, 1990).
    """
    gram = essential @ essential.transpose(-1, -2)
    trace = gram.diagonal(dim1=-1, dim2=-2).sum(-1)
    outer = 0.5 * trace[..., None, None] * torch.eye(3, dtype=gram.dtype, device=gram.device) - gram
    diagonal = outer.diagonal(dim1=-1, dim2=-2)
    largest = diagonal.argmax(-1, keepdim=True)
    column = outer.gather(-1, largest[..., None].expand(*outer.shape[:-1], 1))[..., 0]
    t = column / diagonal.gather(-1, largest).clamp_min(torch.finfo(gram.dtype).tiny).sqrt()
    e0, e1, e2 = essential.unbind(-2)
    cross = torch.linalg.cross
    cofactors = torch.stack([cross(e1, e2), cross(e2, e0), cross(e0, e1)], dim=-2)
    twist = hat(t) @ essential
    rotations = orthonormalise(torch.stack([cofactors - twist, cofactors + twist], dim=-3))
    unit = torch.nn.functional.normalize(t, dim=-1)
    rotation = torch.cat([rotations, rotations], dim=-3)
    translation = torch.stack([unit, unit, -unit, -unit], dim=-2)
    return torch.cat([rotation, translation[..., None]], dim=-1)


def in_front(
    b_from_a: Float[Tensor, "b m 3 4"],
    rays_a: Float[Tensor, "b n 2"],
    rays_b: Float[Tensor, "b n 2"],
    max_error: float,
) -> Bool[Tensor, "b m n"]:
    """Whether the rays of a match meet in front of both cameras.

    Rays that are parallel to within ``max_error`` meet far away, on a side that noise decides; they pass as
    long as they point the same way.
    """
    a, b = homogeneous(rays_a), homogeneous(rays_b)
    rotation, t = b_from_a[..., :3], b_from_a[..., 3]
    dot = rotation.flatten(-2) @ _outer(b, a).transpose(1, 2)
    along_a = (t[..., None, :] @ rotation)[..., 0, :] @ a.transpose(1, 2)
    along_b = t @ b.transpose(1, 2)
    squared_a = a.square().sum(-1)[:, None]
    squared_b = b.square().sum(-1)[:, None]
    # least squares of depth_b x_b = depth_a R x_a + t, times the (positive) determinant
    depth_a = along_b * dot - along_a * squared_b
    depth_b = along_b * squared_a - along_a * dot
    parallel = (squared_a * squared_b - dot.square()) < max_error**2 * squared_a * squared_b
    return ((depth_a > 0) & (depth_b > 0)) | (parallel & (dot > 0))


def ray_angle_deg(
    b_from_a: Float[Tensor, "b 3 4"], rays_a: Float[Tensor, "b n 2"], rays_b: Float[Tensor, "b n 2"]
) -> Float[Tensor, "b n"]:
    """Triangulation angle of every match: between ``R x_a`` and ``x_b``."""
    turned = torch.nn.functional.normalize(homogeneous(rays_a) @ b_from_a[..., :3].transpose(-1, -2), dim=-1)
    chord = (turned - torch.nn.functional.normalize(homogeneous(rays_b), dim=-1)).norm(dim=-1)
    return torch.rad2deg(2 * torch.asin((0.5 * chord).clamp_max(1.0)))


def refine_relative_pose(
    b_from_a: Float[Tensor, "b m 3 4"],
    moments: MatchMoments,
    mask: Bool[Tensor, "b m n"],
    loss: RobustLoss,
    scale: float,
    iterations: int,
) -> Float[Tensor, "b m 3 4"]:
    """Levenberg-Marquardt over the five degrees of freedom on ``Σ loss(Sampson distance)``.

    ``R ← exp(w) R`` and ``t`` moves on the unit sphere. Weights are taken anew at every step, and a step that
    does not lower the sum is not made.
    """
    damping = torch.full_like(b_from_a[..., 0, 0], 1e-3)
    residual, jacobian = _linearise(b_from_a, moments)
    cost = (loss.loss(residual.square(), scale) * mask).sum(-1)
    eye = torch.eye(5, dtype=b_from_a.dtype, device=b_from_a.device)
    for _ in range(iterations):
        weight = loss.weight(residual.square(), scale) * mask
        weighted = weight[..., None] * jacobian
        hessian = weighted.transpose(-1, -2) @ jacobian
        gradient = weighted.transpose(-1, -2) @ residual[..., None]
        diagonal = hessian.diagonal(dim1=-1, dim2=-2)
        lift = damping[..., None] * diagonal + 1e-12 * diagonal.sum(-1, keepdim=True)
        damped = hessian + lift[..., None] * eye
        step, _ = torch.linalg.solve_ex(damped, -gradient)
        trial = _step(b_from_a, torch.nan_to_num(step[..., 0], 0.0, 0.0, 0.0))
        trial_residual, trial_jacobian = _linearise(trial, moments)
        trial_cost = (loss.loss(trial_residual.square(), scale) * mask).sum(-1)
        better = trial_cost < cost
        b_from_a = torch.where(better[..., None, None], trial, b_from_a)
        cost = torch.where(better, trial_cost, cost)
        damping = torch.where(better, damping * 0.1, damping * 10)
        residual = torch.where(better[..., None], trial_residual, residual)
        jacobian = torch.where(better[..., None, None], trial_jacobian, jacobian)
    return b_from_a


def _tangent(t: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 2"]:
    """Two unit vectors across ``t``."""
    axes = torch.eye(3, dtype=t.dtype, device=t.device)
    first = torch.nn.functional.normalize(torch.linalg.cross(t, axes[t.abs().argmin(-1)]), dim=-1)
    return torch.stack([first, torch.linalg.cross(t, first)], dim=-1)


def _step(b_from_a: Float[Tensor, "b m 3 4"], step: Float[Tensor, "b m 5"]) -> Float[Tensor, "b m 3 4"]:
    rotation = pp.so3(step[..., :3]).Exp().matrix() @ b_from_a[..., :3]
    t = b_from_a[..., 3] + (_tangent(b_from_a[..., 3]) @ step[..., 3:, None])[..., 0]
    return torch.cat([rotation, torch.nn.functional.normalize(t, dim=-1)[..., None]], dim=-1)


def _linearise(
    b_from_a: Float[Tensor, "b m 3 4"], moments: MatchMoments
) -> tuple[Float[Tensor, "b m n"], Float[Tensor, "b m n 5"]]:
    """Signed Sampson distance and its derivative by ``(w, step of t in its tangent plane)``.

    With ``c = x_bᵀ E x_a`` and ``g`` the denominator of the squared distance,
    ``dr = dc / √g - ½ c dg / g^{3/2}``.
    """
    rotation, t = b_from_a[..., :3], b_from_a[..., 3]
    generators = hat(torch.eye(3, dtype=t.dtype, device=t.device))
    by_rotation = hat(t)[..., None, :, :] @ generators @ rotation[..., None, :, :]
    by_translation = hat(_tangent(t).transpose(-1, -2)) @ rotation[..., None, :, :]
    essential = essential_matrix(b_from_a)[..., None, :, :]
    changes = torch.cat([essential, by_rotation, by_translation], dim=-3)
    forms = _line_form(essential, changes)
    c, dc = (moments.bilinear[:, None] @ changes.flatten(-2).transpose(-1, -2)).split([1, 5], dim=-1)
    g, half_dg = (moments.quadratic[:, None] @ forms.transpose(-1, -2)).split([1, 5], dim=-1)
    g = g.clamp_min(torch.finfo(g.dtype).eps ** 2)
    inverse_root = g.rsqrt()
    return (c * inverse_root)[..., 0], (dc - (c / g) * half_dg) * inverse_root


def _line_form(
    first: Float[Tensor, "*#batch 3 3"], second: Float[Tensor, "*#batch 3 3"]
) -> Float[Tensor, "*batch 18"]:
    """Coefficients of ``(F x_a)₁₂·(S x_a)₁₂ + (Fᵀ x_b)₁₂·(Sᵀ x_b)₁₂`` in ``MatchMoments.quadratic``."""
    in_b = first[..., :2, :].transpose(-1, -2) @ second[..., :2, :]
    in_a = first[..., :, :2] @ second[..., :, :2].transpose(-1, -2)
    return torch.cat([in_b.flatten(-2), in_a.flatten(-2)], dim=-1)


def _outer(first: Float[Tensor, "*batch 3"], second: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 9"]:
    return (first[..., :, None] * second[..., None, :]).flatten(-2)
