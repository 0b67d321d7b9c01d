"""Pose hypotheses from minimal samples: all attempts of all images are drawn and solved at once."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from acezero_gpu.geometry.reprojection import MIN_DEPTH
from acezero_gpu.pnp import p3p
from acezero_gpu.pnp.p3p import p3p_rows
from acezero_gpu.ransac.correspondences import Correspondences
from acezero_gpu.runtime import compiled


@dataclass(frozen=True, slots=True)
class Hypotheses:
    """Poses to be scored."""

    cam_from_world: Float[Tensor, "batch m 3 4"]
    """``[R | t]``; finite also where not valid. A view of memory in which m is the last dimension."""
    valid: Bool[Tensor, "batch m"]
    """The slot holds a solution of its sample."""


def verified_hypotheses(
    data: Correspondences,
    samples: Int64[Tensor, "batch hypotheses attempts 4"],
    max_error_px: float,
    *,
    compile: bool = False,
) -> Hypotheses:
    """One pose per hypothesis: the first attempt whose four points all reproject within the threshold.

    P3P solves three points of each sample, the fourth chooses among the roots. If no attempt is accepted,
    the one with the smallest error (the largest of its four) stays. Reference: DSAC*, TPAMI 2021. Differs
    from ACE0, which draws with replacement, makes up to a million attempts one after another and keeps the
    last one.
    """
    batch, hypotheses, attempts, _ = samples.shape
    points, pixels = _gather(data, samples.flatten(1, 2))
    focal, principal = data.camera.focal_px.T[..., None], data.camera.principal_point_px.T[..., None]
    bearings = _bearings(pixels[:3], focal, principal)
    solutions = p3p(bearings.permute(2, 3, 0, 1), points[:3].permute(2, 3, 0, 1), compile=compile)
    pose = solutions.cam_from_world.permute(3, 4, 2, 0, 1)  # row, column, root, image, sample
    fourth = _squared_error(pose, points[3], pixels[3], data)
    fourth = torch.where(solutions.valid.movedim(-1, 0), fourth, torch.inf)
    fourth, root = fourth.min(dim=0)
    pose = pose.gather(2, root.expand(3, 4, 1, *root.shape)).squeeze(2)
    # P3P reprojects its own three points exactly, up to rounding; a sample where it does not is rejected too.
    own = torch.stack([_squared_error(pose, points[k], pixels[k], data) for k in range(3)]).amax(0)
    worst = torch.where(fourth.isfinite(), torch.maximum(own, fourth), torch.inf)
    worst = worst.view(batch, hypotheses, attempts)
    rank = torch.arange(-attempts, 0, device=worst.device, dtype=worst.dtype)
    key = torch.where(worst < max_error_px**2, rank, worst)
    best_key, attempt = key.min(dim=-1)
    pose = pose.reshape(3, 4, batch, hypotheses, attempts)
    pose = pose.gather(4, attempt[None, None, ..., None].expand(3, 4, batch, hypotheses, 1)).squeeze(4)
    return Hypotheses(pose.permute(2, 3, 0, 1), best_key < torch.inf)


def exhaustive_hypotheses(
    data: Correspondences, samples: Int64[Tensor, "batch samples 3"], *, compile: bool = False
) -> Hypotheses:
    """The first and the last root of every sample of three points, two slots per sample.

    No fourth point has to be an inlier: at an inlier share w a sample is good with w³ instead of w⁴. Where
    P3P has more than two solutions in front of the camera, those between are left out: that loses the true
    pose of one to six in a hundred good samples, and saves half of the scoring.
    """
    points, pixels = _gather(data, samples)
    solve = compiled(_two_roots) if compile else _two_roots
    focal, principal = data.camera.focal_px.T[..., None], data.camera.principal_point_px.T[..., None]
    pose, valid = solve(points, pixels, focal, principal)
    return Hypotheses(pose.permute(2, 3, 0, 1), valid)


def _two_roots(points: Tensor, pixels: Tensor, focal: Tensor, principal: Tensor) -> tuple[Tensor, Tensor]:
    """The first valid root of each sample, then the last: ``[R | t]`` (3, 4, batch, 2 samples) and validity.

    ``points`` and ``pixels`` are (3, component, batch, samples), the camera (2, batch, 1).
    """
    pose, valid = p3p_rows(_bearings(pixels, focal, principal), points)
    first, last = pose[:, :, 3], pose[:, :, 0]
    for root in (2, 1, 0):
        first = torch.where(valid[root], pose[:, :, root], first)
    for root in (1, 2, 3):
        last = torch.where(valid[root], pose[:, :, root], last)
    return torch.cat([first, last], dim=-1), torch.cat([valid.any(0), valid.sum(0) > 1], dim=-1)


def _gather(data: Correspondences, samples: Tensor) -> tuple[Tensor, Tensor]:
    """World points and pixels of the samples: (k, component, batch, samples)."""
    batch, count, k = samples.shape
    index = samples.transpose(1, 2).reshape(batch, 1, k * count)

    def take(rows: Tensor) -> Tensor:
        values = rows.gather(2, index.expand(-1, rows.shape[1], -1))
        return values.view(batch, rows.shape[1], k, count).permute(2, 1, 0, 3).contiguous()

    return take(data.points_h[:, :3]), take(data.pixels)


def _bearings(pixels: Tensor, focal: Tensor, principal: Tensor) -> Tensor:
    """Unit rays (k, 3, *batch) of pixels (k, 2, *batch); focal lengths and principal points are (2, *batch)."""
    x = (pixels[:, 0] - principal[0]) / focal[0]
    y = (pixels[:, 1] - principal[1]) / focal[1]
    inverse = (x * x + y * y + 1).rsqrt()
    return torch.stack([x * inverse, y * inverse, inverse], dim=1)


def _squared_error(pose: Tensor, point: Tensor, pixel: Tensor, data: Correspondences) -> Tensor:
    """Squared reprojection error of one point per sample; infinite behind the camera.

    ``pose`` is (3, 4, [root,] batch, samples); ``point`` and ``pixel`` are (component, batch, samples).
    """
    x, y, z = (row[0] * point[0] + row[1] * point[1] + row[2] * point[2] + row[3] for row in pose)
    focal, principal = data.camera.focal_px[..., None], data.camera.principal_point_px[..., None]
    u = focal[:, 0] * (x / z) + (principal[:, 0] - pixel[0])
    v = focal[:, 1] * (y / z) + (principal[:, 1] - pixel[1])
    return torch.where(z > MIN_DEPTH, u * u + v * v, torch.inf)
