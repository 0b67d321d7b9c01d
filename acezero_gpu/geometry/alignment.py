"""Closed-form alignment of point sets (Kabsch; Umeyama, PAMI 1991), batched and weighted."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from acezero_gpu.geometry.pose import camera_centres


@dataclass(frozen=True, slots=True)
class Similarity:
    """``target = scale * R @ source + t``."""

    scale: Float[Tensor, "*batch"]
    rotation: Float[Tensor, "*batch 3 3"]
    translation: Float[Tensor, "*batch 3"]

    def apply(self, points: Float[Tensor, "*batch n 3"]) -> Float[Tensor, "*batch n 3"]:
        rotated = points @ self.rotation.transpose(-1, -2)
        return self.scale[..., None, None] * rotated + self.translation[..., None, :]

    def apply_to_cameras(self, cam_from_source: Float[Tensor, "n 3 4"]) -> Float[Tensor, "n 3 4"]:
        """Cameras of the source frame expressed in the target frame; camera frames stay metric in the target."""
        centres = self.apply(camera_centres(cam_from_source))
        rotation = cam_from_source[..., :3] @ self.rotation.transpose(-1, -2)
        return torch.cat([rotation, -rotation @ centres[..., None]], dim=-1)


def fit_similarity(
    source: Float[Tensor, "*batch n 3"],
    target: Float[Tensor, "*batch n 3"],
    weights: Float[Tensor, "*batch n"] | None = None,
    *,
    with_scale: bool = True,
) -> Similarity:
    """Least squares over rotation, translation and, if wanted, scale.

    Rotations are proper (det = +1) also for noisy or planar sets. Fewer than three independent points leave the
    rotation undetermined; the result is then finite but arbitrary within the undetermined part.
    """
    if weights is None:
        weights = torch.ones_like(source[..., 0])
    weights = weights / weights.sum(-1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
    source_mean = (weights[..., None] * source).sum(-2, keepdim=True)
    target_mean = (weights[..., None] * target).sum(-2, keepdim=True)
    source_0, target_0 = source - source_mean, target - target_mean
    covariance = (weights[..., None] * target_0).transpose(-1, -2) @ source_0
    u, singular, vh = torch.linalg.svd(covariance)
    sign = torch.ones_like(singular)
    sign[..., 2] = torch.linalg.det(u @ vh).sign()
    rotation = (u * sign[..., None, :]) @ vh
    variance = (weights * source_0.square().sum(-1)).sum(-1)
    scale = (singular * sign).sum(-1) / variance.clamp_min(torch.finfo(variance.dtype).tiny)
    if not with_scale:
        scale = torch.ones_like(scale)
    translation = target_mean[..., 0, :] - scale[..., None] * (rotation @ source_mean[..., 0, :, None])[..., 0]
    return Similarity(scale, rotation, translation)
