"""What the matches of two images say by themselves, whatever poses the images have been given."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from acezero_gpu.geometry import PinholeCamera, undistort_pixels
from acezero_gpu.ransac.relative_pose import RelativePoseConfig, RelativePoseResult, estimate_relative_pose
from acezero_gpu.reconstruction.image_bank import ImageBank
from acezero_gpu.reconstruction.matching import MatchStore

PAIRS_AT_ONCE = 32
"""Pairs of similar numbers of matches are solved together, so that little is padding."""


@dataclass(frozen=True, slots=True)
class OverlapConfig:
    """When two images are taken to show the same place."""

    max_error_px: float = 4.0
    """Sampson distance of an inlier, in pixels at a shortest side of 480; scaled with the resolution."""
    min_inliers: int = 40
    """Inliers of the pair's own relative pose: chance gives some to any pair."""
    min_share: float = 0.4
    """Share of the matches that must be inliers."""
    hypotheses: int = 256
    """Samples of five matches."""


@dataclass(frozen=True, slots=True)
class PairRays:
    """Matches of pairs as normalised image coordinates, padded to the longest."""

    a: Float[Tensor, "p n 2"]
    b: Float[Tensor, "p n 2"]
    mask: Bool[Tensor, "p n"]


def pair_rays(
    bank: ImageBank,
    matches: MatchStore,
    pairs: Int[Tensor, "p 2"],
    camera: PinholeCamera,
    radial: Float[Tensor, " 2"] | None = None,
) -> PairRays:
    """Undistorted and normalised matches of every pair, first image's side first."""
    pixels = bank.keypoints(pairs.flatten()).pixels
    radial = torch.zeros_like(camera.focal_px) if radial is None else radial
    found = [matches.slots(a, b) for a, b in pairs.tolist()]
    most = max(5, *(len(slots) for slots, _ in found))
    rays_a, rays_b = (pixels.new_zeros(len(found), most, 2) for _ in range(2))
    mask = torch.zeros(len(found), most, dtype=torch.bool, device=pixels.device)
    for row, ((a, b), (slots_a, slots_b)) in enumerate(zip(pairs.tolist(), found, strict=True)):
        rays_a[row, : len(slots_a)] = pixels[a, slots_a]
        rays_b[row, : len(slots_b)] = pixels[b, slots_b]
        mask[row, : len(slots_a)] = True
    rays_a, rays_b = (camera.normalised(undistort_pixels(rays, camera, radial)) for rays in (rays_a, rays_b))
    return PairRays(rays_a, rays_b, mask)


class OverlapChecks:
    """Which pairs show the same place by their own relative pose; no pair is judged twice by the same matches."""

    def __init__(self, bank: ImageBank, matches: MatchStore, config: OverlapConfig) -> None:
        self._bank, self._matches, self._config = bank, matches, config
        self._inliers: dict[tuple[int, int], Tensor] = {}

    def inliers(
        self,
        pairs: Int[Tensor, "p 2"],
        camera: PinholeCamera,
        radial: Float[Tensor, " 2"],
        generator: torch.Generator,
    ) -> list[Bool[Tensor, " m"]]:
        """For each pair (smaller image first), which of its matches are inliers; none of a pair that does not overlap.

        In the order of ``MatchStore.slots``.
        """
        keys = [(a, b) for a, b in pairs.tolist()]
        count = {key: len(self._matches.slots(*key)[0]) for key in keys}
        # A pair that has been matched again, by more keypoints, is judged again.
        missing = [key for key in count if key not in self._inliers or len(self._inliers[key]) != count[key]]
        missing.sort(key=lambda key: (count[key], key))
        for first in range(0, len(missing), PAIRS_AT_ONCE):
            self._judge(missing[first : first + PAIRS_AT_ONCE], camera, radial, generator)
        return [self._inliers[key] for key in keys]

    def _judge(
        self,
        pairs: list[tuple[int, int]],
        camera: PinholeCamera,
        radial: Float[Tensor, " 2"],
        generator: torch.Generator,
    ) -> None:
        config = self._config
        rays = pair_rays(self._bank, self._matches, torch.tensor(pairs), camera, radial)
        max_error = config.max_error_px * self._bank.pixel_scale / float(camera.focal_px[0])
        found = estimate_relative_pose(
            rays.a,
            rays.b,
            RelativePoseConfig(hypotheses=config.hypotheses, max_error=max_error),
            mask=rays.mask,
            generator=generator,
        )
        overlap = self._overlapping(found, rays.mask.sum(1))
        for row, pair in enumerate(pairs):
            self._inliers[pair] = (found.inliers[row] & overlap[row])[rays.mask[row]]

    def _overlapping(self, found: RelativePoseResult, matches: Int[Tensor, " p"]) -> Bool[Tensor, " p"]:
        count = found.inlier_count
        return found.ok & (count >= self._config.min_inliers) & (count >= self._config.min_share * matches)
