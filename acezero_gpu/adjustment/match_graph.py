"""Keypoint matches of many image pairs as flat arrays, and which of them fit given poses."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from acezero_gpu.geometry import PinholeCamera, compose, hat, invert


@dataclass(frozen=True, slots=True)
class PairMatches:
    """Keypoint ``keypoint_a`` of view ``view_a`` shows the same point as ``keypoint_b`` of ``view_b``."""

    view_a: Int[Tensor, " m"]
    view_b: Int[Tensor, " m"]
    keypoint_a: Int[Tensor, " m"]
    keypoint_b: Int[Tensor, " m"]

    def __len__(self) -> int:
        return len(self.view_a)

    def where(self, keep: Bool[Tensor, " m"]) -> "PairMatches":
        """The matches that ``keep`` marks."""
        return PairMatches(self.view_a[keep], self.view_b[keep], self.keypoint_a[keep], self.keypoint_b[keep])

    @staticmethod
    def concatenate(parts: list["PairMatches"], device: torch.device) -> "PairMatches":
        """All matches of all parts."""
        if not parts:
            empty = torch.zeros(0, dtype=torch.long, device=device)
            return PairMatches(empty, empty, empty, empty)
        return PairMatches(
            *(
                torch.cat([getattr(part, name) for part in parts])
                for name in ("view_a", "view_b", "keypoint_a", "keypoint_b")
            )
        )


@dataclass(frozen=True, slots=True)
class PairAgreement:
    """How many matches of every pair of views the poses explain."""

    view_a: Int[Tensor, " p"]
    view_b: Int[Tensor, " p"]
    pair_of_match: Int[Tensor, " m"]
    """The pair that each match belongs to."""
    matches: Int[Tensor, " p"]
    """Matches of the pair."""
    explained: Int[Tensor, " p"]
    """Those of them that the poses explain."""

    def __len__(self) -> int:
        return len(self.view_a)


def pair_agreement(matches: PairMatches, explained: Bool[Tensor, " m"], views: int) -> PairAgreement:
    """Counts matches, and those that are ``explained``, pair by pair."""
    pair, pair_of_match = (matches.view_a * views + matches.view_b).unique(return_inverse=True)
    count = torch.bincount(pair_of_match, minlength=len(pair))
    good = torch.bincount(pair_of_match[explained], minlength=len(pair))
    first = pair.div(views, rounding_mode="floor")
    return PairAgreement(first, pair - first * views, pair_of_match, count, good)


def epipolar_distance_px(
    matches: PairMatches,
    keypoint_pixels: Float[Tensor, "v k 2"],
    cam_from_world: Float[Tensor, "v 3 4"],
    camera: PinholeCamera,
) -> Float[Tensor, " m"]:
    """Sampson distance of every match under the given poses, in pixels.

    ``|x_bᵀ E x_a| / sqrt(|(E x_a)_xy|² + |(Eᵀ x_b)_xy|²)`` with ``E = [t]ₓ R`` of ``b_from_a``, in normalised
    coordinates, times the focal length (Hartley & Zisserman, eq. 11.9).
    """
    b_from_a = compose(cam_from_world[matches.view_b], invert(cam_from_world[matches.view_a]))
    essential = hat(b_from_a[..., 3]) @ b_from_a[..., :3]
    x_a = _rays(camera.normalised(keypoint_pixels[matches.view_a, matches.keypoint_a]))
    x_b = _rays(camera.normalised(keypoint_pixels[matches.view_b, matches.keypoint_b]))
    line_b = (essential @ x_a[..., None])[..., 0]
    line_a = (essential.transpose(-1, -2) @ x_b[..., None])[..., 0]
    scale = line_b[..., :2].square().sum(-1) + line_a[..., :2].square().sum(-1)
    algebraic = (x_b * line_b).sum(-1).abs()
    return algebraic / scale.clamp_min(1e-20).sqrt() * camera.focal_px.mean()


def _rays(normalised: Float[Tensor, "m 2"]) -> Float[Tensor, "m 3"]:
    return torch.cat([normalised, torch.ones_like(normalised[..., :1])], dim=-1)
