"""Simpler explanations of a pair's matches: a turn about the camera's centre, and a plane.

Both are homographies, ``x_b ~ H x_a``. A pair that a rotation explains has no parallax; one that a plane
explains may have two relative poses. How many matches they explain tells whether to trust a relative pose.
"""

import pypose as pp
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from acezero_gpu.geometry import hat
from acezero_gpu.ransac.epipolar import gather_matches, homogeneous, sample_matches

REFITS = 3
"""Least-squares fits to the inliers of the best sample, each with the inliers of the one before."""


def transfer_squared(
    homography: Float[Tensor, "b m 3 3"], rays_a: Float[Tensor, "b n 2"], rays_b: Float[Tensor, "b n 2"]
) -> Float[Tensor, "b m n"]:
    """Squared Sampson distance to ``H``: to first order, how far the four coordinates must move to fit.

    ``eᵀ (I + A Aᵀ)⁻¹ e`` with ``e = x_b - π(H x_a)`` and ``A = d π(H x_a) / d x_a``; infinite behind it.
    Comparable with the Sampson distance to an essential matrix, which constrains one coordinate of these two.
    """
    mapped = homogeneous(rays_a)[:, None] @ homography.transpose(-1, -2)
    depth = mapped[..., 2:]
    front = depth[..., 0] > torch.finfo(depth.dtype).eps
    inverse = 1 / torch.where(front[..., None], depth, 1.0)
    projected = mapped[..., :2] * inverse
    error = rays_b[:, None] - projected
    # A = (H[:2, :2] - π h3[:2]ᵀ) / depth
    rows = homography[:, :, None, :2, :2] - projected[..., None] * homography[:, :, None, 2:, :2]
    rows = rows * inverse[..., None]
    first, second = rows.unbind(-2)
    xx = 1 + first.square().sum(-1)
    yy = 1 + second.square().sum(-1)
    xy = (first * second).sum(-1)
    ex, ey = error.unbind(-1)
    squared = (ex.square() * yy - 2 * ex * ey * xy + ey.square() * xx) / (xx * yy - xy.square())
    return torch.where(front & torch.isfinite(squared), squared, torch.inf)


def count_rotation_inliers(
    rays_a: Float[Tensor, "b n 2"],
    rays_b: Float[Tensor, "b n 2"],
    mask: Bool[Tensor, "b n"],
    sample_from: Bool[Tensor, "b n"],
    few: Int[Tensor, "b k"],
    max_error: float,
    uniform: Float[Tensor, "b h 2"],
) -> Int[Tensor, " b"]:
    """Matches within ``max_error`` of the best pure rotation: two-match samples scored on ``few``, refits."""
    slots = sample_matches(sample_from, uniform)
    frame_a = _frame(gather_matches(rays_a, slots))
    frame_b = _frame(gather_matches(rays_b, slots))
    rotation, inliers = _best(frame_b @ frame_a.transpose(-1, -2), rays_a, rays_b, mask, few, max_error)
    a, b = (torch.nn.functional.normalize(homogeneous(rays), dim=-1) for rays in (rays_a, rays_b))
    count = inliers.sum(-1)
    for _ in range(REFITS):
        # Gauss-Newton on Σ |b - exp(w) R a|², whose derivative by w is [R a]×
        turned = a @ rotation.transpose(-1, -2)
        jacobian = hat(turned) * inliers[..., None, None]
        error = b - turned
        eye = torch.eye(3, dtype=a.dtype, device=a.device)
        hessian = (jacobian.transpose(-1, -2) @ jacobian).sum(1) + 1e-12 * eye
        gradient = -(jacobian.transpose(-1, -2) @ error[..., None])[..., 0].sum(1)
        step, _ = torch.linalg.solve_ex(hessian, gradient)
        rotation = pp.so3(torch.nan_to_num(step, 0.0, 0.0, 0.0)).Exp().matrix() @ rotation
        inliers = mask & (transfer_squared(rotation[:, None], rays_a, rays_b)[:, 0] < max_error**2)
        count = torch.maximum(count, inliers.sum(-1))
    return count


