"""The relative pose of image pairs from calibrated matches, batched over pairs."""

from dataclasses import dataclass
from enum import IntEnum

import pypose as pp
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from acezero_gpu.geometry import se3_from_matrix
from acezero_gpu.pnp.robust_loss import robust_loss
from acezero_gpu.ransac.degeneracy import count_homography_inliers, count_rotation_inliers
from acezero_gpu.ransac.epipolar import (
    MIN_MATCHES,
    SOLUTION_SLOTS,
    MatchMoments,
    essential_hypotheses,
    essential_matrix,
    gather_matches,
    in_front,
    poses_of_essential,
    ray_angle_deg,
    refine_relative_pose,
    sample_matches,
    sampson_squared,
)
from acezero_gpu.runtime import chunk_size_for, in_chunks

SHORTLIST = 64
"""Hypotheses per pair that are scored on all matches, after all were scored on ``preselection_matches``."""
TUKEY_SCALE = 1.5
"""Candidates are refined with Tukey's loss, whose weight reaches zero here, in units of ``max_error``."""
CAUCHY_SCALE = 0.25
"""Scale of the Cauchy loss of the last refinement, in units of ``max_error``. On photographs it takes up to a
third off the error that Tukey's loss leaves; on noise that is truly Gaussian it adds about a tenth."""
SUBSTITUTES = 64
"""Samples for the rotation and for the homography, drawn from the inliers of the relative pose."""


class RelativePoseStatus(IntEnum):
    """Outcome for one pair; stored as int64 in tensors."""

    OK = 0
    TOO_FEW_MATCHES = 1
    NO_MODEL = 2


@dataclass(frozen=True, slots=True)
class RelativePoseConfig:
    """How matches are turned into a relative pose."""

    hypotheses: int = 512
    """Five-match samples per pair; each gives up to ten essential matrices."""
    max_error: float = 0.003
    """A match is an inlier below this Sampson distance in normalised units: pixels / focal length."""
    preselection_matches: int = 128
    """Every hypothesis is first scored on this many random matches."""
    refined: int = 8
    """How many of the best hypotheses are refined before the winner is chosen."""
    refinement_iterations: int = 5
    """Steps for each of these; the winner then gets twice as many."""
    budget_bytes: int = 256 * 2**20
    """Working memory, which sets how many pairs are solved at once; it does not change results."""


DEFAULT = RelativePoseConfig()


@dataclass(frozen=True, slots=True)
class RelativePoseResult:
    """One row per pair."""

    b_from_a: Float[Tensor, "b 7"]
    """pypose SE3 with a translation of length 1; ``R = I, t = (0, 0, 1)`` where ``status`` is not OK."""
    inliers: Bool[Tensor, "b n"]
    """Matches within ``max_error`` that lie in front of both cameras."""
    inlier_count: Int[Tensor, " b"]
    """Number of inliers. Some are chance: the essential matrix constrains one coordinate of a match only."""
    score: Float[Tensor, " b"]
    """``Σ max(0, 1 - (distance / max_error)²)`` over the inliers (MSAC): what is maximised."""
    median_angle_deg: Float[Tensor, " b"]
    """Median triangulation angle of the inliers; below about one degree the translation says little."""
    rotation_only_inlier_count: Int[Tensor, " b"]
    """Matches that a turn about the camera's centre explains; near ``inlier_count``, ``t`` is arbitrary."""
    homography_inlier_count: Int[Tensor, " b"]
    """Matches that one plane explains: near ``inlier_count``, a second relative pose may fit as well."""
    status: Int[Tensor, " b"]
    """A ``RelativePoseStatus`` code."""

    @property
    def ok(self) -> Bool[Tensor, " b"]:
        """Pairs with a pose; whether it can be trusted is told by the counts and the angle."""
        return self.status == RelativePoseStatus.OK


