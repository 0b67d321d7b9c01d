"""Camera poses from world points that were also measured in the camera's frame, as by a depth sensor."""

from dataclasses import dataclass

import pypose as pp
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from acezero_gpu.geometry import hat, matrix_from_se3, orthonormalise
from acezero_gpu.pnp import PoseStatus
from acezero_gpu.ransac.hypotheses import Hypotheses
from acezero_gpu.ransac.result import (
    ACCEPTED_SCORE_LOSS,
    MIN_INLIERS,
    AbsolutePoseResult,
    concatenated,
    no_result,
    pose_status,
    se3_or_identity,
)
from acezero_gpu.ransac.sampling import ImageStreams, distinct_ranks, usable_first
from acezero_gpu.ransac.scoring import ScoreName, score_squared_errors
from acezero_gpu.runtime import chunk_ranges, chunk_size_for, random_stream

_NEVER_INLIER = 1e9
"""Distance of unusable correspondences, in thresholds: the hot loop needs no mask."""
_NEWTON_STEPS = 5
_CPU_BLOCK = 1 << 17
"""Distances computed at once on a CPU, where small temporaries stay in the caches."""


@dataclass(frozen=True, slots=True)
class RigidRansacConfig:
    """How poses are estimated from pairs of points."""

    samples: int = 4096
    """Minimal samples of three points drawn per image; drawing one costs little."""
    hypotheses: int = 64
    """Of these, the first whose triangles agree in both frames are scored on all points."""
    max_error: float = 0.1
    """A point is an inlier if its distance to its partner is below this, in the unit of the points."""
    score: ScoreName = "msac"
    """How hypotheses are compared; see ``score_hypotheses``, with distances in place of pixels."""
    refinement_rounds: int = 4
    """Least-squares fits of the best hypothesis to its inliers, which are selected anew in each."""
    max_chunk_bytes: int = 1 << 29
    """Images are worked on in chunks whose temporary memory stays below about this."""

    def __post_init__(self) -> None:
        for name in ("samples", "hypotheses"):
            if getattr(self, name) < 1:
                raise ValueError(f"RigidRansacConfig.{name} must be at least 1, got {getattr(self, name)}.")
        if not self.max_error > 0:
            raise ValueError(f"RigidRansacConfig.max_error must be positive, got {self.max_error}.")


@dataclass(frozen=True, slots=True)
class _Pairs:
    """World points and their partners in the camera's frame; unusable ones are neutralised."""

    world: Float[Tensor, "batch n 3"]
    cam: Float[Tensor, "batch n 3"]
    weights: Float[Tensor, "batch n"]
    usable: Bool[Tensor, "batch n"]


