"""Bundle adjustment beside pycolmap's, and how matching and adjustment grow with the number of images."""

import math
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from acezero_gpu.adjustment import BundleAdjustmentConfig
from acezero_gpu.cli.failure import as_input_error
from acezero_gpu.cli.settings import Settings
from acezero_gpu.data import load_grey, resolve_images
from acezero_gpu.geometry import camera_centres, fit_similarity, matrix_from_se3, retract
from acezero_gpu.network import make_encoder
from acezero_gpu.reconstruction import ImageBank, ReconstructionState
from acezero_gpu.reconstruction.joint_refinement import adjust_registered
from acezero_gpu.reconstruction.matching import MatchStore, partner_pairs
from acezero_gpu.reconstruction.two_view import OverlapChecks
from acezero_gpu.runtime import InputError, random_stream
from benchmarks.adjustment_cases import POSE_ERROR_DEG, POSE_ERROR_M, AdjustmentCase, room_case
from benchmarks.image_sets import TruthSet
from benchmarks.metrics import Figures
from benchmarks.records import Record
from benchmarks.systems.bundle_adjusters import Adjusted, adjust_ours, adjust_pycolmap
from benchmarks.timing import Stages, wait
from benchmarks.workloads.pose_refinement import thinned

PARTS = ("bundle", "scaling")
SIZES = {"125": (125, 14_000, 120_000), "2000": (2000, 115_000, 1_000_000)}
"""Views, points, observations."""
IMAGE_COUNTS = (125, 250, 500, 1000)
GROWING = ("matching", "adjustment")
"""Stages whose sum must stay linear in the images."""
SAME_COST = 1e-4
"""Relative difference of final costs that counts as the same optimum."""


@dataclass(frozen=True, slots=True)
class Rivals:
    """One comparison."""

    loss: str
    radial: bool
    """Whether two coefficients of distortion are estimated as well."""

    @property
    def config(self) -> BundleAdjustmentConfig:
        """What both do; all else is each one's own default."""
        return BundleAdjustmentConfig(
            loss=self.loss,  # type: ignore[arg-type]
            loss_scale_px=2.0,
            refine_focal=True,
            refine_radial=self.radial,
            cost_tolerance=1e-6,
            max_iterations=100,
        )


RIVALS = (Rivals("huber", False), Rivals("cauchy", False), Rivals("cauchy", True))


def chosen_parts(names: str) -> list[str]:
    """The parts of a comma-separated list; ``InputError`` for an unknown one."""
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    if not chosen or not set(chosen) <= set(PARTS):
        raise InputError(f"--parts {names}: choose from {', '.join(PARTS)}.")
    return chosen


def chosen_counts(numbers: str) -> list[int]:
    """The numbers of a comma-separated list; ``InputError`` for anything else."""
    try:
        counts = [int(number) for number in numbers.split(",")]
    except ValueError as error:
        raise InputError(f"--images {numbers}: give numbers with commas between.") from error
    if min(counts) < 3:
        raise InputError(f"--images {numbers}: at least 3 images are needed.")
    return counts


def measure_bundle(device: torch.device, threads: int, repeats: int, record: Record) -> None:
    """Ours and pycolmap's in turns on the CPU; on CUDA ours there as well, also on the large problem."""
    case = room_case(*SIZES["125"])
    devices = [torch.device("cpu")] + ([device] if device.type != "cpu" else [])
    for rivals in RIVALS:
        record.add(bundle_row(case, rivals, devices, threads, repeats))
        sys.stderr.write(f"{rivals}: {record.content['rows'][-1]}\n")
    if device.type != "cpu":
        large = room_case(*SIZES["2000"])
        record.add(bundle_row(large, RIVALS[1], [device], threads, repeats, peer=False))


def bundle_row(
    case: AdjustmentCase,
    rivals: Rivals,
    devices: Sequence[torch.device],
    threads: int,
    repeats: int,
    *,
    peer: bool = True,
) -> Figures:
    """Medians over repeats in alternation, after one call each that is not counted."""
    found: dict[str, list[Adjusted]] = {}
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for repeat in range(repeats + 1):
            runs = {
                f"ours, {device.type}": adjust_ours(case.problem, rivals.config, device) for device in devices
            }
            if peer:
                runs["pycolmap"] = adjust_pycolmap(case.problem, rivals.config, threads)
            for name, run in runs.items():
                found.setdefault(name, []).extend([run] if repeat else [])
    finally:
        torch.set_num_threads(before)
    systems = {name: _medians(runs) for name, runs in found.items()}
    row: dict[str, Any] = {"part": "bundle", "loss": rivals.loss, "radial": rivals.radial, **case.size}
    row |= {"threads": threads, "repeats": repeats, "systems": systems}
    if peer:
        theirs = systems["pycolmap"]
        ours = [system for name, system in systems.items() if name != "pycolmap"]
        row["cost_difference"] = max(abs(system["cost"] / theirs["cost"] - 1) for system in ours)
        row["same_cost"] = row["cost_difference"] < SAME_COST
        for system in ours:
            system["seconds_share"] = system["seconds"] / theirs["seconds"]
    return row


