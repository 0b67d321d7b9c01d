"""From the folder of a run to what its report shows."""

from collections.abc import Sequence
from dataclasses import replace
from os.path import commonpath
from pathlib import Path, PurePath
from typing import Any

import torch

from acezero_gpu.cli.close_looks import close_looks
from acezero_gpu.config import ReconstructionConfig, load_config, preset
from acezero_gpu.data import load_colours
from acezero_gpu.io import FinishedRun, RunFolder, read_points
from acezero_gpu.reconstruction.history import ImageRecord, RunHistory
from acezero_gpu.runtime import InputError
from acezero_gpu.viz.report import ReportContent, ReportImage, ReportRound

PICTURE_WIDTH_PX = 208
MOST_PICTURES = 700
IMAGE_SIZE_IF_UNKNOWN = (4, 3)
"""Only the shape of the drawn cameras depends on it."""


def report_content(run: FinishedRun, device: torch.device) -> ReportContent:
    """Everything that can be said from the files of a run; what is missing or uncertain stands in ``notes``."""
    folder = RunFolder(run.path)
    notes = _missing_files(run)
    if run.history is not None and run.history.uncertain_scale is not None:
        notes.append(run.history.uncertain_scale)
    config = _config(folder, notes)
    cells = _cells(run, config)
    width, height = run.image_size_px or IMAGE_SIZE_IF_UNKNOWN
    images = _images(run, cells, (width, height), notes)
    points, colours = torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.uint8)
    if run.point_cloud is not None:
        points, colours = read_points(run.point_cloud)
    looks = close_looks(run, config, device, notes) if config is not None else ()
    content = ReportContent(
        title=run.path.resolve().name,
        finished=bool(run.summary),
        images=images,
        cam_from_world=run.views.matrices,
        points=points,
        colours=colours,
        aspect=width / height,
        rounds=_rounds(run),
        stage_seconds=_stage_seconds(run),
        confidence_unit="cells" if cells is None else "% of cells",
        min_confidence=run.min_confidence * (1.0 if cells is None else 100 / cells),
        settings=_settings(run, folder),
        skipped=_skipped(run),
        notes=tuple(notes),
        close_looks=looks,
    )
    return replace(content, facts=_facts(run, content))


def _missing_files(run: FinishedRun) -> list[str]:
    notes = []
    if not run.summary:
        notes.append(
            "summary.json is missing: the run was interrupted or failed. This page shows its last finished round; "
            "acezero reconstruct … --overwrite runs it again."
        )
    if run.history is None:
        notes.append(
            "history.json is missing, which runs of this version write: there is no training log, and nobody knows "
            "why images failed or which ones keypoints hold."
        )
    if not run.summary and run.history is None:
        notes.append(
            "No file says which confidence counts as registered: every pose that agrees with anything does here."
        )
    if run.point_cloud is None:
        notes.append(
            "point_cloud.ply is missing, so only cameras are shown: acezero reconstruct writes it when it finishes."
        )
    if not run.rounds:
        notes.append("poses_0.txt and the like are missing: there are no curves over the rounds.")
    gone = run.missing_images
    if gone:
        notes.append(
            f"{gone} of {len(run.image_paths)} image files are no longer where the run found them, and their "
            "pictures are missing here: acezero report RUN --images FOLDER says where they are now."
        )
    return notes


def _config(folder: RunFolder, notes: list[str]) -> ReconstructionConfig | None:
    """The settings of the run; every one of them stands in its file, so the preset below it does not matter."""
    try:
        return load_config(folder.config, preset("default"))
    except InputError as error:
        notes.append(f"The settings cannot be read: {error}")
        return None


def _cells(run: FinishedRun, config: ReconstructionConfig | None) -> float | None:
    """Cells per image: what a confidence is a share of."""
    if run.history is not None:
        return float(run.history.cells)
    if config is None or not run.summary:
        return None
    return run.min_confidence / config.loop.registration.min_inlier_share


def _images(
    run: FinishedRun, cells: float | None, size_px: tuple[int, int], notes: list[str]
) -> tuple[ReportImage, ...]:
    records: dict[str, ImageRecord] = (
        {record.name: record for record in run.history.images} if run.history else {}
    )
    pictures = _pictures(run, size_px)
    shown_names = _short_names(run.views.names)
    factor = 1.0 if cells is None else 100 / cells
    images = []
    for row, (name, registered) in enumerate(zip(run.views.names, run.registered, strict=True)):
        record = records.get(name)
        images.append(
            ReportImage(
                shown_names[row],
                registered,
                "none" if not registered else "unknown" if record is None else record.placed_by,
                factor * float(run.views.confidence[row]),
                None if record is None or registered else record.reason,
                pictures[row],
            )
        )
    there = len(run.image_paths) - run.missing_images
    damaged = min(there, MOST_PICTURES) - sum(picture is not None for picture in pictures)
    if there > MOST_PICTURES:
        notes.append(f"Pictures are those of the {MOST_PICTURES} least sure images, to keep the page small.")
    if damaged:
        notes.append(f"{damaged} image file{'s' if damaged > 1 else ''} can no longer be read.")
    return tuple(images)


