"""Camera poses from scene coordinates: the one entry for whole batches of images."""

from dataclasses import replace

import pypose as pp
import torch
from torch import Tensor

from acezero_gpu.geometry import PinholeCamera, matrix_from_se3, orthonormalise, se3_from_matrix
from acezero_gpu.pnp import PoseStatus
from acezero_gpu.ransac.config import RansacConfig
from acezero_gpu.ransac.hypotheses import Hypotheses, exhaustive_hypotheses, verified_hypotheses
from acezero_gpu.ransac.local_refinement import polish, refine_on_inliers
from acezero_gpu.ransac.result import AbsolutePoseResult, concatenated, no_result
from acezero_gpu.ransac.sampling import distinct_ranks, draw_uniform, usable_first
from acezero_gpu.ransac.scoring import (
    Correspondences,
    checked_inputs,
    make_correspondences,
    score_hypotheses,
    score_squared_errors,
    squared_errors_px,
)
from acezero_gpu.runtime import chunk_ranges, chunk_size_for, random_stream

MIN_INLIERS = 4
"""Below this any pose explains the points; no result is called OK."""


@torch.no_grad()
def estimate_absolute_pose(
    points: Tensor,
    pixels: Tensor,
    camera: PinholeCamera,
    config: RansacConfig | None = None,
    *,
    mask: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> AbsolutePoseResult:
    """The pose of each image from world points ``points`` (batch, n, 3) seen at ``pixels``, by RANSAC.

    ``pixels`` is (n, 2), shared by all images, or (batch, n, 2). ``camera`` is shared or batched. ``mask``
    (batch, n) tells which correspondences may be used: images with fewer points are padded. Points that are
    not finite are left out. Minimal samples give hypotheses, the best scored one is refined on its inliers,
    and the inliers are counted at the pose that is returned.

    An image that fails has a ``status`` other than ``OK`` and changes nothing in the others. Inputs of the
    wrong shape, type or device raise ``ValueError``. Draws come from ``generator``, image by image, so the
    result depends neither on the device nor on the chunking; without one, every call draws the same.

    Reference: Brachmann and Rother, DSAC*, TPAMI 2021; ACE0, ECCV 2024. Differs from ACE0 as its parts state:
    samples without repeated points, a fixed number of attempts, points must lie in front of the camera.
    """
    # Shapes are checked by hand: who errs gets a ValueError, with or without shape checking switched on.
    config = config or RansacConfig()
    points, pixels, focal, principal, mask = checked_inputs(points, pixels, camera, mask)
    generator = generator or random_stream(0, "absolute pose")
    batch, n = points.shape[:2]
    if batch == 0 or n < MIN_INLIERS:
        return no_result(points, PinholeCamera(focal, principal), PoseStatus.TOO_FEW_POINTS)
    parts = []
    for part in chunk_ranges(batch, chunk_size_for(_bytes_per_image(config, points), config.max_chunk_bytes)):
        part_camera = PinholeCamera(focal[part], principal[part])
        part_mask = None if mask is None else mask[part]
        data = make_correspondences(points[part], pixels[part], part_camera, part_mask)
        parts.append(_estimate(data, config, generator))
    return concatenated(parts)


def _estimate(data: Correspondences, config: RansacConfig, generator: torch.Generator) -> AbsolutePoseResult:
    """One chunk of images."""
    hypotheses, prescore_data = _draw_hypotheses(data, config, generator)
    if prescore_data is not None:
        hypotheses = _preselected(hypotheses, prescore_data, config)
    scores = _valid_scores(hypotheses, data, config)
    found = hypotheses.valid.any(-1)
    pose, scores = _best(hypotheses.cam_from_world, scores, config.local_candidates)
    if config.local_candidates > 1:
        pose, scores = _refined(data, pose, scores, config, config.local_rounds)
        pose, scores = _best(pose, scores, 1)
    pose, scores = _refined(data, pose, scores, config, config.refinement_rounds)
    pose = pose[:, 0]
    if config.polish_iterations and config.polish_loss != "squared":
        pose = polish(
            data,
            pose,
            scores[:, 0],
            max_error_px=config.max_error_px,
            score=config.score,
            loss=config.polish_loss,
            scale_px=config.polish_scale_px,
            iterations=config.polish_iterations,
        )
    return _result(data, pose, found, config)


def _refined(
    data: Correspondences, pose: Tensor, scores: Tensor, config: RansacConfig, rounds: int
) -> tuple[Tensor, Tensor]:
    return refine_on_inliers(
        data,
        pose,
        scores,
        max_error_px=config.max_error_px,
        score=config.score,
        rounds=rounds,
        iterations=config.refinement_iterations,
    )


def _draw_hypotheses(
    data: Correspondences, config: RansacConfig, generator: torch.Generator
) -> tuple[Hypotheses, Correspondences | None]:
    """Hypotheses, and the random points for their first scoring if there is one."""
    batch, device = data.usable.shape[0], data.usable.device
    count = data.usable.sum(-1)
    order = usable_first(data.usable)
    k = 4 if config.fourth_point else 3
    samples = config.hypotheses * (config.attempts if config.fourth_point else 1)
    uniform = draw_uniform((batch, samples * k + config.prescore_points), generator, device)
    ranks = distinct_ranks(uniform[:, : samples * k].unflatten(1, (samples, k)), count[:, None])
    indices = order.gather(1, ranks.flatten(1)).view(batch, samples, k)
    if config.fourth_point:
        indices = indices.unflatten(1, (config.hypotheses, config.attempts))
        hypotheses = verified_hypotheses(data, indices, config.max_error_px)
    else:
        hypotheses = exhaustive_hypotheses(data, indices)
    prescore_data = None
    if config.prescore_points:
        chosen = distinct_ranks(uniform[:, samples * k :, None], count[:, None])[..., 0]
        prescore_data = data.narrow(order.gather(1, chosen))
    enough = (count >= MIN_INLIERS)[:, None]
    return replace(hypotheses, valid=hypotheses.valid & enough), prescore_data


def _preselected(hypotheses: Hypotheses, data: Correspondences, config: RansacConfig) -> Hypotheses:
    """The hypotheses that score best on a few points."""
    scores = _valid_scores(hypotheses, data, config)
    kept = scores.topk(min(config.prescore_keep, scores.shape[1]), dim=1).indices
    pose = hypotheses.cam_from_world.gather(1, kept[..., None, None].expand(-1, -1, 3, 4))
    return Hypotheses(pose, hypotheses.valid.gather(1, kept))


def _valid_scores(hypotheses: Hypotheses, data: Correspondences, config: RansacConfig) -> Tensor:
    scores = score_hypotheses(data, hypotheses.cam_from_world, config.max_error_px, config.score)
    return torch.where(hypotheses.valid, scores, -1)


def _best(pose: Tensor, scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` best scored poses of each image, best first."""
    scores, index = scores.topk(min(count, scores.shape[1]), dim=1)
    return pose.gather(1, index[..., None, None].expand(-1, -1, 3, 4)), scores


def _result(data: Correspondences, pose: Tensor, found: Tensor, config: RansacConfig) -> AbsolutePoseResult:
    """Inliers are recounted at the pose as it is handed out, after its conversion to a quaternion."""
    rotation = orthonormalise(pose[..., :3])
    se3 = se3_from_matrix(torch.cat([rotation, pose[..., 3:]], dim=-1)).tensor()
    found = found & se3.isfinite().all(-1)
    identity = torch.eye(7, dtype=se3.dtype, device=se3.device)[6]  # a list would be copied to the device
    se3 = torch.where(found[:, None], se3, identity)
    squared = squared_errors_px(data, matrix_from_se3(se3)[:, None])[:, 0]
    inliers = (squared < config.max_error_px**2) & found[:, None]
    count = inliers.sum(-1)
    score = torch.where(found, score_squared_errors(squared, config.max_error_px, config.score), 0)
    status = torch.where(count >= MIN_INLIERS, int(PoseStatus.OK), int(PoseStatus.TOO_FEW_INLIERS))
    status = torch.where(found, status, int(PoseStatus.NO_HYPOTHESIS))
    status = torch.where(data.usable.sum(-1) < MIN_INLIERS, int(PoseStatus.TOO_FEW_POINTS), status)
    return AbsolutePoseResult(pp.SE3(se3), inliers, count, score, status, data.camera)


def _bytes_per_image(config: RansacConfig, points: Tensor) -> int:
    """Working memory of one image: P3P's temporaries, the score matrix, the Jacobians."""
    n, scalar = points.shape[1], points.element_size()
    samples = config.hypotheses * (config.attempts if config.fourth_point else 1)
    solver = samples * 4 * 60
    scored = config.hypotheses if config.fourth_point else 4 * samples
    scoring = 4 * (
        scored * config.prescore_points + config.prescore_keep * n if config.prescore_points else scored * n
    )
    jacobians = 32 * n * config.local_candidates
    return scalar * max(solver, scoring, jacobians)
