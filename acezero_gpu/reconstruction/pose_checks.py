"""Which registered images contradict the others, by what the matches of image pairs say."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from acezero_gpu.adjustment.agreeing_parts import agreeing_parts
from acezero_gpu.adjustment.match_graph import (
    PairAgreement,
    PairMatches,
    epipolar_distance_px,
    pair_agreement,
)
from acezero_gpu.geometry import PinholeCamera, undistort_pixels
from acezero_gpu.reconstruction.two_view import OverlapChecks, OverlapConfig

FULL_EVIDENCE = 100
"""Matches from which on a pair's evidence counts fully; with fewer it counts in proportion."""


@dataclass(frozen=True, slots=True)
class PoseCheckConfig:
    """When the poses of two images are taken to agree with their matches."""

    max_error_px: float = 6.0
    """Distance from the epipolar line of a match that the poses explain, in pixels at a shortest side of 480."""
    min_explained: int = 15
    """Fewer explained matches than this say nothing for a pair."""
    min_share: float = 0.5
    """Poses agree if they explain this share of a pair's matches, or of the inliers of its own relative pose."""
    overlap: OverlapConfig = field(default_factory=OverlapConfig)


@dataclass(frozen=True, slots=True)
class PoseCheck:
    """One entry per view."""

    part: Int[Tensor, " v"]
    """Views of one part agree; 0 is the largest."""
    contradicted: Bool[Tensor, " v"]
    """Outside the largest part, and a pair with one of its views shows the same place at other poses."""


def check_poses(
    graph: PairMatches,
    keypoint_pixels: Float[Tensor, "v k 2"],
    cam_from_world: Float[Tensor, "v 3 4"],
    camera: PinholeCamera,
    radial: Float[Tensor, " 2"],
    views: Int[Tensor, " v"],
    overlaps: OverlapChecks,
    config: PoseCheckConfig,
    *,
    pixel_scale: float,
    generator: torch.Generator,
) -> PoseCheck:
    """Splits the views into parts that agree; ``views`` are the images that the rows stand for.

    Where poses explain most matches of a pair, they agree. Where not, the pair either does not overlap or is posed
    wrongly, and its own relative pose decides; it is estimated for such pairs only.
    """
    straight = undistort_pixels(keypoint_pixels, camera, radial)
    distance = epipolar_distance_px(graph, straight, cam_from_world, camera)
    near = distance < config.max_error_px * pixel_scale
    pairs = pair_agreement(graph, near, len(views))
    share = pairs.explained / pairs.matches.clamp_min(1)
    agree = (share >= config.min_share) & (pairs.explained >= config.min_explained)
    evidence = torch.where(agree, strength(pairs.explained), 0.0)
    doubtful = (~agree).nonzero()[:, 0]
    if len(doubtful):
        evidence[doubtful] = _of_overlaps(
            pairs, doubtful, near, camera, radial, views, overlaps, config, generator
        )
    part = agreeing_parts(pairs.view_a, pairs.view_b, evidence, len(views))
    across = (part[pairs.view_a] == 0) != (part[pairs.view_b] == 0)
    against = across & (evidence < 0)
    contradicted = torch.zeros_like(part, dtype=torch.bool)
    contradicted[pairs.view_a[against]] = True
    contradicted[pairs.view_b[against]] = True
    return PoseCheck(part, contradicted & (part != 0))


def strength(count: Int[Tensor, " p"]) -> Float[Tensor, " p"]:
    """Between 0 and 1, by the number of matches that speak."""
    return count.clamp_max(FULL_EVIDENCE) / FULL_EVIDENCE


def _of_overlaps(
    pairs: PairAgreement,
    doubtful: Int[Tensor, " d"],
    near: Bool[Tensor, " m"],
    camera: PinholeCamera,
    radial: Float[Tensor, " 2"],
    views: Int[Tensor, " v"],
    overlaps: OverlapChecks,
    config: PoseCheckConfig,
    generator: torch.Generator,
) -> Float[Tensor, " d"]:
    """Evidence of the pairs whose poses do not explain most matches: 0 for those that do not overlap."""
    images = torch.stack([views[pairs.view_a[doubtful]], views[pairs.view_b[doubtful]]], dim=-1)
    inliers = overlaps.inliers(images, camera, radial, generator)
    # The matches of a pair stand together and in the order that the overlap was judged in.
    near_of_pair = near[pairs.pair_of_match.argsort(stable=True)].split(pairs.matches.tolist())
    overlapping = torch.stack([found.sum() for found in inliers])
    explained = torch.stack(
        [(found & near_of_pair[row]).sum() for found, row in zip(inliers, doubtful.tolist(), strict=True)]
    )
    sign = torch.where(explained >= config.min_share * overlapping, 1.0, -1.0)
    return sign * strength(overlapping)