def _short_names(names: Sequence[str]) -> list[str]:
    """Names without the folder that all of them lie in."""
    try:
        shared = commonpath([PurePath(name).parent for name in names])
    except ValueError:  # some are absolute, some are not
        return list(names)
    return [str(PurePath(name).relative_to(shared)) for name in names]


def _pictures(run: FinishedRun, size_px: tuple[int, int]) -> list[torch.Tensor | None]:
    """Small pictures of the images that are there, None for the others; of very many, those of the least sure."""
    rows = [row for row, path in enumerate(run.image_paths) if path is not None]
    rows = sorted(rows, key=lambda row: float(run.views.confidence[row]))[:MOST_PICTURES]
    pictures: list[torch.Tensor | None] = [None] * len(run.image_paths)
    if not rows:
        return pictures
    height = max(1, round(PICTURE_WIDTH_PX * size_px[1] / size_px[0]))
    paths = [path for path in (run.image_paths[row] for row in rows) if path is not None]
    for row, picture in zip(rows, load_colours(paths, (PICTURE_WIDTH_PX, height)), strict=True):
        # Files that cannot be decoded come out black.
        pictures[row] = picture if bool(picture.any()) else None
    return pictures


def _rounds(run: FinishedRun) -> tuple[ReportRound, ...]:
    if run.history is not None:
        return tuple(
            ReportRound(
                str(record.index) if record.name == "iteration" else record.name,
                record.registered,
                record.registered_by_map if record.mapped else None,
                record.focal_px,
                record.training,
            )
            for record in run.history.rounds
        )
    found = []
    for round_ in run.rounds:
        views = round_.views()
        last = bool(run.summary) and round_ is run.rounds[-1]
        label = "seed" if round_.index == 0 else "final" if last else str(round_.index)
        registered = int(views.registered(run.min_confidence).sum())
        found.append(ReportRound(label, registered, None, float(views.focal_px[0])))
    return tuple(found)


def _stage_seconds(run: FinishedRun) -> dict[str, float]:
    total: dict[str, float] = {
        str(name): float(seconds) for name, seconds in run.summary.get("seconds", {}).items()
    }
    if not total and run.history is not None:
        for record in run.history.rounds:
            for stage, seconds in record.seconds.items():
                total[stage] = total.get(stage, 0.0) + seconds
    return total


def _skipped(run: FinishedRun) -> tuple[tuple[str, str], ...]:
    if run.history is not None:
        return run.history.skipped
    return tuple((str(entry["file"]), str(entry["reason"])) for entry in run.summary.get("skipped", []))


def _facts(run: FinishedRun, content: ReportContent) -> tuple[tuple[str, str], ...]:
    facts = [("images", f"{len(content.images):,}"), ("with a pose", f"{content.registered:,}")]
    by_map = content.rounds[-1].registered_by_map if content.rounds else None
    if by_map is not None:
        facts.append(("by the map alone", f"{by_map:,}"))
    if content.registered:
        facts.append(("focal length", f"{float(run.views.focal_px[0]):,.1f} px"))
    if content.rounds:
        facts.append(("rounds", str(len(content.rounds))))
    if len(content.points):
        facts.append(("points", f"{len(content.points):,}"))
    seconds = run.summary.get("total_s", sum(content.stage_seconds.values()))
    if seconds:
        facts.append(("time", _duration(float(seconds))))
    return tuple(facts)


def _stop_reason(history: RunHistory | None) -> str | None:
    reasons = [record.stop_reason for record in history.rounds if record.stop_reason] if history else []
    return reasons[-1] if reasons else None


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _settings(run: FinishedRun, folder: RunFolder) -> tuple[tuple[str, str], ...]:
    summary: dict[str, Any] = dict(run.summary)
    entries = [("command", summary.get("command") or _command_line(folder.config))]
    entries += [(key, summary.get(key)) for key in ("preset", "device", "seed")]
    entries.append(("stopped because", summary.get("stop_reason") or _stop_reason(run.history)))
    size = run.image_size_px
    entries.append(("image size", f"{size[0]} × {size[1]} px" if size else None))
    radial = summary.get("radial")
    entries.append(("distortion", f"k1 {radial[0]:g}, k2 {radial[1]:g}" if radial else None))
    versions = summary.get("versions")
    entries.append(
        ("versions", ", ".join(f"{name} {value}" for name, value in versions.items()) if versions else None)
    )
    entries.append(("commit", summary.get("git_commit")))
    return tuple((name, str(value)) for name, value in entries if value not in (None, ""))


def _command_line(config: Path) -> str | None:
    """From the first line of the settings."""
    try:
        first = config.read_text(encoding="utf-8", errors="surrogateescape").split("\n", 1)[0]
    except OSError:
        return None
    return first.removeprefix("# ") if first.startswith("# acezero") else None
