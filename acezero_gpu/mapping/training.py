"""One mapping round: from posed images to a map, with poses and focal length refined on the way."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from acezero_gpu.geometry import PinholeCamera, camera_centres, undistort_pixels
from acezero_gpu.mapping.calibration import CalibrationConfig, FocalScale
from acezero_gpu.mapping.feature_buffer import FeatureBuffer, PatchBatch
from acezero_gpu.mapping.losses import LossConfig, patch_loss, soft_clamp_at
from acezero_gpu.mapping.pose_reestimation import reestimate_against_map
from acezero_gpu.mapping.pose_refinement import PoseRefinementConfig, PoseTable, make_pose_table
from acezero_gpu.mapping.schedule import LearningRateSchedule, ScheduleConfig
from acezero_gpu.network import Head, HeadConfig
from acezero_gpu.runtime import autocast, random_stream
from acezero_gpu.runtime.progress import report


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """Everything that one mapping round depends on."""

    head: HeadConfig = field(default_factory=HeadConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    poses: PoseRefinementConfig = field(default_factory=PoseRefinementConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    batch_size: int = 5120
    """Patches per step."""
    inlier_px: float = 10.0
    """Reprojection error below which a patch counts for the early cool-down, at a shortest side of 480 pixels;
    scaled with the resolution."""
    mixed_precision: bool = True
    """Half precision for the head's matrix products on a GPU."""
    report_every: int = 100
    """Steps between two lines of the log, and between two looks at the inlier share."""

    def scaled(self, pixel_scale: float) -> "TrainingConfig":
        """The same training for another resolution: everything in pixels times ``pixel_scale``."""
        loss = replace(
            self.loss,
            soft_clamp_px=self.loss.soft_clamp_px * pixel_scale,
            soft_clamp_min_px=self.loss.soft_clamp_min_px * pixel_scale,
            hard_clamp_px=self.loss.hard_clamp_px * pixel_scale,
        )
        return replace(self, loss=loss, inlier_px=self.inlier_px * pixel_scale)


@dataclass(frozen=True, slots=True)
class FrameTable:
    """The frames of a round: which images, where they start from, and the shared camera."""

    frames: Int[Tensor, " f"]
    """Indices of the images in the buffer."""
    cam_from_world: Float[Tensor, "f 3 4"]
    """Starting poses."""
    camera: PinholeCamera
    """In pixels of the network image."""
    radial: Float[Tensor, " 2"] | None = None
    """``k1, k2`` of the shared lens; none means no distortion."""
    depth_targets: Float[Tensor, "f dr dc"] | None = None
    """Depths on a coarse grid over the network image, 0 where unknown; they supervise a round without a map."""
    image_size: tuple[int, int] = (0, 0)
    """Height and width of the network image, needed with ``depth_targets``."""
    fixed: Bool[Tensor, " f"] | None = None
    """Frames whose poses no refinement moves; none if not given."""


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """What one line of the log says."""

    iteration: int
    total_iterations: int
    loss: float
    inlier_share: float
    """Smallest share since the last line."""
    learning_rate: float
    focal_px: float


@dataclass(frozen=True, slots=True)
class MappingResult:
    """A trained head with the refined poses (one per frame of the table) and camera."""

    head: Head
    cam_from_world: Float[Tensor, "f 3 4"]
    camera: PinholeCamera
    iterations: int
    inlier_share: float
    """Share of inliers over the last steps."""
    log: tuple[TrainingProgress, ...]


def train_map(
    buffer: FeatureBuffer,
    table: FrameTable,
    config: TrainingConfig,
    *,
    generator: torch.Generator,
    initial_head: Head | None = None,
    progress: Callable[[TrainingProgress], None] | None = None,
) -> MappingResult:
    """Minimises the reprojection loss of random patches over head, poses and focal length.

    Starts from a copy of ``initial_head`` in place of a fresh head when given. Raises ``FloatingPointError`` when
    the loss stops being finite: a map full of NaN would only fail later and less clearly.
    """
    device = buffer.compute_device
    channels = buffer.features.shape[-1]
    centre = camera_centres(table.cam_from_world).mean(0)
    with _initial_weights_from(generator):
        head = (
            Head(channels, config.head, centre).to(device)
            if initial_head is None
            else copy.deepcopy(initial_head)
        )
        poses = make_pose_table(table.cam_from_world, config.poses, table.fixed)
    head = head.train().requires_grad_(True)
    focal = FocalScale(table.camera)
    trainer = _Trainer(buffer, table, config, head, poses, focal, generator, progress)
    iterations = trainer.run()
    with torch.no_grad():
        return MappingResult(
            head.eval().requires_grad_(False),
            poses().detach().clone(),
            PinholeCamera(focal().focal_px.detach(), table.camera.principal_point_px),
            iterations,
            trainer.recent_inlier_share,
            tuple(trainer.log),
        )


@contextmanager
def _initial_weights_from(generator: torch.Generator) -> Iterator[None]:
    """Modules that are made inside draw their weights from ``generator``; PyTorch offers them its global one only."""
    seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


