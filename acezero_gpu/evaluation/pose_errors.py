"""How far estimated camera poses are from the true ones, image by image and pair by pair."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pypose as pp
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from acezero_gpu.data.posed_views import PosedViews
from acezero_gpu.evaluation.pairwise import PairwiseErrors, pairwise_errors
from acezero_gpu.evaluation.trajectory_alignment import AlignmentConfig, TrajectoryAlignment, align_trajectory
from acezero_gpu.geometry import camera_centres, matrix_from_se3, rotation_angle_deg


@dataclass(frozen=True, slots=True)
class EvaluationConfig:
    """What is counted as registered, accurate and near."""

    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    """How the estimate is carried into the frame of the truth; knows the truth's unit."""
    min_confidence: float = 1.0
    """An image with less confidence counts as failed: its errors are infinite."""
    thresholds_m: tuple[tuple[float, float], ...] = ((0.05, 5.0),)
    """Pairs (metres, degrees) whose shares of images are reported; used if the truth's unit is known."""
    thresholds_share: tuple[tuple[float, float], ...] = ((0.02, 5.0),)
    """Pairs (share of the true trajectory's extent, degrees); used if the truth's unit is not known."""
    pair_thresholds_deg: tuple[float, ...] = (5.0, 10.0, 15.0)
    """Thresholds of RRA and RTA."""
    auc_threshold_deg: int = 30
    """Largest threshold of the AUC."""
    signed_directions: bool = False
    """False compares translation directions up to sign, as is customary; True tells forward from backward."""


@dataclass(frozen=True, slots=True)
class PoseReport:
    """Errors of an estimate against the truth, one row per image that has a true pose."""

    names: tuple[str, ...]
    """The truth's image names, in its order."""
    registered: Bool[Tensor, " n"]
    """Which of them the estimate placed with enough confidence."""
    rotation_error_deg: Float[Tensor, " n"]
    """After alignment; inf for an image that failed or if nothing could be aligned."""
    translation_error: Float[Tensor, " n"]
    """Distance of camera centres after alignment, in units of the truth; inf as above."""
    focal_ratio: Float[Tensor, " n"]
    """Estimated over true focal length; NaN for an image that failed."""
    alignment: TrajectoryAlignment
    """The similarity that was applied, its inliers (of the images that it was fitted to), and what it rests on."""
    pairs: PairwiseErrors
    """Errors of relative poses over all pairs of true images."""
    without_truth: int
    """Images of the estimate that have no true pose; they are left out of every figure."""
    config: EvaluationConfig
    """What the figures were made with."""

    @property
    def registered_share(self) -> float:
        """Share of the true images that are registered."""
        return float(self.registered.double().mean())

    def share_within(self, translation: float, rotation_deg: float) -> float:
        """Share of all true images with errors below both thresholds (translation in units of the truth)."""
        near = (self.translation_error < translation) & (self.rotation_error_deg < rotation_deg)
        return float(near.double().mean())

    def accuracies(self) -> dict[str, float]:
        """``share_within`` for each configured threshold, keyed ``5cm_5deg`` or ``2%_5deg``."""
        unit_m, extent = self.config.alignment.truth_unit_m, self.alignment.extent
        if unit_m is None:
            return {
                f"{100 * share:g}%_{degrees:g}deg": self.share_within(share * extent, degrees)
                for share, degrees in self.config.thresholds_share
            }
        return {
            f"{100 * metres:g}cm_{degrees:g}deg": self.share_within(metres / unit_m, degrees)
            for metres, degrees in self.config.thresholds_m
        }

    def as_dict(self, *, per_image: bool = False) -> dict[str, Any]:
        """All figures under stable keys, ready for JSON: a figure that is infinite or undefined is None."""
        rotation, translation = self.rotation_error_deg, self.translation_error
        extent, good = self.alignment.extent, self.registered
        figures: dict[str, Any] = {
            "images": len(self.names),
            "registered": int(good.sum()),
            "registered_share": self.registered_share,
            "without_truth": self.without_truth,
            "alignment": self.alignment.status.name.lower(),
            "alignment_inliers": int(self.alignment.inliers.sum()),
            "scale": float(self.alignment.similarity.scale),
            "extent": extent,
            "truth_unit_m": self.config.alignment.truth_unit_m,
            "median_rotation_deg": median(rotation),
            "median_translation": median(translation),
            "median_translation_share": median(translation) / extent if extent > 0 else math.nan,
            "median_rotation_registered_deg": median(rotation[good]),
            "median_translation_registered": median(translation[good]),
            "accuracy": self.accuracies(),
            "rra": {f"{t:g}": self.pairs.rotation_accuracy(t) for t in self.config.pair_thresholds_deg},
            "rta": {f"{t:g}": self.pairs.direction_accuracy(t) for t in self.config.pair_thresholds_deg},
            f"auc_{self.config.auc_threshold_deg}": self.pairs.area_under_curve(
                self.config.auc_threshold_deg
            ),
            "median_focal_ratio": median(self.focal_ratio[good]),
        }
        if per_image:
            rows = zip(self.names, good.tolist(), rotation.tolist(), translation.tolist(), strict=True)
            figures["per_image"] = [
                {"name": name, "registered": ok, "rotation_deg": angle, "translation": distance}
                for name, ok, angle, distance in rows
            ]
        return _finite_or_none(figures)


