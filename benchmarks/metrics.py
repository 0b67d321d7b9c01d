"""From estimated and true poses to the figures of a table."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from acezero_gpu.data import PosedViews
from acezero_gpu.evaluation import AlignmentConfig, EvaluationConfig, PoseReport, evaluate_poses
from acezero_gpu.geometry import Similarity, camera_centres, rotation_angle_deg
from benchmarks.image_sets import TruthSet

Figures = dict[str, Any]
"""One row of a result file: plain numbers, None for what is infinite or undefined."""


@dataclass(frozen=True, slots=True)
class SystemResult:
    """What a system made of the pictures of a set."""

    views: PosedViews | None
    """Poses, named by stem; an image that is missing here has failed. None if there is no result at all."""
    min_confidence: float
    """An image with less confidence counts as failed."""
    seconds: float
    """Wall-clock time from the files on disk to the poses."""
    stages_s: dict[str, float] = field(default_factory=dict)
    """Its parts, where they are known."""
    failure: str | None = None
    """Why there is no result."""
    details: dict[str, Any] = field(default_factory=dict)
    """What else the system has to say."""


def reconstruction_figures(result: SystemResult, truth_set: TruthSet) -> Figures:
    """Errors after one similarity alignment, and of all pairs; an image without a pose has failed in all.

    The alignment counts a camera as an inlier within 2 % of the trajectory's extent, whether the truth has a
    unit or not: a fixed length would mean something else on a table top than on a square.
    """
    truth = truth_set.truth()
    report = _report(result, truth)
    figures = report.as_dict()
    extent = report.alignment.extent
    good = report.registered
    failed = [name for name, ok in zip(report.names, good.tolist(), strict=True) if not ok]
    within = report.share_within(0.05 / truth_set.unit_m, 5.0) if truth_set.unit_m else None
    return {
        "images": len(truth_set.images),
        "with_truth": len(truth.names),
        "registered": figures["registered"],
        "median_rotation_deg": figures["median_rotation_deg"],
        "median_translation": figures["median_translation"],
        "median_translation_share": figures["median_translation_share"],
        "median_rotation_registered_deg": figures["median_rotation_registered_deg"],
        "median_translation_registered": figures["median_translation_registered"],
        "within_5cm_5deg": within,
        "rra_5": figures["rra"]["5"],
        "rta_5": figures["rta"]["5"],
        "auc_30": figures["auc_30"],
        "focal_ratio": figures["median_focal_ratio"],
        "seconds": round(result.seconds, 2),
        "extent": extent,
        "unit_m": truth_set.unit_m,
        "alignment": figures["alignment"],
        "alignment_inliers": figures["alignment_inliers"],
        "stages_s": {name: round(value, 2) for name, value in result.stages_s.items()},
        "failed": failed,
        "failure": result.failure,
        "details": result.details,
    }


def _report(result: SystemResult, truth: PosedViews) -> PoseReport:
    views = result.views
    if views is None:
        views = PosedViews(truth.names, truth.cam_from_world, truth.focal_px, torch.zeros(len(truth.names)))
    config = EvaluationConfig(alignment=AlignmentConfig(), min_confidence=max(result.min_confidence, 1.0))
    return evaluate_poses(views, truth, config, torch.Generator().manual_seed(0))


def errors_in_frame(
    estimate: PosedViews,
    truth: PosedViews,
    min_confidence: float,
    truth_from_estimate: Similarity | None = None,
) -> tuple[Tensor, Tensor]:
    """Degrees and distances of every true image after the alignment that is given; inf where it failed.

    Without an alignment the estimate is taken to be in the frame of the truth already.
    """
    row_of = {name: row for row, name in enumerate(estimate.names)}
    confidence = estimate.confidence.tolist()
    good = [
        row
        for row, name in enumerate(truth.names)
        if name in row_of and confidence[row_of[name]] >= min_confidence
    ]
    poses = estimate.matrices.double()[[row_of[truth.names[row]] for row in good]]
    if truth_from_estimate is not None:
        poses = truth_from_estimate.apply_to_cameras(poses)
    true_poses = truth.matrices.double()
    rotation = torch.full((len(truth.names),), math.inf, dtype=torch.float64)
    distance = rotation.clone()
    rotation[good] = rotation_angle_deg(true_poses[good][..., :3], poses[..., :3])
    distance[good] = (camera_centres(poses) - camera_centres(true_poses[good])).norm(dim=-1)
    failed = ~(rotation.isfinite() & distance.isfinite())
    return rotation.masked_fill(failed, math.inf), distance.masked_fill(failed, math.inf)


def relocalisation_figures(rotation_deg: Tensor, distance: Tensor, unit_m: float) -> Figures:
    """Medians over all images, and shares of all images within common thresholds."""
    distance_m = distance * unit_m

    def within(metres: float, degrees: float) -> float:
        return float(((distance_m < metres) & (rotation_deg < degrees)).double().mean())

    return {
        "images": len(rotation_deg),
        "registered": int(rotation_deg.isfinite().sum()),
        "median_translation_m": _finite(_median(distance_m)),
        "median_rotation_deg": _finite(_median(rotation_deg)),
        "within_5cm_5deg": within(0.05, 5.0),
        "within_10cm_5deg": within(0.10, 5.0),
        "within_2cm_2deg": within(0.02, 2.0),
    }


def median_row(rows: Sequence[Figures]) -> Figures:
    """One row for repeated runs: medians of the numbers, in which None is worse than any number."""
    merged = _merged(rows)
    counts = [row["registered"] for row in rows]
    return {**merged, "runs": len(rows), "registered_range": [min(counts), max(counts)]}


def _merged(rows: Sequence[Figures]) -> Figures:
    """Key by key, also inside dictionaries; what is no number is taken from the first row."""
    merged: Figures = {}
    for key, value in rows[0].items():
        values = [row.get(key) for row in rows]
        if all(item == value for item in values):
            merged[key] = value
        elif isinstance(value, dict):
            merged[key] = _merged([item for item in values if isinstance(item, dict)])
        elif all(item is None or isinstance(item, int | float) for item in values):
            merged[key] = _finite(statistics.median(math.inf if item is None else item for item in values))
        else:
            merged[key] = value
    return merged


def _median(values: Tensor) -> float:
    return float(statistics.median(values.tolist())) if len(values) else math.nan


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
