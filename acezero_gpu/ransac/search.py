"""The search for a pose: rounds of hypotheses, of which the best is kept, until an image is done."""

import math
from dataclasses import dataclass
from itertools import accumulate

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from acezero_gpu.ransac.config import RansacConfig
from acezero_gpu.ransac.correspondences import Correspondences
from acezero_gpu.ransac.hypotheses import Hypotheses, exhaustive_hypotheses, verified_hypotheses
from acezero_gpu.ransac.local_refinement import refine_on_inliers
from acezero_gpu.ransac.sampling import (
    ImageStreams,
    distinct_ranks,
    spread_ranks,
    usable_first,
    weighted_ranks,
)
from acezero_gpu.ransac.scoring import score_hypotheses, squared_errors_px
from acezero_gpu.runtime import chunk_ranges, chunk_size_for

_PRIOR_GATES = (8.0, 4.0, 2.0, 1.0)
"""Multiples of the threshold within which points refine a given pose, one after the other."""
_NO_SCORE = -1.0
"""Score of what is no pose; every pose has at least zero."""
_SOLVER_BYTES = 4 * 300
"""Temporary memory of the minimal solver and of the first scoring, per sample."""
_CPU_SAMPLES = 1 << 13
"""Samples that a CPU solves at once: with more, the temporaries leave its caches (2 to 3 times slower)."""
_CPU_CHUNK_BYTES = 1 << 25
_DEVICE_CHUNK_BYTES = 1 << 31


def chunk_budget(config: RansacConfig, device: torch.device) -> int:
    """Bytes of temporary memory that one chunk may take."""
    if config.max_chunk_bytes is not None:
        return config.max_chunk_bytes
    if device.type != "cpu":
        return _DEVICE_CHUNK_BYTES
    # Fused passes leave less in the caches, and gain more from large chunks.
    return 2 * _CPU_CHUNK_BYTES if config.compile else _CPU_CHUNK_BYTES


@dataclass(frozen=True, slots=True)
class _Images:
    """Images that are searched together."""

    data: Correspondences
    subset: Correspondences
    """The points on which hypotheses are compared."""
    prescore: Correspondences | None
    """Fewer of them, for a first look."""
    streams: ImageStreams
    order: Int64[Tensor, "batch n"]
    """The usable points first."""
    count: Int64[Tensor, " batch"]
    """How many these are."""

    @classmethod
    def of(cls, data: Correspondences, config: RansacConfig, streams: ImageStreams) -> "_Images":
        n = data.usable.shape[1]
        count, order = data.usable.sum(-1), usable_first(data.usable)
        spread, few = _subset_sizes(config, n)

        def some_points(first: int, points: int) -> Correspondences:
            """Spread over the usable ones, which are in image order, so that they cover the image."""
            return data.narrow(order.gather(1, spread_ranks(streams.uniform(first, points), count)))

        subset = some_points(0, spread) if spread < n else data
        prescore = some_points(spread, few) if few else None
        return cls(data, subset, prescore, streams, order, count)

    def some(self, index: Int64[Tensor, " some"]) -> "_Images":
        """Some of the images."""
        prescore = None if self.prescore is None else self.prescore.images(index)
        data, subset = self.data.images(index), self.subset.images(index)
        return _Images(
            data, subset, prescore, self.streams.images(index), self.order[index], self.count[index]
        )

    def draw(self, first: int, samples: int, config: RansacConfig) -> Int64[Tensor, "batch samples k"]:
        """Minimal samples, by the numbers from position ``first`` of the streams."""
        k = config.sample_size
        uniform = self.streams.uniform(first, samples * k, compile=config.compile).unflatten(1, (samples, k))
        if self.data.weights is None:
            ranks = distinct_ranks(uniform, self.count[:, None])
            return self.order.gather(1, ranks.flatten(1)).view_as(ranks)
        return weighted_ranks(uniform, self.data.weights)  # zero where not usable


def search_pose(
    data: Correspondences,
    config: RansacConfig,
    streams: ImageStreams,
    prior: Float[Tensor, "batch 3 4"] | None,
) -> tuple[Float[Tensor, "batch 3 4"], Bool[Tensor, " batch"]]:
    """The best pose of each image, before its final refinement, and whether there is one.

    An image whose samples suffice by ``config.confidence`` no longer changes in later rounds, so its result
    does not depend on whether these are computed for it. A CPU leaves it out of them; elsewhere that would
    mean to wait for the device.
    """
    images = _Images.of(data, config, streams)
    batch, n = data.usable.shape
    pose = torch.eye(3, 4, dtype=data.points_h.dtype, device=data.usable.device).repeat(batch, 1, 1)
    score = torch.full_like(pose[:, 0, 0], _NO_SCORE)
    if prior is not None:
        pose, score = _refined_prior(images.subset, prior, config)
    done = images.count < config.sample_size  # nothing to be found
    searched = torch.arange(batch, device=pose.device)
    first = sum(_subset_sizes(config, n))
    for size, drawn in zip(config.rounds, accumulate(config.rounds), strict=True):
        candidates, scores = _candidates(images, config, first, size)
        first += config.samples(size) * config.sample_size
        candidates, scores = _locally_refined(images.subset, candidates, scores, config)
        scores, index = scores.max(dim=1)
        winner = candidates.gather(1, index[:, None, None, None].expand(-1, 1, 3, 4))[:, 0]
        better = (scores > score[searched]) & ~done[searched]
        pose[searched] = torch.where(better[:, None, None], winner, pose[searched])
        score[searched] = torch.where(better, scores, score[searched])
        if drawn == config.hypotheses:
            break
        done[searched] |= _confident(images.subset, pose[searched], config.samples(drawn), config)
        if _may_look(done.device):
            going_on = (~done[searched]).nonzero()[:, 0]
            if len(going_on) == 0:
                break
            if len(going_on) < len(searched):
                images, searched = images.some(going_on), searched[going_on]
    return pose, score > _NO_SCORE


