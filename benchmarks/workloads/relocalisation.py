"""Queries against a map: made from given poses, or from pictures alone."""

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from acezero_gpu.cli.map import map_folder
from acezero_gpu.cli.reconstruct import reconstruct_folder
from acezero_gpu.cli.register import register_folder
from acezero_gpu.cli.run_log import RunLog
from acezero_gpu.cli.settings import Settings
from acezero_gpu.data import PosedViews
from acezero_gpu.evaluation import AlignmentConfig, align_trajectory
from acezero_gpu.geometry import Similarity
from acezero_gpu.io import read_pose_file
from acezero_gpu.io.run_folder import REGISTERED_FROM
from acezero_gpu.runtime import InputError
from benchmarks.image_sets import TruthSet, named_by_stem, read_set
from benchmarks.metrics import Figures, errors_in_frame, relocalisation_figures
from benchmarks.records import Record
from benchmarks.systems.ours import failure_sentence, read_summary
from benchmarks.timing import Stages
from benchmarks.workloads.reconstruction import Repeats, seeded_settings

GIVEN, ALONE = "given poses", "pictures alone"
"""Where a map comes from."""


@dataclass(frozen=True, slots=True)
class Place:
    """One place: the images that its map is made of, and those that are looked for in it."""

    mapping: TruthSet
    queries: TruthSet
    unit_m: float
    """Metres per unit of the truth."""


@dataclass(frozen=True, slots=True)
class Maps:
    """What the queries are registered against."""

    given: Settings
    """Of the map from given poses."""
    alone: Settings | None = None
    """Of the map from pictures alone; None leaves it out."""
    run: Path | None = None
    """A run folder of ``acezero reconstruct`` on the mapping images, to take instead of a new run."""


@dataclass(frozen=True, slots=True)
class _Map:
    """A map to register against."""

    file: Path
    truth_from_map: Similarity | None
    """None if the map is in the frame of the truth."""
    focal_px: float | None
    """Focal length of the queries; None takes that of the map."""
    mapped: int
    """Mapping images that have a pose."""
    details: dict[str, Any]


def read_place(folder: Path) -> Place:
    """The set's ``mapping.txt`` and ``query.txt``; ``InputError`` without, or if its truth has no unit."""
    mapping, queries = read_set(folder, "mapping.txt"), read_set(folder, "query.txt")
    if mapping.unit_m is None:
        raise InputError(f"{folder}: its truth has no unit, so that errors in cm mean nothing.")
    return Place(mapping, queries, mapping.unit_m)


def relocalise(place: Place, maps: Maps, repeats: Repeats, record: Record) -> bool:
    """A row for each map and repeat; whether each of them has a result."""
    tries: list[tuple[str, Settings, Path | None, int]] = [(GIVEN, maps.given, None, repeats.count)]
    if maps.alone is not None:
        # A finished run is what it is: another seed would only change the registration against it.
        tries.append((ALONE, maps.alone, maps.run, repeats.count if maps.run is None else 1))
    complete = True
    for source, settings, run, count in tries:
        for repeat, seeded in seeded_settings(settings, count):
            with TemporaryDirectory(prefix="benchmark-") as temporary:
                base = Path(temporary) if repeats.keep is None else repeats.keep
                folder = base / place.mapping.name / f"{source.replace(' ', '-')}-{repeat}"
                folder.mkdir(parents=True, exist_ok=True)
                figures = _measure(source, place, seeded, run, folder)
            head = {"set": place.mapping.name, "map": source, "repeat": repeat, "seed": seeded.config.seed}
            record.add({**head, **figures})
            complete &= figures["failure"] is None
            sys.stderr.write(
                f"{place.mapping.name}, map from {source}: registered {figures['registered']} of "
                f"{figures['images']} queries\n"
            )
    return complete


