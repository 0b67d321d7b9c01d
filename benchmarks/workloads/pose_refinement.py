"""True poses that were disturbed, and what mapping with each kind of pose refinement makes of them."""

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from acezero_gpu.cli.failure import as_input_error
from acezero_gpu.cli.settings import Settings
from acezero_gpu.data import PosedViews, load_grey, resolve_images
from acezero_gpu.evaluation import AlignmentConfig, EvaluationConfig, evaluate_poses, trajectory_extent
from acezero_gpu.geometry import PinholeCamera, camera_centres, retract, se3_from_matrix, transform_points
from acezero_gpu.mapping import (
    FeatureBuffer,
    FrameTable,
    MappingResult,
    PoseRefinementConfig,
    ScheduleConfig,
    TrainingConfig,
    train_map,
)
from acezero_gpu.network import Head, make_encoder
from acezero_gpu.reconstruction import ImageBank
from acezero_gpu.runtime import InputError, random_stream
from benchmarks.image_sets import TruthSet
from benchmarks.metrics import Figures
from benchmarks.pose_refinement_table import GIVEN, SHIFT_SHARE, TURN_DEG
from benchmarks.records import Record
from benchmarks.tables import number, percent

EXTENT = 2.0
"""Extent that a trajectory is scaled to before it is mapped, so that limits on depth suit every set."""
DEPTH_FRAMES = 64
"""At most so many frames tell the median scene depth."""

Change = Callable[[PoseRefinementConfig], PoseRefinementConfig]

VARIANTS: dict[str, Change] = {
    "none": lambda poses: replace(poses, name="none"),
    "naive": lambda poses: replace(poses, name="naive"),
    "mlp": lambda poses: replace(poses, name="mlp", zero_initialised=True),
    "mlp, random start": lambda poses: replace(poses, name="mlp", zero_initialised=False),
    "lm": lambda poses: replace(poses, name="lm"),
    "mlp+lm": lambda poses: replace(poses, name="mlp+lm", zero_initialised=True),
}
"""Kinds of refinement by name; everything else is as the settings say."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How long is trained."""

    map_steps: int
    """Of the map of the disturbed poses, which hold still; every refinement goes on from it."""
    steps: int
    """Of each refinement."""


@dataclass(frozen=True, slots=True)
class PosedSet:
    """The images of a set, encoded, with their true poses in the unit of the mapping."""

    name: str
    buffer: FeatureBuffer
    frames: Tensor
    """Of the buffer, one for each true pose."""
    truth: PosedViews
    cam_from_world: Tensor
    """True poses (f, 3, 4), scaled to ``EXTENT``, on the device."""
    camera: PinholeCamera
    """The true one, in pixels of the network image."""
    pixel_scale: float
    unit: float
    """Units of the mapping for one of the truth."""
    unit_m: float | None


def independent(count: int, generator: torch.Generator) -> Tensor:
    """Steps (count, 6) of unit root mean square length in translation and in rotation, each by itself."""
    return torch.randn(count, 6, generator=generator, dtype=torch.float64) / math.sqrt(3)


def drift(count: int, generator: torch.Generator) -> Tensor:
    """The same, but neighbours in the sequence are off alike: a random walk less its mean."""
    walk = torch.randn(count, 6, generator=generator, dtype=torch.float64).cumsum(0)
    walk = (walk - walk.mean(0)).unflatten(1, (2, 3))
    size = walk.square().sum(-1, keepdim=True).mean(0, keepdim=True).sqrt()
    return (walk / size.clamp_min(1e-12)).flatten(1)


DISTURBANCES = {"independent": independent, "drift": drift}


def disturbed(posed: PosedSet, kind: str, depth: float, seed: int) -> Tensor:
    """The true poses, each retracted by ``SHIFT_SHARE`` of the depth and ``TURN_DEG`` (root mean squares)."""
    steps = DISTURBANCES[kind](len(posed.frames), random_stream(seed, "disturbance", kind))
    size = torch.tensor([SHIFT_SHARE * depth] * 3 + [math.radians(TURN_DEG)] * 3, dtype=torch.float64)
    return retract(posed.cam_from_world, (steps * size).to(posed.cam_from_world))


