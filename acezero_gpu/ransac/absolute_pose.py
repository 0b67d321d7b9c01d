"""Camera poses from scene coordinates: the one entry for whole batches of images."""

from dataclasses import replace

import pypose as pp
import torch
from torch import Tensor

from acezero_gpu.geometry import PinholeCamera, matrix_from_se3
from acezero_gpu.pnp import PoseStatus
from acezero_gpu.ransac.config import RansacConfig
from acezero_gpu.ransac.correspondences import (
    Correspondences,
    checked_initial,
    checked_inputs,
    checked_weights,
    make_correspondences,
    relative_weights,
)
from acezero_gpu.ransac.local_refinement import polish, refine_on_inliers
from acezero_gpu.ransac.result import (
    MIN_INLIERS,
    AbsolutePoseResult,
    concatenated,
    no_result,
    pose_status,
    se3_or_identity,
)
from acezero_gpu.ransac.sampling import ImageStreams
from acezero_gpu.ransac.scoring import score_hypotheses, score_squared_errors, squared_errors_px
from acezero_gpu.ransac.search import chunk_budget, search_pose
from acezero_gpu.runtime import chunk_size_for, in_chunks, random_stream


@torch.no_grad()
def estimate_absolute_pose(
    points: Tensor,
    pixels: Tensor,
    camera: PinholeCamera,
    config: RansacConfig | None = None,
    *,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
    initial: Tensor | None = None,
    generator: torch.Generator | None = None,
    streams: ImageStreams | None = None,
) -> AbsolutePoseResult:
    """The pose of each image from world points ``points`` (batch, n, 3) seen at ``pixels``, by RANSAC.

    ``pixels`` is (n, 2), shared by all images, or (batch, n, 2). ``camera`` is shared or batched. ``mask``
    (batch, n) tells which correspondences may be used: images with fewer points are padded. ``weights``
    (batch, n) says what each correspondence counts for in scores and refinements, and how often it is drawn;
    those not above zero or not finite are not used, and a factor on all of them changes the score only. Points
    that are not finite or have a coordinate beyond 1e12 are left out, pixels beyond 1e9 too. Minimal samples
    give hypotheses, the best scored one is refined on its inliers, and the inliers are counted at the pose
    that is returned.

    ``initial``, pypose SE3 (batch, 7), is a guess of each pose: it is refined, from some multiple of the
    threshold inwards, and competes with the hypotheses. Rows that are not finite are ignored.

    An image that fails has a ``status`` other than ``OK`` and changes nothing in the others. Inputs of the
    wrong shape, type or device raise ``ValueError``. Draws come from one seed per image out of ``generator``,
    so the result depends neither on the device nor on the chunking; without one, every call draws the same.
    ``streams``, one of each image, take its place for those who deal images out themselves. Nothing waits for the
    device, except that a CPU ends the rounds of a chunk when all its images are done.

    Reference: Brachmann and Rother, DSAC*, TPAMI 2021; ACE0, ECCV 2024. Differs from ACE0 as its parts state:
    samples without repeated points, a fixed number of attempts, points must lie in front of the camera.
    """
    # Shapes are checked by hand: who errs gets a ValueError, with or without shape checking switched on.
    config = config or RansacConfig()
    points, pixels, focal, principal, mask = checked_inputs(points, pixels, camera, mask)
    weights, guess = checked_weights(weights, points), checked_initial(initial, points)
    if config.hypotheses == 0 and guess is None:
        raise ValueError("RansacConfig.hypotheses is 0, which needs initial poses to start from.")
    batch, n = points.shape[:2]
    if batch == 0 or n < MIN_INLIERS:
        return no_result(points, PinholeCamera(focal, principal), PoseStatus.TOO_FEW_POINTS)
    if weights is not None:
        weights, unit = relative_weights(weights)
    if streams is None:
        generator = generator or random_stream(0, "absolute pose")
        streams = ImageStreams.draw(batch, generator, points.device)
    budget = chunk_budget(config, points.device)

    def estimate(part: slice) -> AbsolutePoseResult:
        data = make_correspondences(
            points[part],
            pixels[part],
            PinholeCamera(focal[part], principal[part]),
            None if mask is None else mask[part],
            None if weights is None else weights[part],
        )
        prior = None if guess is None else guess[part]
        return _estimate(data, config, streams.images(part), prior)

    chunk = chunk_size_for(_bytes_per_image(config, points), budget)
    result = concatenated(in_chunks("pose solver", batch, chunk, estimate))
    return result if weights is None else replace(result, score=result.score * unit)


def _estimate(
    data: Correspondences, config: RansacConfig, streams: ImageStreams, prior: Tensor | None
) -> AbsolutePoseResult:
    """One chunk of images."""
    enough = data.usable.sum(-1) >= MIN_INLIERS
    pose, found = search_pose(data, config, streams, prior)
    scores = score_hypotheses(data, pose[:, None], config.max_error_px, config.score, compile=config.compile)
    pose, scores = refine_on_inliers(
        data,
        pose[:, None],
        scores,
        max_error_px=config.max_error_px,
        score=config.score,
        rounds=config.refinement_rounds,
        iterations=config.refinement_iterations,
        compile=config.compile,
    )
    pose = pose[:, 0]
    if config.polish_rounds and config.polish_iterations:
        pose = polish(
            data,
            pose,
            scores[:, 0],
            max_error_px=config.max_error_px,
            gate=config.polish_gate,
            score=config.score,
            loss=config.polish_loss,
            scale_px=config.polish_scale_px,
            rounds=config.polish_rounds,
            iterations=config.polish_iterations,
            compile=config.compile,
        )
    return _result(data, pose, found & enough, config)


def _result(data: Correspondences, pose: Tensor, found: Tensor, config: RansacConfig) -> AbsolutePoseResult:
    """Inliers are recounted at the pose as it is handed out, after its conversion to a quaternion."""
    se3, found = se3_or_identity(pose, found)
    squared = squared_errors_px(data, matrix_from_se3(se3)[:, None], compile=config.compile)[:, 0]
    inliers = (squared < config.max_error_px**2) & found[:, None]
    count = inliers.sum(-1)
    score = torch.where(
        found, score_squared_errors(squared, config.max_error_px, config.score, data.weights), 0
    )
    status = pose_status(found, count, data.usable.sum(-1))
    return AbsolutePoseResult(pp.SE3(se3), inliers, count, score, status, data.camera)


def _bytes_per_image(config: RansacConfig, points: Tensor) -> int:
    """Working memory of one image: the correspondences, the score matrix, the Jacobians."""
    n = points.shape[1]
    subset = min(config.subset_points or n, n)
    scored = 0 if config.prescore_points else 4 * max(config.rounds, default=0) * subset
    jacobians = 40 * max(n, subset * config.local_candidates)
    return points.element_size() * (20 * n + max(scored, jacobians))