def _medians(runs: Sequence[Adjusted]) -> Figures:
    return {
        "cost": runs[-1].cost,
        "iterations": statistics.median(run.iterations for run in runs),
        "seconds": statistics.median(run.seconds for run in runs),
        "cpu_seconds": statistics.median(run.cpu_seconds for run in runs),
        "setup_seconds": statistics.median(run.setup_seconds for run in runs),
        "focal_px": runs[-1].focal_px,
        "end": runs[-1].solver,
    }


def measure_scaling(truth_set: TruthSet, counts: Sequence[int], settings: Settings, record: Record) -> None:
    """A row for each number of images that the set has, and one for how the seconds grow."""
    rows = []
    for count in counts:
        if count > len(truth_set.images):
            continue
        rows.append(scaling_row(thinned(truth_set, count), settings))
        record.add(rows[-1])
        sys.stderr.write(f"{rows[-1]}\n")
    if len(rows) > 1:
        # On a CPU what other programs take from the clock must not look like growth.
        kind = "stages_cpu_s" if settings.device.type == "cpu" else "stages_s"
        seconds = [sum(row[kind][name] for name in GROWING) for row in rows]
        exponent = growth_exponent([row["images"] for row in rows], seconds)
        record.add({"part": "scaling fit", "set": truth_set.name, "exponent": exponent})


def growth_exponent(sizes: Sequence[int], seconds: Sequence[float]) -> float:
    """The slope of the straight line through the logarithms: 1 is linear."""
    fit = statistics.linear_regression([math.log(n) for n in sizes], [math.log(s) for s in seconds])
    return fit.slope


def scaling_row(truth_set: TruthSet, settings: Settings) -> Figures:
    """Seconds of each stage from decoded images to adjusted poses, from true poses that are disturbed.

    Matching is that of look-alikes; the adjustment is all that the loop does after a registration, with the matching
    of images that see the same place.
    """
    stages, cpu = Stages(), Stages(time.process_time)
    with stages("decoding"):
        bank = image_bank(truth_set, settings)
    everyone = torch.arange(len(bank))
    registered = torch.ones(len(bank), dtype=torch.bool)
    truth = matrix_from_se3(truth_set.truth().cam_from_world).to(bank.device, torch.float32)
    noise = torch.randn(len(bank), 6, generator=torch.Generator().manual_seed(0))
    noise *= torch.tensor([POSE_ERROR_M / (truth_set.unit_m or 1.0)] * 3 + [math.radians(POSE_ERROR_DEG)] * 3)
    config = settings.config.loop.joint
    with stages("keypoints"):
        bank.keypoints(everyone)
        wait(bank.device)
    with stages("retrieval"):
        bank.similarity()
        wait(bank.device)
    matches = MatchStore(bank)
    with stages("matching"), cpu("matching"):
        matches.ensure(partner_pairs(bank, registered, config.partners))
        wait(bank.device)
    with stages("adjustment"), cpu("adjustment"):
        result = adjust_registered(
            bank,
            matches,
            OverlapChecks(bank, matches, config.check.overlap),
            ReconstructionState.by_one_map(
                retract(truth, noise.to(truth)),
                torch.ones(len(bank), device=bank.device),
                registered.to(bank.device),
                bank.camera(truth_set.focal_px),
                torch.zeros(2, device=bank.device),
            ),
            config,
            refine_focal=True,
            generator=random_stream(settings.config.seed, "growth"),
        ).joint
        wait(bank.device)
    found, true = camera_centres(result.cam_from_world), camera_centres(truth)
    error = (fit_similarity(found, true).apply(found) - true).norm(dim=-1).median()
    return {
        "part": "scaling",
        "set": truth_set.name,
        "images": len(bank),
        "points": len(result.points),
        "observations": len(result.view_index),
        "median_position": float(error),
        "unit_m": truth_set.unit_m,
        "stages_s": {name: round(seconds, 2) for name, seconds in stages.seconds.items()},
        "stages_cpu_s": {name: round(seconds, 2) for name, seconds in cpu.seconds.items()},
    }


def image_bank(truth_set: TruthSet, settings: Settings) -> ImageBank:
    """The images of the set, decoded, with the encoder of the settings."""
    config = settings.config
    with as_input_error():
        encoder = make_encoder(config.encoder, settings.device)
    chosen = set(truth_set.images)
    images = resolve_images(truth_set.images[0].parent)
    images = images.subset(i for i, path in enumerate(images.paths) if path in chosen)
    side = min(config.bank.keypoint_side_px, images.width, images.height)
    loaded = load_grey(images, config.bank.shortest_side_px)
    of_keypoints = loaded if side == config.bank.shortest_side_px else load_grey(images, side)
    return ImageBank(loaded, of_keypoints, encoder, config.bank, settings.device, config.seed)
