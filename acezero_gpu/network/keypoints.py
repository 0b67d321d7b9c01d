"""Sparse keypoints and their matches: SIFT, padded to fixed slots, and mutual nearest neighbours.

They serve where a few exact correspondences say more than many regressed ones: relative poses of image pairs,
tracks for joint refinement. Detection and matching are separate, so that each image is described once however
many pairs it takes part in.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from acezero_gpu.network.sift import kornia_sift, opencv_sift
from acezero_gpu.runtime import chunk_size_for, in_chunks
from acezero_gpu.runtime.progress import report


@dataclass(frozen=True, slots=True)
class Keypoints:
    """A fixed number of slots per image, strongest first; unused slots are zero and not ``valid``."""

    pixels: Float[Tensor, "n k 2"]
    """Position in the image that was given; the centre of the top-left pixel is (0.5, 0.5)."""
    descriptors: Float[Tensor, "n k d"]
    """RootSIFT of unit norm."""
    scores: Float[Tensor, "n k"]
    """Absolute difference-of-Gaussians response."""
    valid: Bool[Tensor, "n k"]
    """Which slots hold a keypoint."""

    def select(self, images: Int[Tensor, " m"]) -> "Keypoints":
        """The keypoints of these images, in this order; an image may appear more than once."""
        return Keypoints(
            self.pixels[images], self.descriptors[images], self.scores[images], self.valid[images]
        )

    def strongest(self, count: int) -> "Keypoints":
        """Only the first ``count`` slots of every image."""
        return Keypoints(
            self.pixels[:, :count],
            self.descriptors[:, :count],
            self.scores[:, :count],
            self.valid[:, :count],
        )


@dataclass(frozen=True, slots=True)
class Matches:
    """For each of the first k slots of image a, the slot of image b that it matches."""

    index_b: Int[Tensor, "pairs k"]
    """Slot in b, or -1 where there is no match."""
    ratio: Float[Tensor, "pairs k"]
    """The larger of the two nearest-to-second-nearest distance ratios (a to b, b to a); 1 without a match."""

    @property
    def matched(self) -> Bool[Tensor, "pairs k"]:
        """Which slots of a have a match."""
        return self.index_b >= 0

    def pixels_a(self, a: Keypoints) -> Float[Tensor, "pairs k 2"]:
        """Where the slots that took part lie in a."""
        return a.pixels[:, : self.index_b.shape[1]]

    def pixels_b(self, b: Keypoints) -> Float[Tensor, "pairs k 2"]:
        """Where the matches lie in b; meaningless where there is no match."""
        return b.pixels.gather(1, self.index_b.clamp_min(0)[..., None].expand(-1, -1, 2))


@dataclass(frozen=True, slots=True)
class KeypointConfig:
    """How keypoints are found, described and matched."""

    library: Literal["auto", "kornia", "opencv"] = "auto"
    """Whose SIFT: OpenCV's on a CPU, where it takes a quarter of the time, and kornia's on every other device, unless
    one is named; OpenCV's runs on a CPU only."""
    per_image: int = 2048
    """Slots per image; the strongest responses fill them."""
    matched: int = 1024
    """Strongest keypoints of each image that take part in matching, unless all are asked for."""
    half_descriptors: bool = True
    """Store descriptors in float16, half the memory; matching computes in float32 either way."""
    max_ratio: float = 0.9
    """A match is kept if nearest distance / second nearest distance is at most this, in both directions."""
    matching_budget_bytes: int = 256 * 2**20
    """Working memory of matching, which sets how many pairs are matched at once; on a CPU at most ``CACHED_BYTES``."""


DEFAULT = KeypointConfig()
CACHED_BYTES = 32 * 2**20
"""More pairs at once than this leave a CPU's caches: 24 instead of 13 ms a pair of 2,048 keypoints on two cores."""
INVALID = 1e4
"""A squared distance that no two unit descriptors have."""


def detect_keypoints(
    images: Float[Tensor, "n 1 h w"], config: KeypointConfig = DEFAULT, *, upright: bool = False
) -> Keypoints:
    """SIFT (Lowe, IJCV 2004) with RootSIFT descriptors (Arandjelović & Zisserman, CVPR 2012).

    ``upright``: described without an orientation of their own, which is more distinctive unless cameras roll.

    Grey images in [0, 1]. Extrema of both signs in scale space, refined to sub-pixel positions. An image with
    too few extrema, such as a blank one, leaves slots empty. Detection is deterministic, but the libraries differ in
    what they find: match only keypoints of the same one. ``ValueError`` for OpenCV's on images that are elsewhere
    than on the CPU.
    """
    if not len(images):
        return _no_keypoints(images, config)
    on_cpu = images.device.type == "cpu"
    if config.library == "opencv" and not on_cpu:
        raise ValueError(f"OpenCV finds keypoints on the CPU only; the images are on {images.device}.")
    by_opencv = on_cpu and config.library != "kornia"
    found = (opencv_sift if by_opencv else kornia_sift)(images, config.per_image, upright=upright)
    valid = found.scores > 0
    return Keypoints(
        torch.where(valid[..., None], found.pixels, 0.0),
        torch.where(valid[..., None], found.descriptors, 0.0).to(_descriptor_dtype(images, config)),
        torch.where(valid, found.scores, 0.0),
        valid,
    )