def _may_look(device: torch.device) -> bool:
    """Whether a result can be looked at without waiting for it."""
    return device.type == "cpu"


def _subset_sizes(config: RansacConfig, n: int) -> tuple[int, int]:
    """Points on which hypotheses are compared, and those of the first look."""
    return min(config.subset_points or n, n), min(config.prescore_points, n)


def _candidates(
    images: _Images, config: RansacConfig, first: int, size: int
) -> tuple[Float[Tensor, "batch c 3 4"], Float[Tensor, "batch c"]]:
    """The best hypotheses of a round, best first, with their scores; in pieces that bound the memory."""
    device = images.count.device
    at_once = chunk_size_for(_SOLVER_BYTES, chunk_budget(config, device))
    at_once = min(at_once, _CPU_SAMPLES) if device.type == "cpu" else at_once
    # The first look at all pieces comes before the second at any: what passes does not depend on the pieces.
    looked_at, count = images.subset, config.local_candidates
    if images.prescore is not None:
        looked_at, count = images.prescore, config.prescore_keep
    kept: tuple[Tensor, Tensor] | None = None
    for piece in chunk_ranges(size, chunk_size_for(config.samples(1) * len(images.count), at_once)):
        start = first + config.samples(piece.start) * config.sample_size
        samples = images.draw(start, config.samples(piece.stop - piece.start), config)
        hypotheses = _solve(images.data, samples, config)
        found = _best(hypotheses.cam_from_world, hypotheses.valid, looked_at, count, config)
        if kept is not None:
            pose, scores = (torch.cat(pair, dim=1) for pair in zip(kept, found, strict=True))
            found = _highest(pose, scores, count)
        kept = found
    assert kept is not None
    pose, scores = kept
    if images.prescore is None:
        return pose, scores
    return _best(pose, scores > _NO_SCORE, images.subset, config.local_candidates, config)


def _solve(data: Correspondences, samples: Tensor, config: RansacConfig) -> Hypotheses:
    if not config.fourth_point:
        return exhaustive_hypotheses(data, samples, compile=config.compile)
    grouped = samples.unflatten(1, (-1, config.attempts))
    return verified_hypotheses(data, grouped, config.max_error_px, compile=config.compile)


def _best(
    pose: Tensor, valid: Tensor, data: Correspondences, count: int, config: RansacConfig
) -> tuple[Tensor, Tensor]:
    scores = score_hypotheses(data, pose, config.max_error_px, config.score, compile=config.compile)
    real = valid & (scores >= 0)  # not NaN, which would be the highest of all
    return _highest(pose, torch.where(real, scores, _NO_SCORE), count)


def _highest(pose: Tensor, scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` best scored poses, best first."""
    scores, index = scores.topk(min(count, pose.shape[1]), dim=1)
    return pose.gather(1, index[..., None, None].expand(-1, -1, 3, 4)), scores


def _locally_refined(
    subset: Correspondences, pose: Tensor, scores: Tensor, config: RansacConfig
) -> tuple[Tensor, Tensor]:
    """Candidates after ``local_rounds`` on the subset; what is no pose stays none."""
    refined, new_scores = refine_on_inliers(
        subset,
        pose,
        scores,
        max_error_px=config.max_error_px,
        score=config.score,
        rounds=config.local_rounds,
        iterations=config.refinement_iterations,
        compile=config.compile,
    )
    return refined, torch.where(scores > _NO_SCORE, new_scores, _NO_SCORE)


def _refined_prior(
    subset: Correspondences, prior: Tensor, config: RansacConfig
) -> tuple[Float[Tensor, "batch 3 4"], Float[Tensor, " batch"]]:
    """The better of the given pose and its refinement, with its score."""
    finite = prior.isfinite().all(-1).all(-1)
    eye = torch.eye(3, 4, dtype=prior.dtype, device=prior.device)
    start = torch.where(finite[:, None, None], prior, eye)[:, None]
    pose = start
    for gate in _PRIOR_GATES:
        nothing = torch.full_like(pose[..., 0, 0], _NO_SCORE)  # any score is better: no step is refused
        pose, _ = refine_on_inliers(
            subset,
            pose,
            nothing,
            max_error_px=gate * config.max_error_px,
            score=config.score,
            rounds=1,
            iterations=config.refinement_iterations,
            compile=config.compile,
        )
    both = torch.cat([start, pose], dim=1)
    pose, scores = _best(both, finite[:, None].expand(-1, 2), subset, 1, config)
    return pose[:, 0], scores[:, 0]


def _confident(subset: Correspondences, pose: Tensor, drawn: int, config: RansacConfig) -> Tensor:
    """Whether ``drawn`` samples have held one of inliers alone with the wanted probability."""
    squared = squared_errors_px(subset, pose[:, None])[:, 0]
    inliers = squared < config.max_error_px**2
    if subset.weights is None:
        share = inliers.sum(-1) / subset.usable.sum(-1).clamp_min(1)
    else:  # samples are drawn by weight
        share = (inliers * subset.weights).sum(-1) / subset.weights.sum(-1)
    missed = drawn * torch.log1p(-share.double().pow(config.sample_size).clamp_max(1 - 1e-12))
    return missed < math.log1p(-config.confidence)
