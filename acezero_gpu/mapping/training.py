"""One mapping round: from posed images to a map, with poses and focal length refined on the way."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from acezero_gpu.geometry import PinholeCamera, camera_centres
from acezero_gpu.mapping.calibration import FocalScale
from acezero_gpu.mapping.feature_buffer import FeatureBuffer
from acezero_gpu.mapping.pose_reestimation import reestimate_against_map
from acezero_gpu.mapping.pose_refinement import make_pose_table
from acezero_gpu.mapping.scene_unit import scale_head_, scaled_table, scene_unit
from acezero_gpu.mapping.schedule import LearningRateSchedule
from acezero_gpu.mapping.training_config import FrameTable, TrainingConfig
from acezero_gpu.mapping.training_step import TrainingStep
from acezero_gpu.mapping.view_clusters import view_clusters
from acezero_gpu.network import Head, HeadConfig, ensemble_of
from acezero_gpu.runtime import random_stream
from acezero_gpu.runtime.distributed import ALONE, Ranks
from acezero_gpu.runtime.progress import report


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
    """A trained head or ensemble with the refined poses (one per frame of the table) and camera."""

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
    heads: int = 1,
    initial_head: Head | None = None,
    progress: Callable[[TrainingProgress], None] | None = None,
    ranks: Ranks = ALONE,
) -> MappingResult:
    """Minimises the reprojection loss of random patches over head, poses and focal length.

    Starts from a copy of ``initial_head`` in place of a fresh head when given. Several ``heads`` are trained together
    as an ensemble, each on the patches of its own cluster of frames, and always afresh. Raises ``FloatingPointError``
    when the loss stops being finite: a map full of NaN would only fail later and less clearly. Several ``ranks`` share
    the work of every step; each must be called with the same arguments, and gets the same result. Poses in
    millimetres, say, are trained on in a unit that suits (``scene_unit``); what comes back is in theirs.
    """
    several = heads > 1 or (initial_head is not None and initial_head.count > 1)
    if several and (config.poses.reestimates or initial_head is not None):
        raise ValueError("an ensemble starts afresh, and poses are not re-estimated against one")
    device = buffer.compute_device
    given, unit = table.cam_from_world, scene_unit(table.cam_from_world)
    table = table if unit == 1.0 else scaled_table(table, 1.0 / unit)
    with _initial_weights_from(generator):
        if initial_head is None:
            head = _fresh_head(buffer.features.shape[-1], table, config.head, heads).to(device)
        else:
            head = scale_head_(copy.deepcopy(initial_head), 1.0 / unit)
        poses = make_pose_table(table.cam_from_world, config.poses, table.fixed)
    head = head.train().requires_grad_(True)
    focal = FocalScale(table.camera)
    step = TrainingStep(buffer, table, config, head, poses, focal, generator, ranks)
    trainer = _Trainer(step, generator, progress)
    iterations = trainer.run()
    with torch.no_grad():
        found = poses().detach().clone()
        still = (found == table.cam_from_world).flatten(1).all(1)
        found[..., 3] *= unit
        return MappingResult(
            scale_head_(head, unit).eval().requires_grad_(False),
            torch.where(still[:, None, None], given, found),  # a pose that stays does so in all its digits
            PinholeCamera(focal().focal_px.detach(), table.camera.principal_point_px),
            iterations,
            trainer.recent_inlier_share,
            tuple(trainer.log),
        )


def _fresh_head(channels: int, table: FrameTable, config: HeadConfig, heads: int) -> Head:
    """Around the middle of the cameras, those of its own cluster in an ensemble."""
    centres = camera_centres(table.cam_from_world)
    if heads == 1:
        return Head(channels, config, centres.mean(0))
    clusters = view_clusters(table.cam_from_world, heads)
    return ensemble_of(
        [Head(channels, config, centres[rows.to(centres.device)].mean(0)) for rows in clusters]
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
        step: TrainingStep,
        generator: torch.Generator,
        progress: Callable[[TrainingProgress], None] | None,
    ) -> None:
        self.step, self.config = step, step.config
        # A stream of its own: the batches are the same with and without re-estimation.
        self.sample_generator = random_stream(
            generator.initial_seed(), "re-estimation", device=generator.device
        )
        self.progress = progress
        self.log: list[TrainingProgress] = []
        self.recent_inlier_share = 0.0
        patches = len(step.table.frames) * step.buffer.patches_per_frame // step.head.count
        self.schedule = LearningRateSchedule(self.config.schedule.bounded(patches, self.config.batch_size))

    def run(self) -> int:
        config = self.config
        iteration = 0
        losses: list[Tensor] = []
        shares: list[Tensor] = []
        while iteration < self.schedule.last_iteration:
            if config.poses.reestimates and config.poses.reestimation.due(iteration, config.poses.wait):
                self._reestimate()
            done = iteration / max(1, self.schedule.last_iteration)
            loss, share = self.step(iteration, done, self.schedule.learning_rate(iteration))
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

    @torch.no_grad()
    def _reestimate(self) -> None:
        """Locates all frames in the map as it is now."""
        step = self.step
        found = reestimate_against_map(
            step.buffer,
            step.frames,
            step.predict,
            step.poses(),
            step.focal(),
            self.config.poses.reestimation,
            inlier_px=self.config.inlier_px,
            generator=self.sample_generator,
            radial=step.table.radial,
        )
        moved = found.cam_from_world.contiguous()
        step.ranks.broadcast([moved])  # sums on a GPU may end in other bits on each
        step.poses.move_to(moved)

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
            float(self.step.focal().focal_px[0].detach()),
        )
        self.log.append(entry)
        if self.progress is not None:
            self.progress(entry)
