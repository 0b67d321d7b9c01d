"""One step of a mapping round: a random batch, its gradient, and what head, poses and focal length make of it."""

import torch
from torch import Tensor

from acezero_gpu.geometry import undistort_pixels
from acezero_gpu.mapping.calibration import FocalScale
from acezero_gpu.mapping.feature_buffer import FeatureBuffer, PatchBatch
from acezero_gpu.mapping.losses import patch_loss, soft_clamp_at
from acezero_gpu.mapping.muon import Muon
from acezero_gpu.mapping.pose_refinement import PoseTable
from acezero_gpu.mapping.training_config import FrameTable, TrainingConfig
from acezero_gpu.mapping.view_clusters import view_clusters
from acezero_gpu.network import Head
from acezero_gpu.runtime import autocast, chunk_ranges, halving
from acezero_gpu.runtime.distributed import ALONE, Ranks

MUON_REFRESH = 2
"""Every how many steps a matrix's direction is found anew. A step of a 256-wide head on a CPU takes four fifths of
the time that it takes with 1, for a map nearly as good."""


class TrainingStep:
    """Called once per step; moves its head, poses and focal length along the gradient of a random batch.

    With several ``ranks`` all draw the same batch, each works on its share, and the gradients are added up: the step
    is that of one process. All ranks start from what rank 0 has, and hold the same bits ever after.

    The heads of an ensemble each draw a batch from their own frames and are trained as if each was alone; poses and
    focal length are common to all.
    """

    def __init__(
        self,
        buffer: FeatureBuffer,
        table: FrameTable,
        config: TrainingConfig,
        head: Head,
        poses: PoseTable,
        focal: FocalScale,
        generator: torch.Generator,
        ranks: Ranks = ALONE,
    ) -> None:
        self.buffer, self.table, self.config = buffer, table, config
        self.head, self.poses, self.focal = head, poses, focal
        self.generator, self.ranks = generator, ranks
        device = buffer.compute_device
        self.frames = table.frames.to(generator.device)
        self.frames_of_head = [
            self.frames[rows.to(generator.device)] for rows in view_clusters(table.cam_from_world, head.count)
        ]
        # Position of an image in the table, for per-frame look-ups.
        self.row_of_image = torch.zeros(int(table.frames.max()) + 1, dtype=torch.long, device=device)
        self.row_of_image[table.frames.to(device)] = torch.arange(len(table.frames), device=device)
        self.head_optimisers = head_optimisers(head, config)
        self.pose_optimiser = _optimiser(poses, config.poses.lr)
        self.focal_optimiser = _optimiser(focal, config.calibration.lr) if config.calibration.refine else None
        self.scaler = torch.amp.GradScaler(
            device.type, enabled=config.mixed_precision and device.type == "cuda"
        )
        self.learnt = [*head.parameters(), *poses.parameters(), *focal.parameters()]
        ranks.broadcast([parameter.data for parameter in self.learnt])

    def __call__(self, iteration: int, progress: float, learning_rate: float) -> tuple[Tensor, Tensor]:
        """Step ``iteration`` at a share ``progress`` of the training; mean loss and inlier share, on the device."""
        for group in (group for optimiser in self.head_optimisers for group in optimiser.param_groups):
            group["lr"] = learning_rate
        moving = self.config.poses.name != "none" and iteration >= self.config.poses.wait
        loss, inliers = self._gradient(moving, soft_clamp_at(self.config.loss, progress))
        self.ranks.all_reduce_sum([p.grad for p in self.learnt if p.grad is not None] + [loss, inliers])
        for optimiser in (
            *self.head_optimisers,
            self.pose_optimiser if moving else None,
            self.focal_optimiser,
        ):
            if optimiser is not None:
                self.scaler.step(optimiser)
        self.scaler.update()
        return loss, inliers

    def predict(self, features: Tensor) -> Tensor:
        """World points of these features by the map as it is now; each head of an ensemble gets one of equal parts."""
        lowered = self.config.mixed_precision and features.device.type == "cuda"
        features = features if lowered else features.float()
        with autocast(features.device, lowered):
            if self.head.count == 1:
                return self.head(features)
            return self.head(features.unflatten(0, (self.head.count, -1))).flatten(0, 1)

    def _gradient(self, moving: bool, soft_clamp_px: float) -> tuple[Tensor, Tensor]:
        """Of this rank's share of the batch, left in the parameters; its part of the mean loss and inlier share.

        Where memory runs out, the gradients of smaller pieces are added up: the step stays the same.
        """
        size = self.config.batch_size
        drawn = [self.buffer.draw(frames, size, self.generator) for frames in self.frames_of_head]
        mine = self.ranks.part(size)
        frames, slots = (torch.stack(index)[:, mine] for index in zip(*drawn, strict=True))

        def attempt(size: int) -> tuple[Tensor, Tensor]:
            for parameter in self.learnt:
                parameter.grad = None
            pieces = [
                self._backward(
                    self.buffer.patches(frames[:, piece].flatten(), slots[:, piece].flatten()),
                    moving,
                    soft_clamp_px,
                )
                for piece in chunk_ranges(frames.shape[1], size)
            ]
            losses, inliers = zip(*pieces, strict=True)
            return (losses[0], inliers[0]) if len(pieces) == 1 else (sum(losses), sum(inliers))

        return halving("mapping", frames.shape[1], attempt)

    def _backward(self, batch: PatchBatch, moving: bool, soft_clamp_px: float) -> tuple[Tensor, Tensor]:
        """Adds to the gradients what some patches of the batch have to say."""
        config = self.config
        rows = self.row_of_image[batch.frames]
        points = self.predict(batch.features)
        with torch.set_grad_enabled(moving):
            poses = self.poses() if moving else self.poses.initial
        with torch.set_grad_enabled(self.focal_optimiser is not None):
            camera = self.focal()
        pose = poses[rows]
        points_cam = (pose[:, :, :3] @ points[..., None])[..., 0] + pose[:, :, 3]
        pixels = batch.pixels
        if self.table.radial is not None:
            with torch.no_grad():
                pixels = undistort_pixels(pixels, camera, self.table.radial)
        result = patch_loss(
            points_cam,
            pixels,
            camera,
            config.loss,
            soft_clamp_px=soft_clamp_px,
            target_depth=self._target_depth(batch, rows),
        )
        loss = result.loss.sum() / config.batch_size
        self.scaler.scale(loss).backward()
        inlier = (result.error_px < config.inlier_px) & result.valid
        heads = self.head.count
        return loss.detach() / heads, inlier.sum() / (heads * config.batch_size)

    def _target_depth(self, batch: PatchBatch, rows: Tensor) -> Tensor | None:
        targets = self.table.depth_targets
        if targets is None:
            return None
        height, width = self.table.image_size
        u = (batch.pixels[:, 0] * (targets.shape[2] / width)).long().clamp(0, targets.shape[2] - 1)
        v = (batch.pixels[:, 1] * (targets.shape[1] / height)).long().clamp(0, targets.shape[1] - 1)
        return targets[rows, v, u]


def head_optimisers(head: Head, config: TrainingConfig) -> list[torch.optim.Optimizer]:
    """All of the head is stepped by one of them; the last layer, of four rows, is none of Muon's."""
    lr = config.schedule.lr_min
    if config.optimiser == "adamw":
        return [torch.optim.AdamW(head.parameters(), lr=lr, fused=True)]
    matrices = {
        name: parameter
        for name, parameter in head.named_parameters()
        if name.endswith("weight") and not name.startswith("output")
    }
    rest = [parameter for name, parameter in head.named_parameters() if name not in matrices]
    return [Muon(matrices.values(), lr, refresh=MUON_REFRESH), torch.optim.AdamW(rest, lr=lr, fused=True)]


def _optimiser(module: torch.nn.Module, lr: float) -> torch.optim.AdamW | None:
    parameters = list(module.parameters())
    return torch.optim.AdamW(parameters, lr=lr) if parameters else None
