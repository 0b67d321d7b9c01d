"""World points from their images in two or more posed cameras, batched."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from acezero_gpu.geometry.pose import camera_centres
from acezero_gpu.geometry.reprojection import MIN_DEPTH

REFINEMENT_STEPS = 4
"""Levenberg-Marquardt steps after the closed form. In float64 more of them change 99 of 100 points by less
than 1e-5 of the points' own error, where rays differ by half a degree or more; float32 rounds by more."""

Reduce = Callable[[Tensor], Tensor]
"""Sums a quantity per observation into one per point."""


@dataclass(frozen=True, slots=True)
class Triangulation:
    """One row per point."""

    points: Float[Tensor, "p 3"]
    """World coordinates; finite, but without meaning where not ``valid``."""
    valid: Bool[Tensor, " p"]
    """At least two views, a unique solution, and in front of every view that sees it."""
    angle_deg: Float[Tensor, " p"]
    """Largest angle between two of the rays; 0 with fewer than two views. Small means uncertain depth."""
    residual: Float[Tensor, " p"]
    """Root mean square over the views of the reprojection error, in normalised image units."""


def triangulate(
    normalised: Float[Tensor, "p v 2"],
    cam_from_world: Float[Tensor, "p v 3 4"],
    mask: Bool[Tensor, "p v"] | None = None,
) -> Triangulation:
    """The point of least squared reprojection error, from normalised image coordinates ``(x/z, y/z)``.

    Starts where the squared distance to the rays is least (the midpoint: ``Σ (I - d dᵀ)(X - c) = 0``), then
    minimises ``Σ |π(R X + t) - x|²`` by Levenberg-Marquardt; both solve 3x3 systems only (Hartley &
    Zisserman, ch. 12). Observations outside ``mask`` have no influence, whatever they hold. A point with
    parallel rays (below 0.1 degrees in float32), too few views or a solution behind a camera is not ``valid``
    and leaves the others untouched.
    """
    points, views = normalised.shape[:2]
    if mask is None:
        mask = torch.ones(points, views, dtype=torch.bool, device=normalised.device)
    clean = torch.where(mask[..., None], normalised, 0.0)
    cameras = torch.where(mask[..., None, None], cam_from_world, _identity(cam_from_world))
    rays = _world_rays(clean, cameras)
    solution, valid, residual = _solve(
        clean.flatten(0, 1),
        cameras.flatten(0, 1),
        mask.flatten(),
        torch.arange(points, device=mask.device).repeat_interleave(views),
        lambda quantity: quantity.unflatten(0, (points, views)).sum(1),
        REFINEMENT_STEPS,
    )
    chord = (rays[:, :, None] - rays[:, None]).square().sum(-1) * (mask[:, :, None] & mask[:, None])
    widest = chord.flatten(1).amax(1) if views else chord.new_zeros(points)
    return Triangulation(solution, valid, _angle_of_chord_deg(widest), residual)


def triangulate_tracks(
    view_index: Int[Tensor, " k"],
    point_index: Int[Tensor, " k"],
    normalised: Float[Tensor, "k 2"],
    cam_from_world: Float[Tensor, "v 3 4"],
    num_points: int,
    *,
    refinement_steps: int = REFINEMENT_STEPS,
) -> Triangulation:
    """``triangulate`` for tracks of any length: observation k shows ``point_index[k]`` in ``view_index[k]``.

    Observations may come in any order, and points without any are not ``valid``. A view counts once for each
    of its observations. ``angle_deg`` is found in two sweeps (the ray farthest from the mean ray, then the
    ray farthest from that one), which is exact for two views and never above the true largest angle.

    With fewer ``refinement_steps`` points are nearer to the start of the minimisation: enough for what is adjusted
    afterwards.
    """
    cameras = cam_from_world[view_index]

    def reduce(quantity: Tensor) -> Tensor:
        return quantity.new_zeros(num_points, *quantity.shape[1:]).index_add(0, point_index, quantity)

    everything = torch.ones_like(point_index, dtype=torch.bool)
    solution, valid, residual = _solve(normalised, cameras, everything, point_index, reduce, refinement_steps)
    rays = _world_rays(normalised, cameras)
    mean_ray = torch.nn.functional.normalize(reduce(rays), dim=-1)
    _, end = _farthest(rays, mean_ray, point_index)
    widest, _ = _farthest(rays, end, point_index)
    return Triangulation(solution, valid, _angle_of_chord_deg(widest), residual)


