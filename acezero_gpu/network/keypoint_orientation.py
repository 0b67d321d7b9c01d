"""Whether the keypoints of an image set are better described upright, without an orientation of their own."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from acezero_gpu.network.keypoints import KeypointConfig, detect_keypoints, match_pairs
from acezero_gpu.network.retrieval import look_alike_pairs

UprightKeypoints = Literal["auto", "yes", "no"]
LOOK_ALIKES = 12
"""As many for each image as are matched later."""


@dataclass(frozen=True, slots=True)
class OrientationConfig:
    """When keypoints are described upright."""

    upright: UprightKeypoints = "auto"
    """``auto``: if a few pairs of look-alikes match better so."""
    pairs: int = 48
    """Pairs that are looked at."""
    max_ratio: float = 0.8
    """Matches that count have at most this ratio of distances: pictures of different places have few of them."""
    min_matches: int = 30
    """A pair says something if it has so many by either description."""
    min_share: float = 0.75
    """Where a camera has rolled against the other, a pair has less than this share of its matches when upright."""
    level_share: float = 0.96
    """So many of the pairs must have rolled less than that: where cameras roll a little upright keypoints match more
    often, but less exactly."""
    min_gain: float = 1.05
    """And all together must have so many times the matches."""


def sample_pairs(
    similarity: Float[Tensor, "n n"], count: int, generator: torch.Generator
) -> Int[Tensor, "p 2"]:
    """Up to ``count`` of the pairs of look-alikes that are matched later, drawn at random."""
    pairs = look_alike_pairs(similarity, LOOK_ALIKES)
    return pairs[torch.randperm(len(pairs), generator=generator)[:count]]


def upright_matches_better(
    images: Float[Tensor, "n 1 h w"],
    pairs: Int[Tensor, "p 2"],
    keypoints: KeypointConfig,
    config: OrientationConfig = OrientationConfig(),
) -> bool:
    """Whether these pairs (rows of ``images``, grey in [0, 1]) have more matches without orientations, and hardly any
    of them loses by it; False if too few pairs match at all."""
    strict = replace(keypoints, max_ratio=config.max_ratio)
    estimated, upright = (
        match_pairs(detect_keypoints(images, strict, upright=way), pairs, strict).matched.sum(1).double()
        for way in (False, True)
    )
    says = torch.maximum(estimated, upright) >= config.min_matches
    if not bool(says.any()):
        return False
    level = upright[says] >= config.min_share * estimated[says]
    gain = upright[says].sum() >= config.min_gain * estimated[says].sum()
    return bool(gain) and float(level.double().mean()) >= config.level_share
