"""What the two stages that every image and every step pass through can do: mapping steps, and registered images."""

import statistics
import sys
import time
from dataclasses import replace

import torch

from acezero_gpu.cli.settings import Settings
from acezero_gpu.geometry import matrix_from_se3, rotation_angle_deg
from acezero_gpu.mapping import MappingResult
from acezero_gpu.network import Head, SceneMap, parameter_count
from acezero_gpu.registration import Registration, register_images
from acezero_gpu.runtime import random_stream
from benchmarks.image_sets import TruthSet
from benchmarks.metrics import Figures
from benchmarks.records import Record
from benchmarks.timing import wait
from benchmarks.workloads.adjustment import image_bank
from benchmarks.workloads.pipeline import product_gflops, training_operations
from benchmarks.workloads.pose_refinement import PosedSet, mapped, read_posed_set, thinned

WARM_UP_STEPS, WARM_UP_IMAGES = 20, 32


def measure_throughput(
    mapping: TruthSet,
    everything: TruthSet,
    steps: int,
    images: int,
    settings: Settings,
    repeats: int,
    record: Record,
) -> None:
    """A row for so many steps of a map of the true poses, and one for registering images against it."""
    posed = read_posed_set(mapping, settings)
    result, row = mapping_row(posed, steps, settings)
    record.add(row)
    sys.stderr.write(f"{steps} steps in {row['seconds']:.1f} s\n")
    row = registration_row(thinned(everything, images), posed, result.head, settings, repeats)
    record.add(row)
    sys.stderr.write(f"{row['images']} images, {row['images_per_s']:.1f} in a second\n")


def mapping_row(posed: PosedSet, steps: int, settings: Settings) -> tuple[MappingResult, Figures]:
    """Patches lie encoded in the buffer; poses and focal length are given."""
    mapped(posed, posed.cam_from_world, settings, WARM_UP_STEPS, "none")
    wait(settings.device)
    start = time.perf_counter()
    result = mapped(posed, posed.cam_from_world, settings, steps, "none")
    wait(settings.device)
    seconds = time.perf_counter() - start
    training = settings.config.loop.training
    weights = parameter_count(result.head.requires_grad_(True))
    result.head.requires_grad_(False)
    gflops = training_operations(weights, training.batch_size, result.iterations) / seconds / 1e9
    product = product_gflops(settings.device)
    return result, {
        "part": "mapping",
        "set": posed.name,
        "images": len(posed.frames),
        "steps": result.iterations,
        "batch": training.batch_size,
        "width": training.head.width,
        "seconds": seconds,
        "inlier_share": result.inlier_share,
        "gflops": gflops,
        "product_gflops": product,
        "product_share": gflops / product,
    }


def registration_row(
    truth_set: TruthSet, posed: PosedSet, head: Head, settings: Settings, repeats: int
) -> Figures:
    """Encoding, head and solver; the images lie decoded in main memory, and nothing of an earlier pass is kept."""
    config = settings.config
    uncached = replace(config, bank=replace(config.bank, feature_cache_bytes=0))
    bank = image_bank(truth_set, replace(settings, config=uncached))
    scene_map = SceneMap(head, bank.encoder.identifier, min(bank.height, bank.width), 1.0)
    camera = bank.camera(truth_set.focal_px)

    def register(count: int) -> Registration:
        return register_images(
            bank.features,
            torch.arange(count),
            scene_map,
            camera,
            config.loop.registration,
            stride=bank.encoder.stride,
            pixel_scale=bank.pixel_scale,
            generator=random_stream(config.seed, "registration"),
        )

    register(min(WARM_UP_IMAGES, len(bank)))
    seconds = []
    for _ in range(repeats):
        wait(settings.device)
        start = time.perf_counter()
        found = register(len(bank))
        wait(settings.device)
        seconds.append(time.perf_counter() - start)
    truth = truth_set.truth()
    rows = torch.tensor([truth_set.stems.index(name) for name in truth.names])
    rotation = matrix_from_se3(truth.cam_from_world)[:, :, :3]
    error_deg = rotation_angle_deg(found.cam_from_world[rows, :, :3].cpu().double(), rotation)
    return {
        "part": "registration",
        "set": truth_set.name,
        "images": len(bank),
        "size": [bank.width, bank.height],
        "encoder": bank.encoder.identifier,
        "seconds": statistics.median(seconds),
        "images_per_s": len(bank) / statistics.median(seconds),
        "registered": int(found.registered(config.loop.registration).sum()),
        "median_rotation_deg": float(error_deg.median()),
        "repeats": repeats,
    }