def _solve(
    normalised: Float[Tensor, "k 2"],
    cameras: Float[Tensor, "k 3 4"],
    mask: Bool[Tensor, " k"],
    point_index: Int[Tensor, " k"],
    reduce: Reduce,
    refinement_steps: int,
) -> tuple[Float[Tensor, "p 3"], Bool[Tensor, " p"], Float[Tensor, " p"]]:
    """Points, whether they are valid, and their root mean square residual."""
    weight = mask.to(normalised.dtype)
    views = reduce(weight)
    # Coordinates relative to the mean camera keep digits when the world's origin is far away.
    centres = camera_centres(cameras)
    origin = reduce(weight[:, None] * centres) / views.clamp_min(1.0)[:, None]
    cameras = torch.cat(
        [cameras[..., :3], _shifted_translation(cameras, origin[point_index])[..., None]], dim=-1
    )
    points, unique = _nearest_to_rays(
        _world_rays(normalised, cameras), centres - origin[point_index], weight, point_index, reduce
    )
    points, cost = _refine(points, normalised, cameras, weight, point_index, reduce, refinement_steps)
    depth = _to_camera(points, cameras, point_index)[..., 2]
    behind = reduce((mask & (depth <= MIN_DEPTH)).to(weight.dtype))
    valid = unique & (views >= 2) & (behind == 0) & torch.isfinite(points).all(-1)
    points = torch.where(torch.isfinite(points), points, 0.0) + origin
    return points, valid, (cost / views.clamp_min(1.0)).sqrt()


def _nearest_to_rays(
    rays: Float[Tensor, "k 3"],
    centres: Float[Tensor, "k 3"],
    weight: Float[Tensor, " k"],
    point_index: Int[Tensor, " k"],
    reduce: Reduce,
) -> tuple[Float[Tensor, "p 3"], Bool[Tensor, " p"]]:
    """The point nearest to all rays, twice: the second time a ray counts by angle, not by distance.

    The smallest eigenvalue of ``Σ (I - d dᵀ)`` goes to zero with the parallax; its determinant tells.
    """
    across = torch.eye(3, dtype=rays.dtype, device=rays.device) - rays[:, :, None] * rays[:, None, :]
    normal = reduce(weight[:, None, None] * across)
    views = reduce(weight).clamp_min(1.0)
    unique = torch.linalg.det(normal / views[:, None, None]) > 4 * torch.finfo(rays.dtype).eps
    points = _solve_3x3(normal, reduce(weight[:, None] * _matvec(across, centres)), unique)
    squared_distance = (points[point_index] - centres).square().sum(-1)
    nearest = torch.finfo(rays.dtype).eps * reduce(weight * squared_distance) / views
    by_angle = weight / torch.maximum(squared_distance, nearest[point_index]).clamp_min(
        torch.finfo(rays.dtype).tiny
    )
    by_angle = by_angle / (reduce(by_angle) / views).clamp_min(torch.finfo(rays.dtype).tiny)[point_index]
    normal = reduce(by_angle[:, None, None] * across)
    return _solve_3x3(normal, reduce(by_angle[:, None] * _matvec(across, centres)), unique), unique


def _refine(
    points: Float[Tensor, "p 3"],
    normalised: Float[Tensor, "k 2"],
    cameras: Float[Tensor, "k 3 4"],
    weight: Float[Tensor, " k"],
    point_index: Int[Tensor, " k"],
    reduce: Reduce,
    steps: int,
) -> tuple[Float[Tensor, "p 3"], Float[Tensor, " p"]]:
    """Levenberg-Marquardt on the squared reprojection error, which no step raises; also its final value."""
    damping = torch.full_like(points[:, 0], 1e-4)
    residuals, jacobian = _linearise(points, normalised, cameras, point_index)
    cost = reduce(weight * residuals.square().sum(-1))
    for _ in range(steps):
        weighted = weight[:, None, None] * jacobian
        hessian = reduce(weighted.transpose(1, 2) @ jacobian)
        gradient = reduce(_matvec(weighted.transpose(1, 2), residuals))
        diagonal = hessian.diagonal(dim1=1, dim2=2)
        damped = hessian + torch.diag_embed(damping[:, None] * diagonal)
        trial = points - _solve_3x3(damped, gradient, torch.isfinite(cost))
        trial_residuals, trial_jacobian = _linearise(trial, normalised, cameras, point_index)
        trial_cost = reduce(weight * trial_residuals.square().sum(-1))
        better = trial_cost < cost
        points = torch.where(better[:, None], trial, points)
        cost = torch.where(better, trial_cost, cost)
        damping = torch.where(better, damping * 0.1, damping * 10)
        taken = better[point_index]
        residuals = torch.where(taken[:, None], trial_residuals, residuals)
        jacobian = torch.where(taken[:, None, None], trial_jacobian, jacobian)
    return points, cost


