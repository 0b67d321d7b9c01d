"""``acezero evaluate``: estimated poses against true ones."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from acezero_gpu.cli import options as opt
from acezero_gpu.cli.failure import RunFailedError, as_input_error
from acezero_gpu.cli.given import confidence_of_run
from acezero_gpu.cli.output import say, show
from acezero_gpu.data import PosedViews
from acezero_gpu.data.image_set import files_of
from acezero_gpu.evaluation import (
    AlignmentConfig,
    EvaluationConfig,
    PoseReport,
    TrajectoryAlignment,
    evaluate_poses,
    report_table,
)
from acezero_gpu.geometry import camera_centres, rotation_angle_deg
from acezero_gpu.io import read_pose_file, read_poses
from acezero_gpu.io.pose_file import POSE_SUFFIXES
from acezero_gpu.io.run_folder import is_result
from acezero_gpu.runtime import InputError

_NUMBER = r"[0-9.]+(?:[eE][+-]?[0-9]+)?"
_THRESHOLD = re.compile(
    rf"(?P<distance>{_NUMBER})\s*(?P<unit>m|cm|mm|%)?\s*/\s*(?P<degrees>{_NUMBER})\s*(deg|°)?"
)
_METRES = {None: 1.0, "m": 1.0, "cm": 0.01, "mm": 0.001}


def evaluate(
    poses: opt.Estimate,
    truth: opt.Truth,
    no_align: opt.NoAlign = False,
    no_scale: opt.NoScale = False,
    align_on: opt.AlignOn = None,
    threshold: opt.Threshold = None,
    truth_focal_px: opt.TruthFocalPx = None,
    min_confidence: opt.MinConfidence = None,
    json_: opt.Json = False,
) -> None:
    """Errors of estimated poses against true ones, after one similarity alignment."""
    enough = confidence_of_run(Path(poses)) if min_confidence is None else min_confidence
    config = evaluation_config(threshold, min_confidence=enough, with_scale=not no_scale)
    if no_align and align_on is not None:
        raise InputError("--align-on and --no-align: give one of them.")
    alignment = None
    if align_on is not None:
        others = replace(config, min_confidence=confidence_of_run(align_on))
        alignment = judge(read_pose_file(align_on), truth, others).report.alignment
        if not alignment.status.trustworthy:
            raise RunFailedError(f"{align_on}: cannot be aligned with the truth ({alignment.status.value}).")
    judged = judge(
        read_pose_file(poses), truth, config, truth_focal_px, aligned=not no_align, alignment=alignment
    )
    if json_:
        say(json.dumps(judged.figures(), ensure_ascii=False))
    else:
        show(judged.table())


def evaluation_config(
    thresholds: Sequence[str] | None, *, min_confidence: float, with_scale: bool = True
) -> EvaluationConfig:
    """Thresholds in lengths say that the truth is in metres; with shares, or none, its unit is unknown."""
    alignment = AlignmentConfig(with_scale=with_scale)
    config = EvaluationConfig(alignment=alignment, min_confidence=min_confidence)
    if not thresholds:
        return config
    parsed = [_threshold(text) for text in thresholds]
    pairs = tuple((distance, degrees) for distance, degrees, _ in parsed)
    shares = {is_share for _, _, is_share in parsed}
    if len(shares) > 1:
        raise InputError("--threshold: give all distances in metres, or all in per cent, not both.")
    if shares.pop():
        return replace(config, thresholds_share=pairs)
    return replace(config, thresholds_m=pairs, alignment=replace(alignment, truth_unit_m=1.0))


def _threshold(text: str) -> tuple[float, float, bool]:
    """Distance (metres, or a share of the extent), degrees, and whether the distance is a share."""
    match = _THRESHOLD.fullmatch(text.strip())
    try:
        if match is None:
            raise ValueError
        distance, degrees = float(match["distance"]), float(match["degrees"])
        if not (0 < distance < math.inf and 0 < degrees < math.inf):
            raise ValueError
    except ValueError:
        raise InputError(
            f"--threshold {text}: write DISTANCE/DEGREES, as 0.05/5, 5cm/5deg or 2%/5."
        ) from None
    unit = match["unit"]
    return (distance / 100, degrees, True) if unit == "%" else (distance * _METRES[unit], degrees, False)


@dataclass(frozen=True, slots=True)
class Judgement:
    """A report with what the command adds to it."""

    report: PoseReport
    aligned: bool
    """Whether the report's errors are those after an alignment."""
    unused_truth: int
    """Entries of the truth that belong to no image of the estimate or hold no pose; they are left out."""

    def figures(self) -> dict[str, Any]:
        """Everything under stable keys, for JSON."""
        figures = self.report.as_dict(per_image=True)
        if not self.aligned:
            figures |= {"alignment": "none", "alignment_inliers": None, "scale": None}
        return {**figures, "unused_truth": self.unused_truth}

    def table(self) -> Table:
        """For the terminal."""
        note = f"{self.unused_truth} entries of the truth left out" if self.unused_truth else None
        if self.aligned:
            table = report_table(self.report)
            table.caption = note
            return table
        table = Table("measure", "estimate", title="Pose errors, without alignment", caption=note)
        accuracies = self.report.accuracies()
        figures = {**self.report.as_dict(), **accuracies}
        for key in (
            "images",
            "registered",
            "median_rotation_deg",
            "median_translation",
            *self.report.accuracies(),
        ):
            value = figures[key]
            shown = "none" if value is None else f"{value:.4g}"
            table.add_row(key.replace("_", " "), shown)
        return table


def judge(
    estimate: PosedViews,
    truth_spec: str,
    config: EvaluationConfig,
    truth_focal_px: float | None = None,
    *,
    aligned: bool = True,
    alignment: TrajectoryAlignment | None = None,
) -> Judgement:
    """The estimate against the true poses of its images; an image without a true pose is left out.

    ``alignment``: one that was found on other images, to apply instead of one fitted to these.
    """
    is_file = Path(truth_spec).is_file()
    focal = truth_focal_px if truth_focal_px is not None or is_file else math.nan
    truth = read_poses(truth_spec, estimate.names, focal, allow_missing=True)
    known = truth.confidence > 0
    if is_file and is_result(Path(truth_spec)):  # a run also writes down what it did not register
        known &= truth.registered(confidence_of_run(Path(truth_spec), otherwise=0.0))
    if not bool(known.any()):
        raise InputError(f"{truth_spec}: no true pose for any image of the estimate; are they named alike?")
    listed = len(read_pose_file(truth_spec).names if is_file else files_of(truth_spec, POSE_SUFFIXES))
    truth = truth.subset(known.nonzero()[:, 0].tolist())
    with as_input_error():
        report = evaluate_poses(
            estimate, truth, config, torch.Generator().manual_seed(0), alignment=alignment
        )
    if not aligned:
        report = _as_they_stand(report, estimate, truth)
    return Judgement(report, aligned, max(0, listed - len(truth.names)))


def _as_they_stand(report: PoseReport, estimate: PosedViews, truth: PosedViews) -> PoseReport:
    """The report with errors of the poses as they are; inf where an image failed."""
    row_of = {name: row for row, name in enumerate(estimate.names)}
    poses = estimate.matrices.double()[[row_of[name] for name in truth.names]]
    true_poses = truth.matrices.double()
    rotation = rotation_angle_deg(true_poses[..., :3], poses[..., :3])
    distance = (camera_centres(poses) - camera_centres(true_poses)).norm(dim=-1)
    return replace(
        report,
        rotation_error_deg=torch.where(report.registered, rotation, math.inf),
        translation_error=torch.where(report.registered, distance, math.inf),
    )