@torch.no_grad()
def estimate_rigid_pose(
    points: Tensor,
    points_cam: Tensor,
    config: RigidRansacConfig | None = None,
    *,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> AbsolutePoseResult:
    """The pose of each image from ``points_cam = R points + t`` (batch, n, 3) with outliers, by RANSAC.

    ``points`` are world points, ``points_cam`` the same points in the camera's frame and the same unit.
    ``mask`` (batch, n) tells which pairs may be used, ``weights`` (batch, n) how much each counts in the
    least squares. Left out are pairs that are not finite, whose weight is not positive, or whose depth is not
    positive: sensors write 0 where they measured none. Three pairs give a hypothesis by the triads of their
    triangles; only hypotheses whose triangles have equal sides (within twice the threshold) are scored, by the
    distances of all pairs. The best one is fitted to its inliers, and these are counted at the pose that is
    returned. ``camera`` of the result is None.

    Rotations are proper: a mirrored point set has no pose. Points on a line leave the pose open and give
    ``NO_HYPOTHESIS``; points on a plane do not. Failure, refusal and randomness are as in
    ``estimate_absolute_pose``.

    Reference: Brachmann and Rother, DSAC*, TPAMI 2021, its RGB-D mode; Kabsch, Acta Cryst. A32, 1976.
    Differs from DSAC*: samples are compared by their sides before any is scored, and no SVD is taken
    (PyTorch's waits for the device).
    """
    config = config or RigidRansacConfig()
    mask, weights = _checked(points, points_cam, mask, weights)
    generator = generator or random_stream(0, "rigid pose")
    batch, n = points.shape[:2]
    if batch == 0 or n < MIN_INLIERS:
        return no_result(points, None, PoseStatus.TOO_FEW_POINTS)
    working = points.element_size() * max(60 * config.samples, 5 * config.hypotheses * n)
    streams = ImageStreams.draw(batch, generator, points.device)
    parts = []
    for part in chunk_ranges(batch, chunk_size_for(working, config.max_chunk_bytes)):
        pairs = _pairs(points[part], points_cam[part], mask[part], weights[part], config.max_error)
        parts.append(_estimate(pairs, config, streams.images(part)))
    return concatenated(parts)


def _checked(
    points: Tensor, points_cam: Tensor, mask: Tensor | None, weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Mask and weights spelled out, or a ``ValueError`` that names what does not fit."""
    if points.dim() != 3 or points.shape[-1] != 3:
        raise ValueError(f"points must have the shape (batch, n, 3), got {tuple(points.shape)}.")
    if points.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"points must be float32 or float64, got {points.dtype}; convert them first.")
    batch, n = points.shape[:2]
    shape = (batch, n)
    if mask is None:
        mask = torch.ones(shape, dtype=torch.bool, device=points.device)
    if weights is None:
        weights = points.new_ones(shape)
    expected = (
        ("points_cam", points_cam, (batch, n, 3), points.dtype),
        ("mask", mask, shape, torch.bool),
        ("weights", weights, shape, points.dtype),
    )
    for name, value, right_shape, dtype in expected:
        if tuple(value.shape) != right_shape:
            raise ValueError(f"{name} must have the shape {right_shape}, got {tuple(value.shape)}.")
        if value.dtype != dtype or value.device != points.device:
            raise ValueError(
                f"{name} must be {dtype} on {points.device} to go with points, "
                f"got {value.dtype} on {value.device}."
            )
    return mask, weights


def _pairs(points: Tensor, points_cam: Tensor, mask: Tensor, weights: Tensor, max_error: float) -> _Pairs:
    """Sort out what can be used; a coordinate whose square would overflow counts as not finite."""
    largest = torch.finfo(points.dtype).max ** 0.5 / 100

    def within(value: Tensor) -> Tensor:
        return value.abs() < largest  # false for NaN

    usable = mask & within(points).all(-1) & within(points_cam).all(-1) & (points_cam[..., 2] > 0)
    usable = usable & within(weights) & (weights > 0)
    world = torch.where(usable[..., None], points, 0)
    cam = torch.where(usable[..., None], points_cam, _NEVER_INLIER * max_error)
    return _Pairs(world, cam, torch.where(usable, weights, 0), usable)


def _estimate(pairs: _Pairs, config: RigidRansacConfig, streams: ImageStreams) -> AbsolutePoseResult:
    """One chunk of images."""
    count = pairs.usable.sum(-1)
    uniform = streams.uniform(0, config.samples * 3)
    ranks = distinct_ranks(uniform.unflatten(1, (config.samples, 3)), count[:, None])
    indices = usable_first(pairs.usable).gather(1, ranks.flatten(1)).view_as(ranks)
    hypotheses = consistent_hypotheses(pairs.world, pairs.cam, indices, config.max_error, config.hypotheses)
    valid = hypotheses.valid & (count >= MIN_INLIERS)[:, None]
    scores = torch.where(valid, _scores(pairs, hypotheses.cam_from_world, config), -1)
    score, index = scores.max(dim=1)
    pose = hypotheses.cam_from_world.gather(1, index[:, None, None, None].expand(-1, 1, 3, 4))[:, 0]
    pose = _fitted_to_inliers(pairs, pose, score, config)
    return _result(pairs, pose, valid.any(-1), config)


def consistent_hypotheses(
    points: Float[Tensor, "batch n 3"],
    points_cam: Float[Tensor, "batch n 3"],
    samples: Int64[Tensor, "batch samples 3"],
    max_error: float,
    keep: int,
) -> Hypotheses:
    """Poses of the first ``keep`` samples whose triangles have equal sides in both frames, within
    ``2 max_error``: where all three pairs are inliers, no two sides can differ by more.

    Where too few samples pass, the least different ones follow. Triangles without an area give no valid
    hypothesis. The rotation turns the triad of one triangle (first edge, normal) onto that of the other.
    """
    drawn = samples.shape[1]

    def triangles(rows: Tensor) -> tuple[Tensor, Tensor]:
        corners = rows.gather(1, samples.flatten(1)[..., None].expand(-1, -1, 3)).unflatten(1, (drawn, 3))
        return corners, torch.stack([corners[:, :, i] - corners[:, :, i - 1] for i in range(3)], dim=2)

    corners, edges = triangles(points)
    corners_cam, edges_cam = triangles(points_cam)
    sides, sides_cam = edges.norm(dim=-1), edges_cam.norm(dim=-1)
    difference = (sides - sides_cam).abs().amax(-1)
    possible = _has_area(edges, sides) & _has_area(edges_cam, sides_cam)
    order = torch.arange(-drawn, 0, device=samples.device, dtype=points.dtype)
    key = torch.where(difference < 2 * max_error, order, difference)
    key, first = torch.where(possible, key, torch.inf).topk(min(keep, drawn), dim=1, largest=False)

    def kept(rows: Tensor) -> Tensor:
        return rows.gather(1, first[..., None, None].expand(-1, -1, 3, 3))

    world, cam = kept(edges).transpose(-1, -2), kept(edges_cam).transpose(-1, -2)
    rotation = orthonormalise(cam) @ orthonormalise(world).transpose(-1, -2)
    centre, centre_cam = kept(corners).mean(2), kept(corners_cam).mean(2)
    translation = centre_cam[..., None] - rotation @ centre[..., None]
    return Hypotheses(torch.cat([rotation, translation], dim=-1), key < torch.inf)


def _has_area(edges: Tensor, sides: Tensor) -> Tensor:
    """No two edges are parallel up to rounding; false if anything is not finite."""
    smallest_sine = 10 * torch.finfo(edges.dtype).eps ** 0.5
    normal = torch.linalg.cross(edges[..., 0, :], edges[..., 1, :]).norm(dim=-1)
    longest = sides.amax(-1)
    return (normal > smallest_sine * sides[..., 0] * sides[..., 1]) & (
        sides.amin(-1) > torch.finfo(edges.dtype).eps ** 0.5 * longest
    )


def _squared_distances(pairs: _Pairs, cam_from_world: Tensor) -> Float[Tensor, "batch m n"]:
    """``|R x + t - y|²`` of every pair under every pose."""
    moved = cam_from_world[..., :3].flatten(1, 2) @ pairs.world.transpose(1, 2)
    x, y, z = moved.unflatten(1, (-1, 3)).add_(cam_from_world[..., 3:]).unbind(2)
    x_cam, y_cam, z_cam = pairs.cam[:, None].unbind(-1)
    x.sub_(x_cam)
    y.sub_(y_cam)
    z.sub_(z_cam)
    return x.square_().addcmul_(y, y).addcmul_(z, z)


def _scores(pairs: _Pairs, poses: Tensor, config: RigidRansacConfig) -> Float[Tensor, "batch m"]:
    m, n = poses.shape[1], pairs.usable.shape[1]
    block = chunk_size_for(pairs.usable.shape[0] * n, _CPU_BLOCK) if poses.device.type == "cpu" else m
    scores = [
        score_squared_errors(_squared_distances(pairs, poses[:, part]), config.max_error, config.score)
        for part in chunk_ranges(m, block)
    ]
    return torch.cat(scores, dim=1)


def _fitted_to_inliers(pairs: _Pairs, pose: Tensor, score: Tensor, config: RigidRansacConfig) -> Tensor:
    """Weighted least squares on the inliers of the current pose, in rounds.

    Least squares does not maximise every score, so the outcome is taken unless the score falls by more than
    a tenth.
    """
    fitted = pose
    for _ in range(config.refinement_rounds):
        inliers = _squared_distances(pairs, fitted[:, None])[:, 0] < config.max_error**2
        fitted = refit_rigid_pose(pairs.world, pairs.cam, pairs.weights * inliers, fitted)
    accepted = _scores(pairs, fitted[:, None], config)[:, 0] > (1 - ACCEPTED_SCORE_LOSS) * score
    return torch.where(accepted[:, None, None], fitted, pose)


def refit_rigid_pose(
    points: Float[Tensor, "batch n 3"],
    points_cam: Float[Tensor, "batch n 3"],
    weights: Float[Tensor, "batch n"],
    cam_from_world: Float[Tensor, "batch 3 4"],
) -> Float[Tensor, "batch 3 4"]:
    """Minimise ``sum_i w_i |R x_i + t - y_i|²``, near the given pose.

    The rotation maximises ``tr(Rᵀ A)`` for the covariance ``A = sum_i w_i y_i x_iᵀ`` of the centred points.
    With ``M = A Rᵀ``, ``S = (M + Mᵀ) / 2`` and a step ``exp(hat(w)) R``, its gradient is the axial vector of
    ``M - Mᵀ`` and its Hessian ``S - tr(S) I``: Newton's iteration stays among the rotations, needs no SVD and
    converges quadratically. Where the points leave the rotation open, or the start is far off, the given
    rotation may be kept.
    """
    share = weights / weights.sum(-1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
    mean = (share[..., None] * points).sum(-2, keepdim=True)
    mean_cam = (share[..., None] * points_cam).sum(-2, keepdim=True)
    covariance = (share[..., None] * (points_cam - mean_cam)).transpose(-1, -2) @ (points - mean)
    eye = torch.eye(3, dtype=points.dtype, device=points.device)
    start = cam_from_world[..., :3]
    rotation = start
    for _ in range(_NEWTON_STEPS):
        m = covariance @ rotation.transpose(-1, -2)
        skew = m - m.transpose(-1, -2)
        gradient = torch.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], dim=-1)
        trace = m.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None]
        curvature = trace * eye - (m + m.transpose(-1, -2)) / 2
        step, _ = torch.linalg.solve_ex(curvature, gradient)
        step = torch.where(step.isfinite().all(-1, keepdim=True), step, 0)
        rotation = orthonormalise((eye + hat(step)) @ rotation)
    gain = ((rotation - start) * covariance).sum((-1, -2))
    rotation = torch.where((gain >= 0)[..., None, None], rotation, start)
    translation = mean_cam.transpose(-1, -2) - rotation @ mean.transpose(-1, -2)
    refitted = torch.cat([rotation, translation], dim=-1)
    known = (weights > 0).any(-1)[..., None, None] & refitted.isfinite().all(-1).all(-1)[..., None, None]
    return torch.where(known, refitted, cam_from_world)


def _result(pairs: _Pairs, pose: Tensor, found: Tensor, config: RigidRansacConfig) -> AbsolutePoseResult:
    """Inliers are recounted at the pose as it is handed out, after its conversion to a quaternion."""
    se3, found = se3_or_identity(pose, found)
    squared = _squared_distances(pairs, matrix_from_se3(se3)[:, None])[:, 0]
    inliers = (squared < config.max_error**2) & found[:, None]
    count = inliers.sum(-1)
    score = torch.where(found, score_squared_errors(squared, config.max_error, config.score), 0)
    status = pose_status(found, count, pairs.usable.sum(-1))
    return AbsolutePoseResult(pp.SE3(se3), inliers, count, score, status, None)