def _measure(source: str, place: Place, settings: Settings, run: Path | None, folder: Path) -> Figures:
    """Make the map, register the queries against it, compare."""
    truth = place.queries.truth()
    rotation = torch.full((len(truth.names),), math.inf, dtype=torch.float64)
    distance = rotation
    unfiltered = rotation, distance
    made: _Map | None = None
    failure: str | None = None
    clock = Stages()
    try:
        with clock("map"):
            if source == GIVEN:
                made = _map_from_given_poses(place, settings, folder)
            else:
                made = _map_from_pictures(place, settings, folder, run)
        with clock("queries"):
            views, min_confidence = _register(place, settings, made, folder)
        rotation, distance = errors_in_frame(views, truth, min_confidence, made.truth_from_map)
        unfiltered = errors_in_frame(views, truth, 1.0, made.truth_from_map)
    except Exception as error:  # the other map is still to be measured
        failure = failure_sentence(error, folder)
    stages = {
        f"{part}: {name}": round(value, 2)
        for part in ("map", "queries")
        for name, value in read_summary(folder / part).get("seconds", {}).items()
    }
    return {
        "mapping_images": len(place.mapping.images),
        "mapped": 0 if made is None else made.mapped,
        **relocalisation_figures(rotation, distance, place.unit_m),
        "any_confidence": relocalisation_figures(*unfiltered, place.unit_m),
        "map_seconds": round(clock.seconds["map"], 2) if run is None else None,
        "seconds": round(clock.seconds.get("queries", 0.0), 2),
        "stages_s": stages,
        "failed": [truth.names[row] for row in rotation.isinf().nonzero()[:, 0].tolist()],
        "failure": failure,
        "details": {} if made is None else made.details,
    }


def _map_from_given_poses(place: Place, settings: Settings, folder: Path) -> _Map:
    """``acezero map`` with the true poses and the true focal length."""
    images = place.mapping.write_list(folder / "mapping.txt")
    with RunLog("quiet") as log:
        map_folder(
            str(images),
            folder / "map",
            str(place.mapping.poses),
            settings,
            log,
            place.mapping.focal_px,
            True,
            True,
        )
    summary = read_summary(folder / "map")
    details = {key: summary[key] for key in ("focal_px", "iterations", "inlier_share")}
    return _Map(
        folder / "map" / "map.safetensors", None, place.mapping.focal_px, int(summary["mapped"]), details
    )


def _map_from_pictures(place: Place, settings: Settings, folder: Path, run: Path | None) -> _Map:
    """``acezero reconstruct`` on the mapping images, aligned with the truth on these alone."""
    run_folder = folder / "map" if run is None else run
    if run is None:
        images = place.mapping.write_list(folder / "mapping.txt")
        with RunLog("quiet") as log:
            reconstruct_folder(str(images), run_folder, settings, log, overwrite=True)
    summary = read_summary(run_folder)
    if not summary:
        raise InputError(f"{run_folder}: no summary.json; give the folder of a finished reconstruction.")
    views = named_by_stem(read_pose_file(run_folder / "poses_final.txt", dtype=torch.float64))
    truth = place.mapping.truth()
    row_of = {name: row for row, name in enumerate(views.names)}
    common = [row for row, name in enumerate(truth.names) if name in row_of]
    rows = [row_of[truth.names[row]] for row in common]
    min_confidence = float(summary[REGISTERED_FROM])
    usable = views.registered(min_confidence)[rows]
    alignment = align_trajectory(
        views.matrices[rows], truth.matrices[common], usable, AlignmentConfig(truth_unit_m=place.unit_m)
    )
    rotation, distance = errors_in_frame(views, truth, min_confidence, alignment.similarity)
    details = {
        "alignment": alignment.status.name.lower(),
        "alignment_inliers": int(alignment.inliers.sum()),
        "mapping": relocalisation_figures(rotation, distance, place.unit_m),
        "focal_ratio": float(summary["focal_px"]) / place.mapping.focal_px,
    }
    map_file = run_folder / f"map_{summary['iterations']}.safetensors"
    return _Map(map_file, alignment.similarity, None, int(usable.sum()), details)


def _register(place: Place, settings: Settings, made: _Map, folder: Path) -> tuple[PosedViews, float]:
    """``acezero register``; poses by stem, and the confidence from which one counts."""
    images = place.queries.write_list(folder / "query.txt")
    with RunLog("quiet") as log:
        register_folder(str(images), made.file, folder / "queries", settings, log, made.focal_px, True)
    summary = read_summary(folder / "queries")
    views = named_by_stem(read_pose_file(folder / "queries" / "poses.txt", dtype=torch.float64))
    return views, max(1.0, float(summary[REGISTERED_FROM]))
