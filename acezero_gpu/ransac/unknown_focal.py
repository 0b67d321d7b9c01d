"""Camera poses together with the focal length, for images whose camera is not known."""

from dataclasses import dataclass, replace

import pypose as pp
import torch
from torch import Tensor

from acezero_gpu.geometry import PinholeCamera, matrix_from_se3
from acezero_gpu.pnp import LossName, PoseStatus, RefinementConfig
from acezero_gpu.pnp.focal_refinement import RefinedPoseAndFocal, refine_pose_and_focal
from acezero_gpu.ransac.correspondences import Correspondences, checked_inputs, make_correspondences
from acezero_gpu.ransac.focal_hypotheses import FocalHypotheses, sweep_hypotheses
from acezero_gpu.ransac.local_refinement import robust_scale_px
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
from acezero_gpu.ransac.scoring import ScoreName, score_squared_errors, squared_errors_px
from acezero_gpu.runtime import chunk_ranges, chunk_size_for, random_stream

_LEAST_NOISE = 0.1
"""Errors are taken to be at least this share of the threshold when the focal length's deviation is judged."""
_PARAMETERS = 7


@dataclass(frozen=True, slots=True)
class FocalRansacConfig:
    """How poses with unknown focal lengths are estimated."""

    samples: int = 1024
    """Minimal samples of three points per image; each is solved at every focal length of the sweep."""
    focals: int = 8
    """Focal lengths of the sweep, in geometric progression."""
    min_focal_diagonals: float = 0.35
    """The shortest one, in diagonals of the image. The refinement may leave the range."""
    max_focal_diagonals: float = 3.5
    """The longest one, in diagonals of the image."""
    max_error_px: float = 10.0
    """A point is an inlier if its reprojection error is below this, in the unit of the given pixels."""
    sweep_widening: float = 2.0
    """Hypotheses of the sweep, whose focal length is not yet right, have this times ``max_error_px``."""
    score: ScoreName = "msac"
    """How hypotheses are compared; see ``score_hypotheses``."""
    prescore_points: int = 64
    """Hypotheses are first scored on this many random points per image."""
    prescore_keep: int = 64
    """Hypotheses that go on to all points."""
    refinement_rounds: int = 4
    """Rounds of refinement of the best hypothesis; inliers are selected anew in each."""
    refinement_iterations: int = 4
    """Levenberg-Marquardt steps per round."""
    polish_loss: LossName = "cauchy"
    """Robust loss of one last round, at the scale of the inliers' errors (``robust_scale_px``)."""
    max_focal_deviation: float = 0.03
    """Above this standard deviation, relative to the focal length, the status is ``FOCAL_UNDETERMINED``."""
    max_chunk_bytes: int = 1 << 29
    """Images are worked on in chunks whose temporary memory stays below about this."""

    def __post_init__(self) -> None:
        for name in ("samples", "focals", "prescore_points", "prescore_keep"):
            if getattr(self, name) < 1:
                raise ValueError(f"FocalRansacConfig.{name} must be at least 1, got {getattr(self, name)}.")
        if not self.max_error_px > 0:
            raise ValueError(f"FocalRansacConfig.max_error_px must be positive, got {self.max_error_px}.")
        if not 0 < self.min_focal_diagonals <= self.max_focal_diagonals:
            raise ValueError(
                "FocalRansacConfig needs 0 < min_focal_diagonals <= max_focal_diagonals, "
                f"got {self.min_focal_diagonals} and {self.max_focal_diagonals}."
            )


