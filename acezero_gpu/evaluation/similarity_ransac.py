"""Robust fit of a similarity between two sets of cameras: samples, truncated score, refits on inliers."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from acezero_gpu.geometry import Similarity, fit_similarity, nearest_rotation
from acezero_gpu.runtime import chunk_ranges, chunk_size_for

CHUNK_BYTES = 64 * 2**20
"""Working memory of one block of hypotheses."""

JOINT_FIT_ROUNDS = 10
"""Alternations between scale and rotation when orientations take part; each lowers the cost."""


@dataclass(frozen=True, slots=True)
class SimilarityProblem:
    """The usable cameras; ``rotation`` is each one's own opinion of the similarity's rotation."""

    source: Float[Tensor, "m 3"]
    target: Float[Tensor, "m 3"]
    rotation: Float[Tensor, "m 3 3"]
    tolerance: float
    rotation_tolerance_deg: float
    with_scale: bool
    use_orientations: bool


@dataclass(frozen=True, slots=True)
class ScoredSimilarities:
    """Hypotheses with their truncated squared error (lower is better) and inliers."""

    similarity: Similarity
    cost: Float[Tensor, " k"]
    inliers: Bool[Tensor, "k m"]


def draw_samples(
    cameras: int, size: int, count: int, generator: torch.Generator
) -> Int[Tensor, "samples size"]:
    """Sets of ``size`` (at most 3) different cameras: all of them if there are no more than ``count``."""
    if math.comb(cameras, size) <= count:
        return torch.combinations(torch.arange(cameras), size)
    # The k-th draw is among the cameras - k that are left; stepping over those taken, lowest first,
    # maps it back.
    drawn: list[Tensor] = []
    for taken in range(size):
        index = torch.randint(cameras - taken, (count,), generator=generator)
        for previous in torch.stack(drawn).sort(0).values if drawn else ():
            index = index + (index >= previous)
        drawn.append(index)
    return torch.stack(drawn, dim=-1)


def fit_cameras(
    problem: SimilarityProblem,
    source: Float[Tensor, "k p 3"],
    target: Float[Tensor, "k p 3"],
    rotation: Float[Tensor, "k p 3 3"],
    weights: Float[Tensor, "k p"],
) -> Similarity:
    """Weighted least squares, on centres alone or together with the orientations.

    With orientations: minimise ``Σ w |g - s R c - t|² / τ² + Σ w ‖R - R_i‖² / (2 ρ²)`` with the tolerances
    ``τ`` and ``ρ`` (``‖R - R_i‖² ≈ 2 θ²`` for a small angle θ). For a fixed scale the rotation is the
    projection of ``2 s C/τ² + Σ w R_i/ρ²`` onto SO(3), where ``C = Σ w g₀ c₀ᵀ``; for a fixed rotation the
    scale is ``tr(Rᵀ C) / Σ w |c₀|²``.
    """
    if not problem.use_orientations:
        return fit_similarity(source, target, weights, with_scale=problem.with_scale)
    tiny = torch.finfo(weights.dtype).tiny
    weights = weights / weights.sum(-1, keepdim=True).clamp_min(tiny)
    source_mean = (weights[..., None] * source).sum(-2)
    target_mean = (weights[..., None] * target).sum(-2)
    source_0, target_0 = source - source_mean[:, None], target - target_mean[:, None]
    covariance = (weights[..., None] * target_0).transpose(-1, -2) @ source_0
    variance = (weights * source_0.square().sum(-1)).sum(-1).clamp_min(tiny)
    rotation_tolerance = math.radians(problem.rotation_tolerance_deg)
    orientation = (weights[..., None, None] * rotation).sum(-3) / rotation_tolerance**2
    fitted = nearest_rotation(orientation)
    scale = torch.ones_like(variance)
    for _ in range(JOINT_FIT_ROUNDS):
        if problem.with_scale:
            scale = ((fitted * covariance).sum((-1, -2)) / variance).clamp_min(0.0)
        fitted = nearest_rotation(2 * scale[:, None, None] * covariance / problem.tolerance**2 + orientation)
    translation = target_mean - scale[:, None] * (fitted @ source_mean[..., None])[..., 0]
    return Similarity(scale, fitted, translation)


def _errors(
    problem: SimilarityProblem, similarity: Similarity
) -> tuple[Float[Tensor, "k m"], Bool[Tensor, "k m"]]:
    """Position error of every camera under every hypothesis, and whether its orientation agrees."""
    count = similarity.scale.shape[0]
    moved = similarity.apply(problem.source.expand(count, -1, -1))
    position = (moved - problem.target).norm(dim=-1)
    trace = similarity.rotation.flatten(1) @ problem.rotation.flatten(1).T
    return position, trace > 1 + 2 * math.cos(math.radians(problem.rotation_tolerance_deg))


def score_similarities(problem: SimilarityProblem, similarity: Similarity) -> ScoredSimilarities:
    """``Σ min(1, (error / tolerance)²)`` over the cameras, 1 for each whose orientation disagrees."""
    position, oriented = _errors(problem, similarity)
    inliers = (position < problem.tolerance) & oriented
    cost = torch.where(inliers, (position / problem.tolerance).square(), 1.0).sum(-1)
    return ScoredSimilarities(similarity, cost, inliers)


def _sample_fits(problem: SimilarityProblem, samples: Int[Tensor, "k p"]) -> Similarity:
    weights = torch.ones(samples.shape, dtype=problem.source.dtype, device=problem.source.device)
    return fit_cameras(
        problem, problem.source[samples], problem.target[samples], problem.rotation[samples], weights
    )


def _sample_chunks(problem: SimilarityProblem, samples: Int[Tensor, "k p"]) -> list[Int[Tensor, "chunk p"]]:
    rows = chunk_size_for(12 * 8 * problem.source.shape[0], CHUNK_BYTES)
    return [samples[part] for part in chunk_ranges(samples.shape[0], rows)]


def best_samples(problem: SimilarityProblem, samples: Int[Tensor, "k p"], keep: int) -> ScoredSimilarities:
    """The ``keep`` samples of lowest cost."""
    chunks = _sample_chunks(problem, samples)
    cost = torch.cat([score_similarities(problem, _sample_fits(problem, chunk)).cost for chunk in chunks])
    best = cost.topk(min(keep, cost.shape[0]), largest=False).indices
    return score_similarities(problem, _sample_fits(problem, samples[best]))


def refine(problem: SimilarityProblem, start: ScoredSimilarities, rounds: int) -> ScoredSimilarities:
    """Refits each hypothesis on its inliers; one that a fit would make worse keeps what it has."""
    count = start.cost.shape[0]
    source, target = problem.source.expand(count, -1, -1), problem.target.expand(count, -1, -1)
    rotation = problem.rotation.expand(count, -1, -1, -1)
    best = start
    for _ in range(rounds):
        fit = fit_cameras(problem, source, target, rotation, best.inliers.to(source.dtype))
        new = score_similarities(problem, fit)
        better = new.cost <= best.cost
        best = ScoredSimilarities(
            Similarity(
                torch.where(better, new.similarity.scale, best.similarity.scale),
                torch.where(better[:, None, None], new.similarity.rotation, best.similarity.rotation),
                torch.where(better[:, None], new.similarity.translation, best.similarity.translation),
            ),
            torch.where(better, new.cost, best.cost),
            torch.where(better[:, None], new.inliers, best.inliers),
        )
    return best


def least_median(problem: SimilarityProblem, samples: Int[Tensor, "k p"]) -> Similarity:
    """The sample whose median position error over all usable cameras is smallest."""
    chunks = _sample_chunks(problem, samples)
    medians = torch.cat(
        [_errors(problem, _sample_fits(problem, part))[0].median(-1).values for part in chunks]
    )
    return _sample_fits(problem, samples[medians.argmin()][None])[0]
