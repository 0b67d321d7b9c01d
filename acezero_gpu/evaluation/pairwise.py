"""Errors of relative poses over all pairs of images: they need no alignment."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from acezero_gpu.geometry import camera_centres
from acezero_gpu.runtime import chunk_ranges

PAIRS_PER_CHUNK = 1_000_000
"""About 0.3 GB of working memory."""

NO_BASELINE_SHARE = 1e-6
"""Two true centres closer than this share of the largest true baseline have no direction between them."""


@dataclass(frozen=True, slots=True)
class PairwiseErrors:
    """One entry per pair ``i < j``, in the order of ``torch.triu_indices``; inf if either image failed."""

    rotation_deg: Float[Tensor, " pairs"]
    """Angle between the estimated and the true ``R_i R_jᵀ``."""
    direction_deg: Float[Tensor, " pairs"]
    """Angle between the estimated and the true position of camera j in the frame of camera i; NaN if the true
    cameras stand in one place, so that no direction exists."""

    def rotation_accuracy(self, threshold_deg: float) -> float:
        """RRA: share of pairs whose rotation error is below the threshold; NaN without pairs."""
        return _share(self.rotation_deg < threshold_deg)

    def direction_accuracy(self, threshold_deg: float) -> float:
        """RTA: share of pairs with a true baseline whose direction error is below the threshold."""
        return _share(self.direction_deg[~self.direction_deg.isnan()] < threshold_deg)

    def area_under_curve(self, max_threshold_deg: int = 30) -> float:
        """AUC: mean, over thresholds of 1, 2, … degrees, of the share of pairs whose worse error is below.

        The worse of a pair's two errors is counted, as the evaluation programs of PoseDiffusion and VGGT do;
        the papers' words (the lower of the two accuracies at each threshold) would give at least this much.
        """
        worse = torch.where(
            self.direction_deg.isnan(), self.rotation_deg, self.rotation_deg.maximum(self.direction_deg)
        )
        if worse.numel() == 0:
            return math.nan
        # An error e counts at the thresholds k > e, that is at max - floor(e) of them.
        passed = (max_threshold_deg - worse.floor()).clamp(0, max_threshold_deg)
        return float((passed / max_threshold_deg).mean())


def pairwise_errors(
    estimate: Float[Tensor, "n 3 4"],
    truth: Float[Tensor, "n 3 4"],
    registered: Bool[Tensor, " n"],
    *,
    signed_directions: bool = False,
) -> PairwiseErrors:
    """Relative rotation and translation-direction errors of every pair of ``cam_from_world`` poses.

    With ``Q_i = R_true_iᵀ R_est_i`` the error of a relative rotation is the angle between ``Q_i`` and
    ``Q_j``, and that of a direction is the angle between ``g_j - g_i`` and ``Q_i (c_j - c_i)`` for centres g
    (true) and c (estimated). Both are free of the choice of world frame and scale.

    Directions are compared up to sign (0 to 90 degrees) unless ``signed_directions``: this is the custom of
    PoseDiffusion (Wang et al., ICCV 2023) and VGGT (Wang et al., CVPR 2025), inherited from essential
    matrices. A pair whose estimated centres coincide although the true ones do not has an error of 180
    degrees.
    """
    estimate, truth = estimate.double(), truth.double()
    registered = registered & estimate.isfinite().flatten(1).all(-1)
    identity = torch.eye(3, 4, dtype=estimate.dtype, device=estimate.device)
    estimate = torch.where(registered[:, None, None], estimate, identity)
    own_rotation = truth[..., :3].transpose(-1, -2) @ estimate[..., :3]
    centres, true_centres = camera_centres(estimate), camera_centres(truth)

    first, second = torch.triu_indices(len(truth), len(truth), offset=1, device=truth.device)
    rounding = 1e-12 * centres.abs().max() if len(centres) else 0.0
    rotations, directions, baselines = [], [], []
    for part in chunk_ranges(first.shape[0], PAIRS_PER_CHUNK):
        i, j = first[part], second[part]
        rotations.append(_angle_between_rotations_deg(own_rotation[i], own_rotation[j]))
        true_baseline = true_centres[j] - true_centres[i]
        baseline = (own_rotation[i] @ (centres[j] - centres[i])[..., None])[..., 0]
        direction = _angle_between_deg(baseline, true_baseline, signed_directions)
        directions.append(direction.masked_fill(baseline.norm(dim=-1) <= rounding, 180.0))
        baselines.append(true_baseline.norm(dim=-1))
    if not rotations:
        empty = estimate.new_zeros(0)
        return PairwiseErrors(empty, empty)

    length = torch.cat(baselines)
    failed = ~(registered[first] & registered[second])
    rotation = torch.cat(rotations).masked_fill(failed, math.inf)
    direction = torch.cat(directions).masked_fill(failed, math.inf)
    return PairwiseErrors(
        rotation, direction.masked_fill(length <= NO_BASELINE_SHARE * length.max(), math.nan)
    )


def _angle_between_rotations_deg(
    a: Float[Tensor, "pairs 3 3"], b: Float[Tensor, "pairs 3 3"]
) -> Float[Tensor, " pairs"]:
    """From ``‖A - B‖ = 2 √2 sin(θ/2)``, which is exact near zero and needs no matrix product."""
    chord = (a - b).flatten(1).norm(dim=-1)
    return torch.rad2deg(2 * torch.asin((chord / math.sqrt(8)).clamp(max=1.0)))


def _angle_between_deg(
    a: Float[Tensor, "pairs 3"], b: Float[Tensor, "pairs 3"], signed: bool
) -> Float[Tensor, " pairs"]:
    """Angle between two vectors, or between the lines along them."""
    cosine = (a * b).sum(-1)
    sine = torch.linalg.cross(a, b).norm(dim=-1)
    return torch.rad2deg(torch.atan2(sine, cosine if signed else cosine.abs()))


def _share(hits: Bool[Tensor, " pairs"]) -> float:
    return float(hits.double().mean()) if hits.numel() else math.nan