def read_posed_set(truth_set: TruthSet, settings: Settings) -> PosedSet:
    """Loads and encodes the images that have a true pose; ``InputError`` if these do not move."""
    config, device = settings.config, settings.device
    with TemporaryDirectory(prefix="benchmark-") as temporary, as_input_error():
        images = load_grey(
            resolve_images(str(truth_set.write_list(Path(temporary) / "images.txt"))),
            config.bank.shortest_side_px,
        )
        encoder = make_encoder(config.encoder, device)
    bank = ImageBank(images, images, encoder, config.bank, device, config.seed)
    truth = truth_set.truth()
    stems = [Path(name).stem for name in images.image_set.names]
    frames = torch.tensor([stems.index(name) for name in truth.names])
    bank.fill_buffer(frames)
    extent = trajectory_extent(camera_centres(truth.matrices))
    if not extent > 0:
        raise InputError(f"{truth_set.name}: all true cameras stand in one place.")
    poses = truth.matrices.clone()
    poses[..., 3] *= EXTENT / extent
    return PosedSet(
        truth_set.name,
        bank.buffer,
        frames.to(device),
        truth,
        poses.float().to(device),
        bank.camera(truth_set.focal_px),
        bank.pixel_scale,
        EXTENT / extent,
        truth_set.unit_m,
    )


def thinned(truth_set: TruthSet, most: int) -> TruthSet:
    """At most so many of its images, evenly spread, in their order."""
    count = len(truth_set.images)
    rows = torch.linspace(0, count - 1, min(most, count)).round().long().tolist()
    return replace(truth_set, images=tuple(truth_set.images[row] for row in rows))