def match_keypoints(a: Keypoints, b: Keypoints, config: KeypointConfig = DEFAULT) -> Matches:
    """Mutual nearest neighbours that pass the ratio test both ways, row i of ``a`` against row i of ``b``.

    A descriptor with fewer than two candidates on the other side has no ratio and stays unmatched.
    """
    pairs = torch.arange(len(a.valid), device=a.valid.device)
    return _match(a, b, torch.stack([pairs, pairs], dim=-1), config)


def match_pairs(
    keypoints: Keypoints,
    pairs: Int[Tensor, "pairs 2"],
    config: KeypointConfig = DEFAULT,
    *,
    every: bool = False,
) -> Matches:
    """``match_keypoints`` of images ``pairs[:, 0]`` against ``pairs[:, 1]`` without a copy per pair.

    Of the ``config.matched`` strongest keypoints of each image, or of ``every`` keypoint.
    """
    taken = keypoints if every else keypoints.strongest(config.matched)
    return _match(taken, taken, pairs, config)


def _match(a: Keypoints, b: Keypoints, pairs: Int[Tensor, "pairs 2"], config: KeypointConfig) -> Matches:
    slots_a, slots_b = a.valid.shape[1], b.valid.shape[1]
    # similarity, and as much again for what a reduction may copy
    budget = config.matching_budget_bytes
    if a.valid.device.type == "cpu":
        budget = min(budget, CACHED_BYTES)
    chunk = chunk_size_for(2 * 4 * slots_a * slots_b, budget)
    index = torch.empty(len(pairs), slots_a, dtype=torch.long, device=a.valid.device)
    ratio = torch.empty(len(pairs), slots_a, device=a.valid.device)

    def match(part: slice) -> None:
        rows_a, rows_b = pairs[part].unbind(-1)
        index[part], ratio[part] = _match_chunk(
            a.descriptors[rows_a], b.descriptors[rows_b], a.valid[rows_a], b.valid[rows_b], config.max_ratio
        )
        report(part.stop, len(pairs), "pairs matched")

    in_chunks("matching", len(pairs), chunk, match)
    return Matches(index, ratio)


def _match_chunk(
    descriptors_a: Float[Tensor, "p ka d"],
    descriptors_b: Float[Tensor, "p kb d"],
    valid_a: Bool[Tensor, "p ka"],
    valid_b: Bool[Tensor, "p kb"],
    max_ratio: float,
) -> tuple[Int[Tensor, "p ka"], Float[Tensor, "p ka"]]:
    # Descriptors have unit norm, so the largest product is the smallest distance: |a - b|² = 2 - 2 a·b. Two
    # more entries carry validity into the same product, which saves passes over the large matrix.
    left = torch.cat([descriptors_a.float(), _penalty(valid_a), torch.ones_like(_penalty(valid_a))], dim=-1)
    right = torch.cat([descriptors_b.float(), torch.ones_like(_penalty(valid_b)), _penalty(valid_b)], dim=-1)
    similarity = left @ right.transpose(1, 2)
    # On a CPU ``max`` with indices takes twice the time.
    nearest_b = similarity.argmax(dim=2)
    best_ab = similarity.gather(2, nearest_b[..., None])[..., 0]
    best_ba = similarity.amax(dim=1)
    # Ties pass here, and fail the ratio test.
    mutual = best_ba.gather(1, nearest_b) == best_ab
    # Without the mutual matches, the best that is left of their rows and columns is what was second.
    blank = torch.where(mutual, -INVALID, best_ab)
    similarity.scatter_(2, nearest_b[..., None], blank[..., None])
    second_ab, second_ba = similarity.amax(dim=2), similarity.amax(dim=1).gather(1, nearest_b)
    ratio = torch.maximum(_ratio(best_ab, second_ab), _ratio(best_ab, second_ba))
    matched = valid_a & mutual & (ratio <= max_ratio)
    return torch.where(matched, nearest_b, -1), torch.where(matched, ratio, 1.0)


def _penalty(valid: Bool[Tensor, "p k"]) -> Float[Tensor, "p k 1"]:
    return torch.where(valid, 0.0, -INVALID)[..., None]


def _ratio(best: Float[Tensor, "p k"], second: Float[Tensor, "p k"]) -> Float[Tensor, "p k"]:
    """Distance over second distance for these products; inf if undefined."""
    squared, limit = ((2 - 2 * x).clamp_min(0.0) for x in (best, second))
    defined = (squared < INVALID) & (limit < INVALID) & (limit > 0)
    return torch.where(defined, (squared / torch.where(defined, limit, 1.0)).sqrt(), torch.inf)


def _descriptor_dtype(images: Tensor, config: KeypointConfig) -> torch.dtype:
    return torch.float16 if config.half_descriptors else images.dtype


def _no_keypoints(images: Float[Tensor, "0 1 h w"], config: KeypointConfig) -> Keypoints:
    empty = images.new_zeros(0, config.per_image)
    return Keypoints(
        images.new_zeros(0, config.per_image, 2),
        images.new_zeros(0, config.per_image, 128, dtype=_descriptor_dtype(images, config)),
        empty,
        empty.bool(),
    )