def estimate_relative_pose(
    rays_a: Float[Tensor, "b n 2"],
    rays_b: Float[Tensor, "b n 2"],
    config: RelativePoseConfig = DEFAULT,
    *,
    generator: torch.Generator,
    mask: Bool[Tensor, "b n"] | None = None,
) -> RelativePoseResult:
    """RANSAC for ``x_bᵀ [t]× R x_a = 0``, ``b_from_a = [R | t]``, from normalised image coordinates.

    Five-match samples, MSAC score by Sampson distance, the side in front of the cameras among the four poses
    of each shortlisted essential matrix, then Levenberg-Marquardt on the Sampson distance with a robust loss
    (Nistér, PAMI 2004; Torr & Zisserman, CVIU 2000; Lebeda et al., BMVC 2012). Slots outside ``mask`` or not
    finite are ignored. A pair with fewer than five matches or without a real solution has a status, no pose.
    A pair without parallax, or of a planar scene, still gets the pose that scores best: compare the counts.
    """
    b, n = rays_a.shape[:2]
    finite = torch.isfinite(rays_a).all(-1) & torch.isfinite(rays_b).all(-1)
    mask = finite if mask is None else mask & finite
    draws = _Draws.make(b, n, config, generator, rays_a.device)
    clean_a, clean_b = (torch.where(mask[..., None], rays, 0.0) for rays in (rays_a, rays_b))
    screened = SOLUTION_SLOTS * config.hypotheses * min(config.preselection_matches, n)
    per_pair = 4 * 3 * screened + 8 * n * (3 * SHORTLIST + 30 * config.refined)
    parts = in_chunks(
        "relative poses",
        b,
        chunk_size_for(per_pair, config.budget_bytes),
        lambda part: _solve(clean_a[part], clean_b[part], mask[part], draws.part(part), config),
    )
    if not parts:
        return _nothing(rays_a)
    return RelativePoseResult(*(torch.cat(column) for column in zip(*parts, strict=True)))


@dataclass(frozen=True, slots=True)
class _Draws:
    """All random numbers of a call, drawn at once: how many pairs are solved together changes no result."""

    samples: Float[Tensor, "b h 5"]
    order: Float[Tensor, "b n"]
    rotations: Float[Tensor, "b s 2"]
    homographies: Float[Tensor, "b s 4"]

    @classmethod
    def make(
        cls, b: int, n: int, config: RelativePoseConfig, generator: torch.Generator, device: torch.device
    ) -> "_Draws":
        shapes = ((b, config.hypotheses, 5), (b, n), (b, SUBSTITUTES, 2), (b, SUBSTITUTES, 4))
        return cls(*(torch.rand(shape, generator=generator).to(device) for shape in shapes))

    def part(self, part: slice) -> "_Draws":
        return _Draws(self.samples[part], self.order[part], self.rotations[part], self.homographies[part])


def _solve(
    rays_a: Float[Tensor, "b n 2"],
    rays_b: Float[Tensor, "b n 2"],
    mask: Bool[Tensor, "b n"],
    draws: _Draws,
    config: RelativePoseConfig,
) -> tuple[Tensor, ...]:
    """The fields of ``RelativePoseResult`` for some pairs. Screening runs in float32, the rest in float64."""
    matches = _Matches(rays_a.double(), rays_b.double(), mask, config)
    a, b = matches.rays_a, matches.rays_b
    few = torch.where(mask, draws.order, -1.0).topk(min(config.preselection_matches, mask.shape[1])).indices
    slots = sample_matches(mask, draws.samples)
    essential, real = essential_hypotheses(gather_matches(a, slots), gather_matches(b, slots))
    pose, gain, inliers = matches.best_pose(_shortlist(essential, real, matches, few))

    enough = mask.sum(1) >= MIN_MATCHES
    ok = enough & real.any(1)
    inliers = inliers & ok[:, None]
    angle = torch.where(inliers, ray_angle_deg(pose, a, b), torch.nan).nanmedian(dim=1).values
    failed = torch.where(enough, int(RelativePoseStatus.NO_MODEL), int(RelativePoseStatus.TOO_FEW_MATCHES))
    return (
        _se3_or_default(pose, ok).to(rays_a.dtype),
        inliers,
        inliers.sum(1),
        torch.where(ok, gain, 0.0).to(rays_a.dtype),
        torch.nan_to_num(angle, 0.0).to(rays_a.dtype),
        count_rotation_inliers(a, b, mask, inliers, few, config.max_error, draws.rotations),
        count_homography_inliers(a, b, mask, inliers, few, config.max_error, draws.homographies),
        torch.where(ok, int(RelativePoseStatus.OK), failed),
    )