def _linearise(
    points: Float[Tensor, "p 3"],
    normalised: Float[Tensor, "k 2"],
    cameras: Float[Tensor, "k 3 4"],
    point_index: Int[Tensor, " k"],
) -> tuple[Float[Tensor, "k 2"], Float[Tensor, "k 2 3"]]:
    """``π(R X + t) - x`` and its derivative by X; depths are clamped at ``MIN_DEPTH``."""
    in_camera = _to_camera(points, cameras, point_index)
    inverse_depth = 1.0 / in_camera[..., 2:].clamp_min(MIN_DEPTH)
    projected = in_camera[..., :2] * inverse_depth
    rotation = cameras[..., :3]
    jacobian = inverse_depth[..., None] * (rotation[..., :2, :] - projected[..., None] * rotation[..., 2:, :])
    return projected - normalised, jacobian


def _to_camera(
    points: Float[Tensor, "p 3"], cameras: Float[Tensor, "k 3 4"], point_index: Int[Tensor, " k"]
) -> Float[Tensor, "k 3"]:
    return _matvec(cameras[..., :3], points[point_index]) + cameras[..., 3]


def _world_rays(
    normalised: Float[Tensor, "*batch 2"], cameras: Float[Tensor, "*batch 3 4"]
) -> Float[Tensor, "*batch 3"]:
    """Unit directions of the observations' rays, in world axes."""
    rays = torch.cat([normalised, torch.ones_like(normalised[..., :1])], dim=-1)
    return torch.nn.functional.normalize(_matvec(cameras[..., :3].transpose(-1, -2), rays), dim=-1)


def _farthest(
    rays: Float[Tensor, "k 3"], reference: Float[Tensor, "p 3"], point_index: Int[Tensor, " k"]
) -> tuple[Float[Tensor, " p"], Float[Tensor, "p 3"]]:
    """Per point, the squared chord from the reference direction to the farthest of its rays, and that ray."""
    chord = (rays - reference[point_index]).square().sum(-1)
    widest = torch.zeros_like(reference[:, 0]).scatter_reduce(
        0, point_index, chord, "amax", include_self=True
    )
    order = torch.arange(len(rays), device=rays.device)
    candidates = torch.where(chord == widest[point_index], order, len(rays))
    none = torch.full((len(reference),), len(rays), device=rays.device)
    first = none.scatter_reduce(0, point_index, candidates, "amin", include_self=True)
    padded = torch.cat([rays, rays.new_zeros(1, 3)])
    return widest, padded[first]


def _angle_of_chord_deg(squared_chord: Float[Tensor, " p"]) -> Float[Tensor, " p"]:
    """Angle between unit vectors from their distance: exact for small angles, where the arc cosine is not."""
    return torch.rad2deg(2 * torch.asin((0.5 * squared_chord.sqrt()).clamp(0.0, 1.0)))


def _shifted_translation(
    cameras: Float[Tensor, "k 3 4"], origin: Float[Tensor, "k 3"]
) -> Float[Tensor, "k 3"]:
    """Translation of the cameras when world coordinates are taken relative to ``origin``."""
    return _matvec(cameras[..., :3], origin) + cameras[..., 3]


def _solve_3x3(
    matrix: Float[Tensor, "p 3 3"], vector: Float[Tensor, "p 3"], solvable: Bool[Tensor, " p"]
) -> Float[Tensor, "p 3"]:
    """Solutions; 0 where ``solvable`` is false, and never an exception."""
    safe = torch.where(
        solvable[:, None, None], matrix, torch.eye(3, dtype=matrix.dtype, device=matrix.device)
    )
    solution, _ = torch.linalg.solve_ex(safe, vector[..., None])
    return torch.where(solvable[:, None], solution[..., 0], 0.0)


def _matvec(
    matrix: Float[Tensor, "*batch n m"], vector: Float[Tensor, "*batch m"]
) -> Float[Tensor, "*batch n"]:
    return (matrix @ vector[..., None])[..., 0]


def _identity(cameras: Tensor) -> Tensor:
    return torch.eye(3, 4, dtype=cameras.dtype, device=cameras.device)
