"""Reprojection losses of a batch of patches."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from acezero_gpu.geometry import PinholeCamera, project

LossName = Literal["tanh", "dyntanh", "l1"]


@dataclass(frozen=True, slots=True)
class LossConfig:
    """What counts as an error and how it is bounded."""

    name: LossName = "tanh"
    """``tanh``: ``w tanh(e / w)`` with a constant ``w``; ``dyntanh``: ``w`` shrinks from ``wide_clamp_px`` to
    ``soft_clamp_min_px``; ``l1``: the error itself."""
    soft_clamp_px: float = 50.0
    """``w`` of ``tanh``, in pixels of the network image at a shortest side of 480; scaled with the resolution."""
    wide_clamp_px: float = 300.0
    """``w`` of ``dyntanh`` at the start. An error much larger than ``w`` has no gradient: in a wide scene most points
    start hundreds of pixels away from where they belong."""
    narrow_clamp_px: float = 25.0
    """``w`` of ``dyntanh`` goes from the wide to this narrow one by equal factors, and is taken down to
    ``soft_clamp_min_px`` along a quarter circle at the same time. Both 50: ACE0's."""
    soft_clamp_min_px: float = 1.0
    """``w`` of ``dyntanh`` at the end."""
    hard_clamp_px: float = 1000.0
    """A prediction with a larger reprojection error is invalid: it is pulled to its ray instead."""
    min_depth: float = 0.1
    """Predictions nearer than this along the optical axis are invalid (scene units)."""
    max_depth: float = 1000.0
    """Predictions farther than this are invalid (scene units)."""
    target_depth: float = 10.0
    """Invalid predictions are pulled to this depth on their pixel's ray (scene units)."""
    depth_tolerance: float = 0.1
    """Where a target depth is known, a prediction farther from the target point than this share of the depth is
    invalid and pulled to the target instead."""

    def __post_init__(self) -> None:
        if not (self.wide_clamp_px > 0 and self.narrow_clamp_px > 0):
            raise ValueError("wide_clamp_px and narrow_clamp_px must be greater than 0")


@dataclass(frozen=True, slots=True)
class PatchLoss:
    """Per-patch loss and the reprojection errors that it came from."""

    loss: Float[Tensor, " n"]
    error_px: Float[Tensor, " n"]
    valid: Bool[Tensor, " n"]


def soft_clamp_at(config: LossConfig, progress: float) -> float:
    """``w`` at a share ``t`` of the training.

    For ``dyntanh`` ``(1 - s) wide^(1 - t) narrow^t + min`` with ``s = 1 - sqrt(1 - t²)``.
    """
    if config.name != "dyntanh":
        return config.soft_clamp_px
    progress = min(1.0, progress)
    shrink = 1.0 - math.sqrt(1.0 - progress**2)
    bound = config.wide_clamp_px ** (1.0 - progress) * config.narrow_clamp_px**progress
    return (1.0 - shrink) * bound + config.soft_clamp_min_px


def patch_loss(
    points_cam: Float[Tensor, "n 3"],
    pixels: Float[Tensor, "n 2"],
    camera: PinholeCamera,
    config: LossConfig,
    *,
    soft_clamp_px: float,
    target_depth: Float[Tensor, " n"] | None = None,
) -> PatchLoss:
    """Bounded L1 reprojection error where the prediction is valid, the distance to a target point where not.

    ``target_depth`` is 0 where unknown. With targets, a valid prediction must also lie near its target point.
    """
    # A larger clamp than the validity bound: a gradient through 1/z at z near 0 would drown the batch.
    reprojected = project(points_cam, camera, min_depth=config.min_depth)
    error = (reprojected - pixels).abs().sum(-1)
    depth = points_cam[:, 2]
    valid = (depth > config.min_depth) & (depth < config.max_depth) & (error < config.hard_clamp_px)
    ray = torch.cat([camera.normalised(pixels), torch.ones_like(pixels[:, :1])], dim=-1).detach()
    if target_depth is None:
        pull = (points_cam - config.target_depth * ray).abs().sum(-1)
    else:
        known = target_depth > 0
        distance = (points_cam - torch.where(known, target_depth, config.target_depth)[:, None] * ray).norm(
            dim=-1
        )
        near = distance < config.depth_tolerance * target_depth
        valid = valid & (near | ~known)
        pull = distance
    if config.name == "l1":
        bounded = error
    else:
        bounded = soft_clamp_px * torch.tanh(error / soft_clamp_px)
    return PatchLoss(torch.where(valid, bounded, pull), error, valid)
