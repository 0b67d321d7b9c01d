"""Encoders compared: time per image, and how well cells find their match in other frames of a real sequence."""

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import imageio.v3 as iio
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from acezero_gpu.data.depth import DepthFiles, find_depth_files
from acezero_gpu.data.image_set import ImageSet
from acezero_gpu.data.loading import load_grey
from acezero_gpu.encoder_training.loss import matching_accuracy
from acezero_gpu.geometry import (
    PinholeCamera,
    cell_centres_px,
    compose,
    invert,
    matrix_from_se3,
    rotation_angle_deg,
)
from acezero_gpu.network import make_encoder
from acezero_gpu.runtime import InputError
from benchmarks.image_sets import TruthSet
from benchmarks.records import Record
from benchmarks.timing import wait

SIZE = (480, 640)
"""Images of the speed part."""
DEPTH_TOLERANCE = 0.05
"""A cell is seen in the other frame if the depths there differ by less than this share."""
MIN_SEEN = 0.1
"""Pairs that share fewer of their cells say little."""


@dataclass(frozen=True, slots=True)
class FramePair:
    """Two frames, and where the cells of the first lie in the second."""

    first: int
    second: int
    where: Float[Tensor, "n 2"]
    seen: Bool[Tensor, " n"]


def measure_speed(names: Sequence[str], device: torch.device, repeat: int, record: Record) -> None:
    """Milliseconds per image, one image at a time, in turns; medians. FLOPs as torch counts them."""
    encoders = {name: make_encoder(name, device) for name in names}
    image = torch.rand(1, 1, *SIZE, generator=torch.Generator().manual_seed(0)).to(device)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(repeat + 1):
        for name, encoder in encoders.items():
            start = time.perf_counter()
            with torch.no_grad():
                encoder(image)
            wait(device)
            if turn:
                seconds[name].append(time.perf_counter() - start)
    for name, encoder in encoders.items():
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            encoder(image)
        record.add(
            {
                "part": "speed",
                "encoder": label(name),
                "identifier": encoder.identifier,
                "channels": encoder.channels,
                "milliseconds": 1e3 * statistics.median(seconds[name]),
                "gflop": counter.get_total_flops() / 1e9,
                "threads": torch.get_num_threads(),
            }
        )


def measure_matching(
    names: Sequence[str],
    truth_set: TruthSet,
    depth: Path,
    device: torch.device,
    angles_deg: tuple[float, float],
    pairs: int,
    seed: int,
    record: Record,
) -> None:
    """Share of cells whose most similar cell in another frame lies within 8 px of the truth."""
    image_set = ImageSet(truth_set.stems, truth_set.images, *_size(truth_set.images[0]))
    images = load_grey(image_set, min(image_set.width, image_set.height))
    chosen = frame_pairs(
        truth_set, find_depth_files(depth, truth_set.stems), images.pixels.shape[-2:], angles_deg, pairs, seed
    )
    if not chosen:
        raise InputError(f"{truth_set.name}: no two frames with depth look {angles_deg} degrees apart.")
    for name in names:
        encoder = make_encoder(name, device)
        kept: dict[int, Tensor] = {}
        accuracy = []
        for pair in chosen:
            for frame in (pair.first, pair.second):
                if frame not in kept:
                    with torch.no_grad():
                        kept[frame] = encoder(images.batch([frame], device)).half().cpu()
            a, b = (kept[frame].float() for frame in (pair.first, pair.second))
            accuracy.append(
                float(matching_accuracy(a, b, pair.where[None], pair.seen[None], encoder.stride)[0])
            )
        sys.stderr.write(f"{label(name)}: {100 * statistics.mean(accuracy):.1f} % matched\n")
        record.add(
            {
                "part": "matching",
                "encoder": label(name),
                "set": truth_set.name,
                "pairs": len(chosen),
                "mean": statistics.mean(accuracy),
                "median": statistics.median(accuracy),
                "angles_deg": list(angles_deg),
            }
        )


def frame_pairs(
    truth_set: TruthSet,
    depth: DepthFiles,
    size: tuple[int, int],
    angles_deg: tuple[float, float],
    count: int,
    seed: int,
    stride: int = 8,
) -> list[FramePair]:
    """Random pairs whose viewing directions differ by an angle in the range, and that share enough cells."""
    truth = truth_set.truth()
    poses = matrix_from_se3(truth.cam_from_world)
    row = {name: index for index, name in enumerate(truth.names)}
    known = [
        index for index, name in enumerate(truth_set.stems) if name in row and depth.paths[index] is not None
    ]
    poses = poses[[row[truth_set.stems[index]] for index in known]]
    camera = PinholeCamera.centred(truth_set.focal_px, size[1], size[0])
    angle = rotation_angle_deg(poses[:, None, :, :3], poses[None, :, :, :3])
    candidates = ((angle >= angles_deg[0]) & (angle <= angles_deg[1])).nonzero()
    order = torch.randperm(len(candidates), generator=torch.Generator().manual_seed(seed))
    maps: dict[int, Tensor] = {}
    found: list[FramePair] = []
    for a, b in candidates[order].tolist():
        if len(found) == count:
            break
        for index in (a, b):
            if index not in maps:
                read = depth.depth_m(known[index])
                assert read is not None
                maps[index] = read.double()
        move = compose(poses[b], invert(poses[a])).double()
        where, seen = _seen_in(maps[a], maps[b], move, camera, size, stride)
        if seen.double().mean() >= MIN_SEEN:
            found.append(FramePair(known[a], known[b], where.float(), seen))
    return found


def _seen_in(
    depth_a: Float[Tensor, "h w"],
    depth_b: Float[Tensor, "h w"],
    b_from_a: Float[Tensor, "3 4"],
    camera: PinholeCamera,
    size: tuple[int, int],
    stride: int,
) -> tuple[Float[Tensor, "n 2"], Bool[Tensor, " n"]]:
    cells = cell_centres_px(size[0] // stride, size[1] // stride, stride).double()
    z = depth_a[cells[:, 1].long(), cells[:, 0].long()]
    focal, centre = camera.focal_px.double(), camera.principal_point_px.double()
    rays = torch.cat([(cells - centre) / focal, torch.ones_like(cells[:, :1])], dim=-1)
    points = rays * z[:, None] @ b_from_a[:, :3].T + b_from_a[:, 3]
    pixels = points[:, :2] / points[:, 2:].clamp_min(1e-3) * focal + centre
    limit = pixels.new_tensor([size[1], size[0]])
    inside = (z > 0) & (points[:, 2] > 0.05) & ((pixels > 0) & (pixels < limit)).all(-1)
    at = torch.minimum(pixels.clamp_min(0), limit - 1).long()
    there = depth_b[at[:, 1], at[:, 0]]
    return pixels, inside & (there > 0) & ((there - points[:, 2]).abs() < DEPTH_TOLERANCE * points[:, 2])


def label(name: str) -> str:
    """Without the folders of this machine."""
    return name if "/" not in name else Path(name).name


def _size(path: Path) -> tuple[int, int]:
    height, width = iio.improps(path, plugin="pillow").shape[:2]
    return width, height
