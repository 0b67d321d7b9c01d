"""The cost of a whole reconstruction, stage by stage, over the number of images."""

import multiprocessing
import resource
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from acezero_gpu.cli.settings import Settings
from acezero_gpu.io import RunFolder
from acezero_gpu.io.history_file import read_history
from acezero_gpu.network import SceneMap, parameter_count
from benchmarks.image_sets import TruthSet
from benchmarks.metrics import Figures
from benchmarks.records import Record
from benchmarks.timing import wait, warm_up
from benchmarks.workloads.adjustment import growth_exponent
from benchmarks.workloads.pose_refinement import thinned
from benchmarks.workloads.reconstruction import measure

PRODUCT_SIZE, PRODUCT_REPEATS = 2048, 9
"""The matrix product that tells what the device can do."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run, as a process of its own gets it."""

    truth_set: TruthSet
    system: str
    settings: Settings
    threads: int


def measure_pipeline(
    truth_set: TruthSet, counts: Sequence[int], systems: Sequence[str], settings: Settings, record: Record
) -> bool:
    """A row for each system and number of images that the set has, and how each system's cost grows.

    Every run has a fresh process: its peak of resident memory is its own. Whether every run has a result.
    """
    complete = True
    rows: dict[str, list[Figures]] = {system: [] for system in systems}
    for count in counts:
        if count > len(truth_set.images):
            sys.stderr.write(f"{truth_set.name} has {len(truth_set.images)} images, not {count}: left out\n")
            continue
        for system in systems:
            row = _in_fresh_process(Job(thinned(truth_set, count), system, settings, torch.get_num_threads()))
            record.add(row)
            complete &= row["failure"] is None
            if row["failure"] is None:
                rows[system].append(row)
            sys.stderr.write(f"{row['set']}, {system}: {count} images in {row['seconds']:.1f} s\n")
    for system, found in rows.items():
        if len(found) > 1:
            record.add(growth_row(system, found, settings.device.type))
    return complete


def growth_row(system: str, rows: Sequence[Figures], device_type: str) -> Figures:
    """The exponent of the cost over the images; on a CPU by CPU seconds, which other programs disturb less."""
    key = "cpu_seconds" if device_type == "cpu" else "seconds"
    exponent = growth_exponent([row["images"] for row in rows], [row[key] for row in rows])
    return {"part": "growth", "system": system, "by": key, "exponent": exponent}


def _in_fresh_process(job: Job) -> Figures:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(run_job, job).result()


def run_job(job: Job) -> Figures:
    """The run's figures with its CPU seconds, peak memory, and the share of the device that mapping used."""
    torch.set_num_threads(job.threads)
    warm_up(job.settings.device)
    with TemporaryDirectory(prefix="benchmark-") as folder:
        start = time.process_time()
        row = measure(job.truth_set, job.system, job.settings, Path(folder))
        row["cpu_seconds"] = round(time.process_time() - start, 1)
        # Kilobytes on Linux; the program itself and what it loads are in it.
        row["peak_memory_gib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
        runs = list(Path(folder).glob("*/*/run"))
        if job.system.startswith("ours") and row["failure"] is None:
            row |= mapping_figures(runs[0], row["stages_s"]["mapping"], job.settings)
    return {"part": "run", **row}


def mapping_figures(run: Path, seconds: float, settings: Settings) -> Figures:
    """Operations of the head's training per second, and what one large matrix product reaches."""
    folder, loop = RunFolder(run), settings.config.loop
    operations, steps = 0.0, 0
    for round_ in read_history(folder.history).rounds:
        if not round_.training:
            continue
        scene_map, count = SceneMap.load(folder.map(round_.index)), round_.training[-1].iteration
        head, training = scene_map.head, loop.training
        if round_.name == "final":
            size = loop.final_map.with_encoder(scene_map.encoder_identifier)
            training = size.training(training, head.count)
        weights = parameter_count(head.requires_grad_(True))
        operations += training_operations(weights, training.batch_size, count)
        steps += count
    return {
        "mapping_steps": steps,
        "mapping_gflops": round(operations / seconds / 1e9, 1),
        "product_gflops": round(product_gflops(settings.device), 1),
    }


def training_operations(weights: int, batch_size: int, steps: int) -> float:
    """Six per weight and patch: a product and a sum, forwards, and twice that backwards.

    Weights of all heads, and the patches that each of them gets.
    """
    return 6.0 * weights * batch_size * steps


def product_gflops(device: torch.device) -> float:
    """Of a square matrix product in the type that the head is trained in; the best of several."""
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    a = torch.rand(PRODUCT_SIZE, PRODUCT_SIZE, dtype=dtype, device=device)
    seconds = []
    for _ in range(PRODUCT_REPEATS):
        start = time.perf_counter()
        a @ a
        wait(device)
        seconds.append(time.perf_counter() - start)
    return 2 * PRODUCT_SIZE**3 / min(seconds) / 1e9