class _Trainer:
    def __init__(
        self,
        buffer: FeatureBuffer,
        table: FrameTable,
        config: TrainingConfig,
        head: Head,
        poses: PoseTable,
        focal: FocalScale,
        generator: torch.Generator,
        progress: Callable[[TrainingProgress], None] | None,
    ) -> None:
        self.buffer, self.table, self.config = buffer, table, config
        self.head, self.poses, self.focal = head, poses, focal
        self.generator = generator
        # A stream of its own: the batches are the same with and without re-estimation.
        self.sample_generator = random_stream(
            generator.initial_seed(), "re-estimation", device=generator.device
        )
        self.progress = progress
        self.log: list[TrainingProgress] = []
        self.recent_inlier_share = 0.0
        device = buffer.compute_device
        self.frames = table.frames.to(generator.device)
        # Position of an image in the table, for per-frame look-ups.
        self.row_of_image = torch.zeros(int(table.frames.max()) + 1, dtype=torch.long, device=device)
        self.row_of_image[table.frames.to(device)] = torch.arange(len(table.frames), device=device)
        patches = len(table.frames) * buffer.patches_per_frame
        self.schedule = LearningRateSchedule(config.schedule.bounded(patches, config.batch_size))
        self.head_optimiser = torch.optim.AdamW(head.parameters(), lr=config.schedule.lr_min, fused=True)
        self.pose_optimiser = _optimiser(poses, config.poses.lr)
        self.focal_optimiser = _optimiser(focal, config.calibration.lr) if config.calibration.refine else None
        self.scaler = torch.amp.GradScaler(
            device.type, enabled=config.mixed_precision and device.type == "cuda"
        )

    def run(self) -> int:
        config = self.config
        iteration = 0
        losses: list[Tensor] = []
        shares: list[Tensor] = []
        while iteration < self.schedule.last_iteration:
            for group in self.head_optimiser.param_groups:
                group["lr"] = self.schedule.learning_rate(iteration)
            if config.poses.reestimates and config.poses.reestimation.due(iteration, config.poses.wait):
                self._reestimate()
            loss, share = self._step(iteration)
            losses.append(loss)
            shares.append(share)
            iteration += 1
            # The only look at device numbers: once per report, not per step.
            if iteration % config.report_every == 0 or iteration == self.schedule.last_iteration:
                self._report(iteration, torch.stack(losses), torch.stack(shares))
                losses.clear()
                shares.clear()
            report(iteration, self.schedule.last_iteration, "steps", **self._figures())
        return iteration

    def _figures(self) -> dict[str, float]:
        """How well the map fits, as of the last line of the log."""
        if not self.log:
            return {}
        return {"loss_px": self.log[-1].loss, "inlier_share": self.recent_inlier_share}

    def _step(self, iteration: int) -> tuple[Tensor, Tensor]:
        config = self.config
        batch = self.buffer.sample(self.frames, config.batch_size, self.generator)
        rows = self.row_of_image[batch.frames]
        points = self._predict(batch.features)
        moving = config.poses.name != "none" and iteration >= config.poses.wait
        with torch.set_grad_enabled(moving):
            poses = self.poses() if moving else self.poses.initial
        with torch.set_grad_enabled(self.focal_optimiser is not None):
            camera = self.focal()
        pose = poses[rows]
        points_cam = (pose[:, :, :3] @ points[..., None])[..., 0] + pose[:, :, 3]
        progress = iteration / max(1, self.schedule.last_iteration)
        pixels = batch.pixels
        if self.table.radial is not None:
            with torch.no_grad():
                pixels = undistort_pixels(pixels, camera, self.table.radial)
        result = patch_loss(
            points_cam,
            pixels,
            camera,
            config.loss,
            soft_clamp_px=soft_clamp_at(config.loss, progress),
            target_depth=self._target_depth(batch, rows),
        )
        loss = result.loss.sum() / len(rows)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.head_optimiser)
        self.head_optimiser.zero_grad(set_to_none=True)
        for optimiser in (self.pose_optimiser if moving else None, self.focal_optimiser):
            if optimiser is not None:
                self.scaler.step(optimiser)
                optimiser.zero_grad(set_to_none=True)
        self.scaler.update()
        inlier = (result.error_px < config.inlier_px) & result.valid
        return loss.detach(), inlier.float().mean().detach()

    def _predict(self, features: Tensor) -> Tensor:
        lowered = self.config.mixed_precision and features.device.type == "cuda"
        with autocast(features.device, lowered):
            return self.head(features if lowered else features.float())

    @torch.no_grad()
    def _reestimate(self) -> None:
        """Locates all frames in the map as it is now."""
        found = reestimate_against_map(
            self.buffer,
            self.frames,
            self._predict,
            self.poses(),
            self.focal(),
            self.config.poses.reestimation,
            inlier_px=self.config.inlier_px,
            generator=self.sample_generator,
            radial=self.table.radial,
        )
        self.poses.move_to(found.cam_from_world)

    def _target_depth(self, batch: PatchBatch, rows: Tensor) -> Tensor | None:
        targets = self.table.depth_targets
        if targets is None:
            return None
        height, width = self.table.image_size
        u = (batch.pixels[:, 0] * (targets.shape[2] / width)).long().clamp(0, targets.shape[2] - 1)
        v = (batch.pixels[:, 1] * (targets.shape[1] / height)).long().clamp(0, targets.shape[1] - 1)
        return targets[rows, v, u]

    def _report(self, iteration: int, losses: Tensor, shares: Tensor) -> None:
        mean_loss = float(losses.mean())
        if not mean_loss < float("inf"):
            raise FloatingPointError(f"the mapping loss is not finite after {iteration} steps")
        self.recent_inlier_share = float(shares.mean())
        self.schedule.observe_inlier_share(iteration, float(shares.min()))
        entry = TrainingProgress(
            iteration,
            self.schedule.last_iteration,
            mean_loss,
            float(shares.min()),
            self.schedule.learning_rate(iteration),
            float(self.focal().focal_px[0].detach()),
        )
        self.log.append(entry)
        if self.progress is not None:
            self.progress(entry)


def _optimiser(module: torch.nn.Module, lr: float) -> torch.optim.AdamW | None:
    parameters = list(module.parameters())
    return torch.optim.AdamW(parameters, lr=lr) if parameters else None