def chosen_names(given: str, known: Sequence[str], option: str) -> list[str]:
    """``all``, or names with semicolons between, since some have commas; ``InputError`` for unknown ones."""
    names = list(known) if given == "all" else [name.strip() for name in given.split(";") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise InputError(f"{option} {given}: choose all, or of {'; '.join(known)}.")
    return names


def training_config(posed: PosedSet, settings: Settings, steps: int, change: Change) -> TrainingConfig:
    """The preset's training with so many steps and the true focal length; no round ends early."""
    loop = settings.config.loop
    schedule = ScheduleConfig(
        iterations=steps,
        lr_min=loop.growth_schedule.lr_min,
        lr_max=loop.growth_schedule.lr_max,
        warmup_iterations=steps // 20,
        cooldown_iterations=3 * steps // 10,
        cooldown_inlier_share=2.0,
    )
    training = replace(
        loop.training,
        schedule=schedule,
        poses=change(loop.training.poses),
        calibration=replace(loop.training.calibration, refine=False),
    )
    return training.scaled(posed.pixel_scale)


def mapped(
    posed: PosedSet, start: Tensor, settings: Settings, steps: int, variant: str, head: Head | None = None
) -> MappingResult:
    """One round from these poses, and from a copy of this head; the seed is the same for all kinds of refinement."""
    stream = random_stream(settings.config.seed, "mapping", device=settings.device)
    table = FrameTable(posed.frames, start, posed.camera)
    config = training_config(posed, settings, steps, VARIANTS[variant])
    return train_map(posed.buffer, table, config, generator=stream, initial_head=head)


def median_depth(posed: PosedSet, settings: Settings, steps: int) -> float:
    """Of the points that a map of the true poses predicts, in the unit of the mapping."""
    head = mapped(posed, posed.cam_from_world, settings, steps, "none").head
    rows = torch.linspace(0, len(posed.frames) - 1, min(DEPTH_FRAMES, len(posed.frames))).long()
    depths = []
    for row in rows.tolist():
        points = head(posed.buffer.features[posed.frames[row]].to(settings.device).float())
        depths.append(transform_points(posed.cam_from_world[row], points)[:, 2])  # the head is frozen
    return float(torch.cat(depths).median())


def refine_and_measure(
    truth_sets: Sequence[TruthSet],
    settings: Settings,
    effort: Effort,
    kinds: Sequence[str],
    variants: Sequence[str],
    record: Record,
) -> bool:
    """A row for each set, disturbance and kind of refinement; whether each of them has a result."""
    complete = True
    for truth_set in truth_sets:
        posed = read_posed_set(truth_set, settings)
        depth = median_depth(posed, settings, effort.steps)
        for kind in kinds:
            start = disturbed(posed, kind, depth, settings.config.seed)
            base = mapped(posed, start, settings, effort.map_steps, "none").head
            head = {"set": posed.name, "start": kind, "seed": settings.config.seed, "images": len(start)}
            head |= {"map_steps": effort.map_steps, "steps": effort.steps, "unit_m": posed.unit_m}
            record.add({**head, "variant": GIVEN, **pose_figures(posed, start, depth), **_NO_MAP})
            for variant in variants:
                figures = _run(posed, start, settings, effort.steps, variant, base, depth)
                row = {**head, "variant": variant, **figures}
                record.add(row)
                complete &= row["failure"] is None
                sys.stderr.write(f"{posed.name}, {kind}, {variant}: {_in_words(row)}\n")
    return complete


_NO_MAP: Figures = {"seconds": None, "inlier_share": None, "failure": None}


def _run(
    posed: PosedSet, start: Tensor, settings: Settings, steps: int, variant: str, base: Head, depth: float
) -> Figures:
    clock = time.perf_counter()
    try:
        result = mapped(posed, start, settings, steps, variant, base)
        poses = result.cam_from_world  # on the CPU only once the device is done
        figures = pose_figures(posed, poses, depth)
    except FloatingPointError as error:
        nothing = dict.fromkeys(pose_figures(posed, start, depth))
        return {**nothing, "seconds": None, "inlier_share": None, "failure": str(error)}
    seconds = round(time.perf_counter() - clock, 2)
    return {**figures, "seconds": seconds, "inlier_share": result.inlier_share, "failure": None}


def pose_figures(posed: PosedSet, cam_from_world: Tensor, depth: float) -> Figures:
    """Errors after similarity alignment, in units of the truth, and figures of all pairs.

    A camera counts for the alignment within twice the disturbance, or 2 % of the extent where that is more, and
    orientations take part: a disturbance may exceed the whole trajectory of a small set.
    """
    poses = cam_from_world.double().cpu().clone()
    poses[..., 3] /= posed.unit
    truth = posed.truth
    everything = torch.full((len(truth.names),), math.inf)
    estimate = PosedViews(truth.names, se3_from_matrix(poses), truth.focal_px, everything)
    tolerance = max(0.02, 2 * SHIFT_SHARE * depth / EXTENT)
    alignment = AlignmentConfig(max_position_error_share=tolerance, orientations="always")
    stream = torch.Generator().manual_seed(0)
    figures = evaluate_poses(estimate, truth, EvaluationConfig(alignment=alignment), stream).as_dict()
    in_depths = figures["median_translation"]
    return {
        "median_rotation_deg": figures["median_rotation_deg"],
        "median_translation": figures["median_translation"],
        "median_translation_depths": None if in_depths is None else in_depths * posed.unit / depth,
        "auc_30": figures["auc_30"],
        "scale": figures["scale"],
        "alignment": figures["alignment"],
        "alignment_inliers": figures["alignment_inliers"],
    }


def _in_words(row: Figures) -> str:
    if row["failure"]:
        return str(row["failure"])
    return (
        f"{number(row['median_rotation_deg'], 3, '°')}, {percent(row['median_translation_depths'])} % of the "
        f"depth, {percent(row['inlier_share'])} % inliers, {row['seconds']:.0f} s"
    )