def evaluate_poses(
    estimate: PosedViews,
    truth: PosedViews,
    config: EvaluationConfig = EvaluationConfig(),
    generator: torch.Generator | None = None,
    *,
    alignment: TrajectoryAlignment | None = None,
) -> PoseReport:
    """Errors of the estimated poses of all images that have a true pose.

    ``alignment``, found on other images of the same worlds, is applied as it is; otherwise one is fitted here.

    Images are matched by name. A true image that the estimate lacks, or that it holds with less than
    ``min_confidence``, counts as failed: its errors are infinite and every pair with it has failed. Raises
    ``ValueError`` if no name is common or a true pose is not finite.
    Differs from ACE0: shares and medians are over all true images here as there, but thresholds are in units
    of the truth, and images need not come in the same order.
    """
    device = truth.cam_from_world.device
    rows = _rows_of(truth.names, estimate.names)
    true_poses = truth.matrices.double()
    if not bool(true_poses.isfinite().all()):
        raise ValueError("A true pose is not finite; leave images without a true pose out of the truth.")
    found = torch.tensor([row >= 0 for row in rows], device=device)
    index = torch.tensor([max(row, 0) for row in rows], device=estimate.cam_from_world.device)
    poses = matrix_from_se3(pp.SE3(estimate.cam_from_world.double()))[index].to(device)
    confidence = estimate.confidence[index].to(device)
    registered = found & (confidence >= config.min_confidence) & poses.isfinite().flatten(1).all(-1)

    if alignment is None:
        alignment = align_trajectory(poses, true_poses, registered, config.alignment, generator)
    rotation, translation = _aligned_errors(poses, true_poses, registered, alignment)
    ratio = estimate.focal_px[index].to(device).double() / truth.focal_px.double()
    return PoseReport(
        names=truth.names,
        registered=registered,
        rotation_error_deg=rotation,
        translation_error=translation,
        focal_ratio=ratio.masked_fill(~registered, math.nan),
        alignment=alignment,
        pairs=pairwise_errors(poses, true_poses, registered, signed_directions=config.signed_directions),
        without_truth=len(set(estimate.names) - set(truth.names)),
        config=config,
    )


def _rows_of(truth_names: Sequence[str], estimate_names: Sequence[str]) -> list[int]:
    """Row of each true image in the estimate, -1 where it is missing."""
    row_of = {name: row for row, name in enumerate(estimate_names)}
    rows = [row_of.get(name, -1) for name in truth_names]
    if all(row < 0 for row in rows):
        shown = [repr(names[0]) if names else "nothing" for names in (estimate_names, truth_names)]
        raise ValueError(
            f"No image is named alike in both: the estimate begins with {shown[0]}, "
            f"the truth with {shown[1]}. Give both the same paths."
        )
    return rows


def _aligned_errors(
    poses: Float[Tensor, "n 3 4"],
    true_poses: Float[Tensor, "n 3 4"],
    registered: Bool[Tensor, " n"],
    alignment: TrajectoryAlignment,
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Rotation error in degrees and distance of centres; inf for what failed or is not determined."""
    similarity = alignment.similarity
    rotated = poses[..., :3] @ similarity.rotation.transpose(-1, -2)
    rotation = rotation_angle_deg(true_poses[..., :3], rotated)
    moved = similarity.apply(camera_centres(poses))
    translation = (moved - camera_centres(true_poses)).norm(dim=-1)
    return (
        torch.where(registered & rotation.isfinite(), rotation, math.inf),
        torch.where(registered & translation.isfinite(), translation, math.inf),
    )


def median(values: Float[Tensor, " n"]) -> float:
    """Mean of the two middle values (inf if either is); NaN for none."""
    if values.numel() == 0:
        return math.nan
    ordered = values.sort().values
    return float((ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2)


def _finite_or_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite_or_none(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite_or_none(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