@torch.no_grad()
def estimate_pose_and_focal(
    points: Tensor,
    pixels: Tensor,
    principal_point_px: Tensor,
    config: FocalRansacConfig | None = None,
    *,
    image_diagonal_px: Tensor | None = None,
    mask: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> AbsolutePoseResult:
    """Pose and focal length of each image from world points (batch, n, 3) seen at ``pixels``, by RANSAC.

    ``pixels`` is (n, 2) or (batch, n, 2), ``principal_point_px`` (2,) or (batch, 2). Pixels are square. The
    focal length is sought in a range of multiples of ``image_diagonal_px``, () or (batch,), which is twice
    the principal point's distance from the origin if it is not given. The estimate is in ``camera`` of the
    result, NaN where there is none.

    Every minimal sample of three points is solved by P3P at every focal length of a sweep. The best of these
    poses are refined together with their focal lengths. If the points hardly tell the focal length, as those
    on a plane that faces the camera, its standard deviation is above ``max_focal_deviation``: the status is
    ``FOCAL_UNDETERMINED``, and pose and focal length are but one of many explanations. An image whose diagonal
    is not positive has no usable points. Other failures, refusal, ``mask`` and randomness are as in
    ``estimate_absolute_pose``.

    A solver for four points (P4Pf) would give the focal length at once, but at an inlier share w only w⁴ of
    its samples are good, instead of w³. Reference: Sattler, Sweeney and Pollefeys, On sampling focal length
    values to solve the absolute pose problem, ECCV 2014. Differs from it: all focal lengths are tried for
    every sample, where they learn which to try. ACE0 estimates one focal length for all images in mapping.
    """
    config = config or FocalRansacConfig()
    points, pixels, principal, diagonal, mask = _checked(
        points, pixels, principal_point_px, image_diagonal_px, mask
    )
    generator = generator or random_stream(0, "pose and focal length")
    batch, n = points.shape[:2]
    if batch == 0 or n < MIN_INLIERS:
        nothing = PinholeCamera(torch.full_like(principal, torch.nan), principal)
        return no_result(points, nothing, PoseStatus.TOO_FEW_POINTS)
    streams = ImageStreams.draw(batch, generator, points.device)
    parts = []
    for part in chunk_ranges(batch, chunk_size_for(_bytes_per_image(config, points), config.max_chunk_bytes)):
        # With a focal length of one, 3x4 projections can take the place of poses.
        unit = PinholeCamera(torch.ones_like(principal[part]), torch.zeros_like(principal[part]))
        offsets = pixels[part] - principal[part, None]
        data = make_correspondences(points[part], offsets, unit, mask[part])
        parts.append(_estimate(data, principal[part], diagonal[part], config, streams.images(part)))
    return concatenated(parts)


def _checked(
    points: Tensor, pixels: Tensor, principal: Tensor, diagonal: Tensor | None, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Inputs with the batch dimension spelled out, or a ``ValueError`` that names what does not fit."""
    if points.dim() != 3 or points.shape[-1] != 3:
        raise ValueError(f"points must have the shape (batch, n, 3), got {tuple(points.shape)}.")
    batch, n = points.shape[:2]
    shapes = (("principal_point_px", principal, (2,)), ("image_diagonal_px", diagonal, ()))
    for name, value, item in shapes:
        if value is None:
            continue
        if tuple(value.shape) not in (item, (batch, *item)):
            raise ValueError(
                f"{name} must have the shape {item} or {(batch, *item)}, got {tuple(value.shape)}."
            )
        if value.dtype != points.dtype or value.device != points.device:
            raise ValueError(
                f"{name} is {value.dtype} on {value.device}, points are {points.dtype} on {points.device}; "
                "give all of one type and on one device."
            )
    if diagonal is None:
        diagonal = 2 * principal.norm(dim=-1)
    camera = PinholeCamera(torch.ones_like(principal), principal)
    points, pixels, _, principal, mask = checked_inputs(points, pixels, camera, mask)
    diagonal = diagonal.expand(batch)
    known = (diagonal > 0) & diagonal.isfinite()
    usable = known[:, None].expand(batch, n)
    return points, pixels, principal, diagonal.where(known, 1), usable if mask is None else mask & usable


def _estimate(
    data: Correspondences,
    principal: Tensor,
    diagonal: Tensor,
    config: FocalRansacConfig,
    streams: ImageStreams,
) -> AbsolutePoseResult:
    """One chunk of images."""
    hypotheses, few = _sweep(data, diagonal, config, streams)
    found = (hypotheses.score >= 0).any(-1)
    wide = config.sweep_widening * config.max_error_px
    hypotheses = hypotheses.scored(few, wide, config.score).best(config.prescore_keep)
    hypotheses = hypotheses.scored(data, wide, config.score).best(1)
    best = _polished(_refined(hypotheses, data, config), data, config)
    return _result(data, best.cam_from_world[:, 0], best.focal[:, 0], principal, found, config)


def _sweep(
    data: Correspondences, diagonal: Tensor, config: FocalRansacConfig, streams: ImageStreams
) -> tuple[FocalHypotheses, Correspondences]:
    """All roots of all samples at all focal lengths, unscored; and the random points that score them first."""
    count, order = data.usable.sum(-1), usable_first(data.usable)
    drawn = 3 * config.samples
    uniform = streams.uniform(0, drawn + config.prescore_points)
    ranks = distinct_ranks(uniform[:, :drawn].unflatten(1, (config.samples, 3)), count[:, None])
    samples = order.gather(1, ranks.flatten(1)).view_as(ranks)
    few = data.narrow(order.gather(1, distinct_ranks(uniform[:, drawn:, None], count[:, None])[..., 0]))

    step = torch.arange(config.focals, dtype=diagonal.dtype, device=diagonal.device) / max(
        1, config.focals - 1
    )
    ratio = config.max_focal_diagonals / config.min_focal_diagonals
    focals = config.min_focal_diagonals * diagonal[:, None] * ratio**step
    hypotheses = sweep_hypotheses(data, samples, focals)
    score = torch.where((count >= MIN_INLIERS)[:, None], hypotheses.score, -1)
    return replace(hypotheses, score=score), few


def _fitted(
    hypotheses: FocalHypotheses,
    data: Correspondences,
    lm: RefinementConfig,
    inliers: Tensor,
    scale_px: Tensor | None = None,
) -> RefinedPoseAndFocal:
    points, offsets = data.points_h[:, None, :3].transpose(2, 3), data.pixels[:, None].transpose(2, 3)
    centre = offsets.new_zeros(2)
    pose, focal = hypotheses.cam_from_world, hypotheses.focal
    return refine_pose_and_focal(
        points, offsets, centre, pose, focal, lm, weights=inliers, loss_scale_px=scale_px
    )


def _refined(
    hypotheses: FocalHypotheses, data: Correspondences, config: FocalRansacConfig
) -> FocalHypotheses:
    """Least squares on the inliers of a wide threshold, then of the right one, in rounds; the best scored is
    kept, the initial one included."""
    lm = RefinementConfig(iterations=config.refinement_iterations)
    current = best = hypotheses.scored(data, config.max_error_px, config.score)
    gate_px = config.sweep_widening * config.max_error_px
    for _ in range(config.refinement_rounds):
        inliers = squared_errors_px(data, current.projections) < gate_px**2
        fit = _fitted(current, data, lm, inliers)
        current = FocalHypotheses(fit.cam_from_world, fit.focal_px, best.score)
        current = current.scored(data, config.max_error_px, config.score)
        best = best.replaced(current.score > best.score, current)
        gate_px = config.max_error_px
    return best


def _polished(
    hypotheses: FocalHypotheses, data: Correspondences, config: FocalRansacConfig
) -> FocalHypotheses:
    """One fit with a robust loss, taken unless the score falls by more than a tenth (as in ``polish``)."""
    squared = squared_errors_px(data, hypotheses.projections)
    inliers = squared < config.max_error_px**2
    scale = robust_scale_px(squared[:, 0], inliers[:, 0])[:, None]
    lm = RefinementConfig(iterations=config.refinement_iterations, loss=config.polish_loss)
    fit = _fitted(hypotheses, data, lm, inliers, scale)
    polished = FocalHypotheses(fit.cam_from_world, fit.focal_px, hypotheses.score)
    polished = polished.scored(data, config.max_error_px, config.score)
    return hypotheses.replaced(polished.score > (1 - ACCEPTED_SCORE_LOSS) * hypotheses.score, polished)


def _result(
    data: Correspondences,
    pose: Tensor,
    focal: Tensor,
    principal: Tensor,
    found: Tensor,
    config: FocalRansacConfig,
) -> AbsolutePoseResult:
    """Inliers and the focal length's deviation, at the pose as it is handed out."""
    se3, found = se3_or_identity(pose, found)
    final = FocalHypotheses(matrix_from_se3(se3)[:, None], focal[:, None], found.to(focal.dtype)[:, None])
    squared = squared_errors_px(data, final.projections)[:, 0]
    inliers = (squared < config.max_error_px**2) & found[:, None]
    count = inliers.sum(-1)
    fit = _fitted(final, data, RefinementConfig(iterations=0), inliers[:, None])
    variance = fit.cost[:, 0] / (2 * count - _PARAMETERS).clamp_min(1)
    variance = variance.clamp_min((_LEAST_NOISE * config.max_error_px) ** 2)
    # An information of 0 gives an infinite deviation.
    vague = (variance / fit.focal_information[:, 0]).sqrt() > config.max_focal_deviation

    score = torch.where(found, score_squared_errors(squared, config.max_error_px, config.score), 0)
    status = pose_status(found, count, data.usable.sum(-1))
    vague = vague & (status == int(PoseStatus.OK))
    status = torch.where(vague, int(PoseStatus.FOCAL_UNDETERMINED), status)
    focal = torch.where(found, focal, torch.nan)
    camera = PinholeCamera(torch.stack([focal, focal], dim=-1), principal)
    return AbsolutePoseResult(pp.SE3(se3), inliers, count, score, status, camera)


def _bytes_per_image(config: FocalRansacConfig, points: Tensor) -> int:
    """Working memory of one image: P3P's temporaries, the score matrices, the Jacobians."""
    n, scalar = points.shape[1], points.element_size()
    roots = 4 * config.samples * config.focals
    scoring = 4 * max(roots * config.prescore_points, config.prescore_keep * n)
    return scalar * max(60 * roots, scoring, 40 * n)
