"""How well a pose explains the correspondences of its image: inlier scores in pixel space."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from acezero_gpu.geometry.reprojection import MIN_DEPTH
from acezero_gpu.ransac.correspondences import Correspondences
from acezero_gpu.runtime import chunk_ranges, chunk_size_for, compiled

ScoreName = Literal["soft", "count", "msac"]

_CPU_BLOCK = 1 << 19
"""Reprojections computed at once: small temporaries stay in the caches of a CPU (2 to 3 times faster)."""
_DEVICE_BLOCK = 1 << 27
"""The same for other devices, where it only bounds the memory."""


def squared_errors_px(
    data: Correspondences, cam_from_world: Float[Tensor, "batch m 3 4"], *, compile: bool = False
) -> Float[Tensor, "batch m n"]:
    """Squared reprojection errors of every correspondence under every pose; infinite behind the camera.

    The camera is multiplied into the poses; one matrix product per image projects all points by all poses.
    In TF32, which PyTorch leaves off by default, that product would be wrong by tenths of a pixel.
    """
    batch, m = cam_from_world.shape[:2]
    if compile and batch > 1:  # one image alone would be compiled separately, for little
        fused = compiled(_fused_errors, one_pass=True)
        return fused(data.points_h, data.pixels, _projection_rows(data, cam_from_world))
    rows = _projection_rows(data, cam_from_world).permute(2, 0, 3, 1).reshape(batch, 3 * m, 4)
    x, y, z = (rows @ data.points_h).view(batch, 3, m, -1).unbind(1)
    behind = z <= MIN_DEPTH
    inverse = z.reciprocal_()
    x.mul_(inverse).sub_(data.pixels[:, :1])
    y.mul_(inverse).sub_(data.pixels[:, 1:])
    return x.square_().addcmul_(y, y).masked_fill_(behind, torch.inf)


def score_hypotheses(
    data: Correspondences,
    cam_from_world: Float[Tensor, "batch m 3 4"],
    max_error_px: float,
    score: ScoreName = "soft",
    *,
    compile: bool = False,
) -> Float[Tensor, "batch m"]:
    """A number per pose, about its inlier count; higher is better.

    With the reprojection error ``e`` and the threshold ``T``: ``soft`` is ``sum sigmoid(5 (T - e) / T)``,
    ``count`` is ``sum [e < T]`` and ``msac`` is ``sum max(0, 1 - e²/T²)`` (Torr and Zisserman 2000). Points
    behind the camera add nothing; terms are multiplied by the correspondences' weights, if they have any.
    ``compile`` uses one fused pass, made by ``torch.compile``.

    ``soft`` is that of DSAC* (Brachmann and Rother, TPAMI 2021). Differs from ACE0: no factor 100/n, which
    does not change the order, and ACE0 does not test on which side of the camera a point lies.
    """
    batch, m = cam_from_world.shape[:2]
    n = data.usable.shape[1]
    if compile and batch > 1:
        # The threshold becomes the unit: as a number it would be compiled in.
        rows = _projection_rows(data, cam_from_world, unit_px=max_error_px)
        wide = m > n  # the longer dimension makes the better inner loop
        fused = compiled(_fused_scores_wide if wide else _fused_scores, one_pass=True)
        return fused(data.points_h, data.pixels / max_error_px, data.weights, rows, score)
    block = _CPU_BLOCK if cam_from_world.device.type == "cpu" else _DEVICE_BLOCK
    scores = cam_from_world.new_empty(batch, m)
    for images in chunk_ranges(batch, chunk_size_for(m * n, block)):
        part = data.images(images)
        for poses in chunk_ranges(m, chunk_size_for(n, block)):
            squared = squared_errors_px(part, cam_from_world[images, poses])
            scores[images, poses] = score_squared_errors(squared, max_error_px, score, part.weights)
    return scores


def score_squared_errors(
    squared: Float[Tensor, "batch *m n"],
    max_error_px: float,
    score: ScoreName,
    weights: Float[Tensor, "batch n"] | None = None,
) -> Float[Tensor, "batch *m"]:
    """The sums of ``score_hypotheses`` from squared errors in pixels, which are overwritten."""
    if score == "soft":
        terms = squared.sqrt_().mul_(-5.0 / max_error_px).add_(5.0).sigmoid_()
    elif score == "count":
        terms = (squared < max_error_px**2).to(squared.dtype)
    elif score == "msac":
        terms = squared.mul_(-1.0 / max_error_px**2).add_(1.0).clamp_min_(0)
    else:
        raise ValueError(f"No score is called {score!r}; choose soft, count or msac.")
    if weights is None:
        return terms.sum(-1)
    return (terms * (weights if terms.dim() == 2 else weights[:, None])).sum(-1)


def _projection_rows(
    data: Correspondences, cam_from_world: Float[Tensor, "batch m 3 4"], unit_px: float = 1.0
) -> Float[Tensor, "3 4 batch m"]:
    """``K [R | t]``, with pixels measured in units of ``unit_px``."""
    focal, principal = (
        t.T[:, None, :, None] / unit_px for t in (data.camera.focal_px, data.camera.principal_point_px)
    )
    rows = cam_from_world.permute(2, 3, 0, 1)
    return torch.cat([focal * rows[:2] + principal * rows[2:], rows[2:]])


def _fused_scores(
    points_h: Tensor, pixels: Tensor, weights: Tensor | None, rows: Tensor, score: str
) -> Tensor:
    """``score_hypotheses`` for a threshold of 1, without matrix products, so that it compiles to one loop."""
    terms = _score_terms(points_h[:, :, None], pixels[:, :, None], rows[..., None], score)
    return (terms if weights is None else terms * weights[:, None]).sum(-1)


def _fused_scores_wide(
    points_h: Tensor, pixels: Tensor, weights: Tensor | None, rows: Tensor, score: str
) -> Tensor:
    """The same with the poses in the inner loop."""
    terms = _score_terms(points_h[..., None], pixels[..., None], rows[:, :, :, None], score)
    return (terms if weights is None else terms * weights[..., None]).sum(1)


def _fused_errors(points_h: Tensor, pixels: Tensor, rows: Tensor) -> Tensor:
    """``squared_errors_px`` without matrix products."""
    squared, depth = _projected(points_h[:, :, None], pixels[:, :, None], rows[..., None])
    return torch.where(depth > MIN_DEPTH, squared, torch.inf)


def _projected(points_h: Tensor, pixels: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Squared errors and depths; ``rows`` have their components in front."""
    x, y, z, _ = points_h.unbind(1)
    u, v, depth = (row[0] * x + row[1] * y + row[2] * z + row[3] for row in rows.unbind(0))
    inverse = depth.reciprocal()
    u, v = u * inverse - pixels[:, 0], v * inverse - pixels[:, 1]
    return u * u + v * v, depth


def _score_terms(points_h: Tensor, pixels: Tensor, rows: Tensor, score: str) -> Tensor:
    """What each point adds to each pose's score."""
    squared, depth = _projected(points_h, pixels, rows)
    if score == "soft":
        terms = (5.0 - 5.0 * squared.sqrt()).sigmoid()
    elif score == "count":
        terms = (squared < 1.0).to(squared.dtype)
    else:
        terms = (1.0 - squared).clamp_min(0.0)
    return torch.where(depth > MIN_DEPTH, terms, 0.0)
