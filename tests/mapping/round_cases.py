"""A short mapping round on a world with exact truth, for the tests of what such a round does."""

from dataclasses import replace

import torch
from reference.analytic_world import World
from torch import Tensor

from acezero_gpu.geometry import PinholeCamera
from acezero_gpu.mapping import (
    CalibrationConfig,
    FrameTable,
    MappingResult,
    PoseRefinementConfig,
    ScheduleConfig,
    TrainingConfig,
    train_map,
)
from acezero_gpu.network import HeadConfig

CONFIG = TrainingConfig(
    head=HeadConfig(width=48, blocks=0),
    schedule=ScheduleConfig(iterations=400, lr_max=0.006, warmup_iterations=20, cooldown_iterations=200),
    poses=PoseRefinementConfig(name="none"),
    calibration=CalibrationConfig(refine=False),
    batch_size=512,
    mixed_precision=False,
    report_every=40,
)


def train(
    world: World,
    config: TrainingConfig = CONFIG,
    *,
    poses: Tensor | None = None,
    focal_factor: float = 1.0,
    frames: list[int] | None = None,
    seed: int = 0,
    table_changes: dict | None = None,
    **arguments: object,
) -> MappingResult:
    """A round from these poses and this share of the true focal length."""
    rows = torch.arange(len(world)) if frames is None else torch.tensor(frames)
    poses = world.cam_from_world if poses is None else poses
    camera = PinholeCamera(world.camera.focal_px * focal_factor, world.camera.principal_point_px)
    table = FrameTable(rows.to(world.points.device), poses[rows], camera)
    table = replace(table, **(table_changes or {}))
    buffer = arguments.pop("buffer", None) or world.buffer()
    generator = torch.Generator(device=world.points.device).manual_seed(seed)
    return train_map(buffer, table, config, generator=generator, **arguments)


def map_error(world: World, result: MappingResult) -> float:
    """Median distance of mapped points from the true ones."""
    return float((result.head(world.features) - world.points).norm(dim=-1).median())


def with_poses(name: str, **changes: object) -> TrainingConfig:
    return replace(CONFIG, poses=PoseRefinementConfig(name=name, **changes))
