"""How far a map grows from a single posed frame with depth, by scene coordinates alone."""

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from acezero_gpu.cli.settings import Settings
from acezero_gpu.data.depth import find_depth_files
from acezero_gpu.geometry import camera_centres, compose, invert, matrix_from_se3, rotation_angle_deg
from acezero_gpu.reconstruction.reconstruct import reconstruct
from acezero_gpu.reconstruction.state import ReconstructionStep
from benchmarks.growth_figures import NEAR_DEG, NEAR_M
from benchmarks.image_sets import TruthSet
from benchmarks.metrics import Figures
from benchmarks.records import Record
from benchmarks.workloads.adjustment import image_bank
from benchmarks.workloads.encoder import label


def measure_growth(
    names: Sequence[str], truth_set: TruthSet, depth: Path, settings: Settings, seeds: int, record: Record
) -> None:
    """For every seed and encoder: rounds of mapping and registration from one frame, keypoints left out.

    The seed's depth map is in metres and its pose the truth, so nothing is aligned; the focal length is the true one.
    """
    for seed in range(settings.config.seed, settings.config.seed + seeds):
        for name in names:
            row = {"part": "growth", "encoder": label(name), "set": truth_set.name, "seed": seed}
            config = replace(settings.config, encoder=name, seed=seed)
            row |= grown(truth_set, depth, replace(settings, config=config))
            record.add(row)
            sys.stderr.write(f"{row}\n")


def grown(truth_set: TruthSet, depth: Path, settings: Settings) -> Figures:
    """Share of the frames that end near their true pose, and what it took."""
    config = settings.config
    loop = replace(
        config.loop,
        fix_focal=True,
        joint=replace(config.loop.joint, when="off"),
        seeds=replace(config.loop.seeds, tries=1),
    )
    bank = image_bank(truth_set, settings)
    start = time.perf_counter()
    rounds: list[ReconstructionStep] = []
    camera = bank.camera(truth_set.focal_px)
    maps = find_depth_files(depth, truth_set.stems)
    for step in reconstruct(bank, camera, loop, depth=maps, seed=config.seed):
        rounds.append(step)
        if step.stop_reason is not None:
            break  # the final round would refine what has been found, and find nothing new
    threshold = config.loop.registration.min_inlier_share * bank.grid[0] * bank.grid[1]
    seed_row = int((rounds[0].preliminary.confidence > 0).nonzero()[0, 0])
    return {
        "start": truth_set.stems[seed_row],
        "rounds": len(rounds),
        "registered": rounds[-1].registered / len(bank),
        "near": _share_near(rounds[-1], truth_set, seed_row, 0.999 * threshold),
        "seconds": round(time.perf_counter() - start, 1),
    }


def _share_near(step: ReconstructionStep, truth_set: TruthSet, seed_row: int, threshold: float) -> float:
    truth = matrix_from_se3(truth_set.truth().cam_from_world)
    found = matrix_from_se3(step.views.cam_from_world).double()
    from_seed = compose(truth, invert(truth[seed_row]).expand_as(truth))
    distance = (camera_centres(found) - camera_centres(from_seed)).norm(dim=-1) * (truth_set.unit_m or 1.0)
    angle = rotation_angle_deg(found[:, :, :3], from_seed[:, :, :3])
    near = (distance < NEAR_M) & (angle < NEAR_DEG) & (step.views.confidence >= threshold)
    return float(near.double().mean())