class _Matches:
    """The matches of some pairs, and how well poses explain them."""

    def __init__(
        self,
        rays_a: Float[Tensor, "b n 2"],
        rays_b: Float[Tensor, "b n 2"],
        mask: Bool[Tensor, "b n"],
        config: RelativePoseConfig,
    ) -> None:
        self.rays_a, self.rays_b, self.mask, self.config = rays_a, rays_b, mask, config
        self.moments = MatchMoments.of(rays_a, rays_b)

    def best_pose(
        self, essential: Float[Tensor, "b k 3 3"]
    ) -> tuple[Float[Tensor, "b 3 4"], Float[Tensor, " b"], Bool[Tensor, "b n"]]:
        """The pose that scores best once each candidate is refined, with its score and inliers."""
        sides = poses_of_essential(essential)
        gain, _ = self.score(sides.flatten(1, 2))
        side = gain.unflatten(1, (-1, 4)).argmax(2)
        poses = sides.gather(2, side[:, :, None, None, None].expand(-1, -1, 1, 3, 4))[:, :, 0]
        poses = self.refine(poses)
        gain, _ = self.score(poses)
        rows = torch.arange(len(poses), device=poses.device)
        winner = self.polish(poses[rows, gain.argmax(1)][:, None])
        gain, inliers = self.score(winner)
        return winner[:, 0], gain[:, 0], inliers[:, 0]

    def score(self, poses: Float[Tensor, "b m 3 4"]) -> tuple[Float[Tensor, "b m"], Bool[Tensor, "b m n"]]:
        """MSAC score and inliers, of which only those in front of both cameras count."""
        relative = sampson_squared(essential_matrix(poses), self.moments) / self.config.max_error**2
        inliers = self.mask[:, None] & (relative < 1) & self.in_front(poses)
        return ((1 - relative) * inliers).sum(-1), inliers

    def refine(self, poses: Float[Tensor, "b m 3 4"]) -> Float[Tensor, "b m 3 4"]:
        """Towards the nearest good score: matches may become inliers on the way, and cease to be."""
        usable = self.mask[:, None] & self.in_front(poses)
        scale, steps = TUKEY_SCALE * self.config.max_error, self.config.refinement_iterations
        return refine_relative_pose(poses, self.moments, usable, robust_loss("tukey"), scale, steps)

    def polish(self, poses: Float[Tensor, "b m 3 4"]) -> Float[Tensor, "b m 3 4"]:
        """The inliers' opinion: most keypoints are far more exact than the threshold, some are not."""
        _, inliers = self.score(poses)
        scale, steps = CAUCHY_SCALE * self.config.max_error, 2 * self.config.refinement_iterations
        return refine_relative_pose(poses, self.moments, inliers, robust_loss("cauchy"), scale, steps)

    def in_front(self, poses: Float[Tensor, "b m 3 4"]) -> Bool[Tensor, "b m n"]:
        return in_front(poses, self.rays_a, self.rays_b, self.config.max_error)


def _shortlist(
    essential: Float[Tensor, "b m 3 3"],
    real: Bool[Tensor, "b m"],
    matches: _Matches,
    few: Int[Tensor, "b s"],
) -> Float[Tensor, "b k 3 3"]:
    """The hypotheses worth refining: all are scored on few matches, the best of them on all matches."""
    config = matches.config

    def best(count: int, moments: MatchMoments, mask: Tensor) -> None:
        nonlocal essential, real
        relative = sampson_squared(essential.float(), moments).div_(-(config.max_error**2)).add_(1.0)
        gain = (relative.clamp_min_(0.0) @ mask.float()[..., None])[..., 0]
        kept = torch.where(real, gain, -1.0).topk(min(count, gain.shape[1]), dim=1).indices
        essential = essential.gather(1, kept[..., None, None].expand(-1, -1, 3, 3))
        real = real.gather(1, kept)

    screening = matches.moments.float()
    best(SHORTLIST, screening.take(few), matches.mask.gather(1, few))
    best(config.refined, screening, matches.mask)
    return essential


def _se3_or_default(pose: Float[Tensor, "b 3 4"], ok: Bool[Tensor, " b"]) -> pp.LieTensor:
    default = torch.eye(3, 4, dtype=pose.dtype, device=pose.device)
    default[2, 3] = 1.0
    return se3_from_matrix(torch.where(ok[:, None, None], pose, default))


def _nothing(rays: Float[Tensor, "0 n 2"]) -> RelativePoseResult:
    count = torch.zeros(0, dtype=torch.long, device=rays.device)
    none = rays.new_zeros(0)
    mask = torch.zeros(rays.shape[:2], dtype=torch.bool, device=rays.device)
    pose = pp.SE3(rays.new_zeros(0, 7))
    return RelativePoseResult(pose, mask, count, none, none, count, count, count)