def count_homography_inliers(
    rays_a: Float[Tensor, "b n 2"],
    rays_b: Float[Tensor, "b n 2"],
    mask: Bool[Tensor, "b n"],
    sample_from: Bool[Tensor, "b n"],
    few: Int[Tensor, "b k"],
    max_error: float,
    uniform: Float[Tensor, "b h 4"],
) -> Int[Tensor, " b"]:
    """Matches within ``max_error`` of the best homography: four-match samples scored on ``few``, refits."""
    slots = sample_matches(sample_from, uniform)
    basis_a = _projective_basis(gather_matches(rays_a, slots))
    basis_b = _projective_basis(gather_matches(rays_b, slots))
    samples = basis_b @ _adjugate(basis_a)
    # the sign that maps the first sampled ray to a positive depth
    first = homogeneous(gather_matches(rays_a, slots)[..., 0, :])
    samples = samples * (samples[..., 2, :] * first).sum(-1).sign()[..., None, None]
    samples = samples / samples.flatten(-2).norm(dim=-1).clamp_min(1e-30)[..., None, None]
    homography, inliers = _best(samples, rays_a, rays_b, mask, few, max_error)
    count = inliers.sum(-1)
    for _ in range(REFITS):
        homography = _fit_homography(homography, rays_a, rays_b, inliers)
        inliers = mask & (transfer_squared(homography[:, None], rays_a, rays_b)[:, 0] < max_error**2)
        count = torch.maximum(count, inliers.sum(-1))
    return count


def _best(
    models: Float[Tensor, "b m 3 3"],
    rays_a: Float[Tensor, "b n 2"],
    rays_b: Float[Tensor, "b n 2"],
    mask: Bool[Tensor, "b n"],
    few: Int[Tensor, "b k"],
    max_error: float,
) -> tuple[Float[Tensor, "b 3 3"], Bool[Tensor, "b n"]]:
    usable = torch.isfinite(models).flatten(-2).all(-1)
    models = torch.where(usable[..., None, None], models, 0.0)
    few_a, few_b = (gather_matches(rays, few[:, None])[:, 0] for rays in (rays_a, rays_b))
    relative = transfer_squared(models, few_a, few_b) / max_error**2
    gain = ((1 - relative).clamp_min(0.0) * mask.gather(1, few)[:, None]).sum(-1)
    best = models[torch.arange(len(models), device=models.device), gain.argmax(1)]
    return best, mask & (transfer_squared(best[:, None], rays_a, rays_b)[:, 0] < max_error**2)


def _frame(rays: Float[Tensor, "b h 2 2"]) -> Float[Tensor, "b h 3 3"]:
    """An orthonormal frame of two rays: their middle, across them, and the rest."""
    first, second = torch.nn.functional.normalize(homogeneous(rays), dim=-1).unbind(-2)
    x = torch.nn.functional.normalize(first + second, dim=-1)
    z = torch.nn.functional.normalize(torch.linalg.cross(first, second), dim=-1)
    return torch.stack([x, torch.linalg.cross(z, x), z], dim=-1)


def _projective_basis(rays: Float[Tensor, "b h 4 2"]) -> Float[Tensor, "b h 3 3"]:
    """Maps the canonical projective basis to four rays: columns ``λᵢ xᵢ`` that add up to ``x₄``."""
    points = homogeneous(rays)
    columns = points[..., :3, :].transpose(-1, -2)
    scales = (_adjugate(columns) @ points[..., 3, :, None])[..., 0]
    return columns * scales[..., None, :]


def _adjugate(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The inverse times the determinant: all that a homography's inverse needs."""
    a, b, c = matrix.unbind(-1)
    cross = torch.linalg.cross
    return torch.stack([cross(b, c), cross(c, a), cross(a, b)], dim=-2)


def _fit_homography(
    start: Float[Tensor, "b 3 3"],
    rays_a: Float[Tensor, "b n 2"],
    rays_b: Float[Tensor, "b n 2"],
    inliers: Bool[Tensor, "b n"],
) -> Float[Tensor, "b 3 3"]:
    """Weighted linear fit, rows divided by the depths that ``start`` gives; ``h₃₃`` of ``start`` is kept.

    Where the fit is singular, ``start`` is returned.
    """
    a = homogeneous(rays_a)
    depth = (a * start[:, None, 2]).sum(-1)
    weight = inliers / torch.where(inliers, depth, 1.0)
    zero = torch.zeros_like(a)
    u, v = rays_b[..., :1], rays_b[..., 1:]
    rows = torch.stack([torch.cat([a, zero, -u * a], -1), torch.cat([zero, a, -v * a], -1)], dim=2)
    rows = (rows * weight[..., None, None]).flatten(1, 2)
    matrix, target = rows[..., :8], -rows[..., 8:] * start[:, 2, 2, None, None]
    solution, _ = torch.linalg.solve_ex(matrix.transpose(1, 2) @ matrix, matrix.transpose(1, 2) @ target)
    fitted = torch.cat([solution[..., 0], start[:, 2, 2, None]], dim=-1).unflatten(-1, (3, 3))
    usable = torch.isfinite(fitted).flatten(1).all(-1)
    return torch.where(usable[:, None, None], fitted, start)
