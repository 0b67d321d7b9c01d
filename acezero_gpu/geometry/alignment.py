"""Closed-form alignment of point sets (Kabsch; Umeyama, PAMI 1991), batched and weighted."""

import math
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

    def __getitem__(self, rows: int | slice | Tensor | None) -> "Similarity":
        """One or some of a batch, or with None a batch of one, as indexing does it for tensors."""
        return Similarity(self.scale[rows], self.rotation[rows], self.translation[rows])

    def apply(self, points: Float[Tensor, "*batch n 3"]) -> Float[Tensor, "*batch n 3"]:
        rotated = points @ self.rotation.transpose(-1, -2)
        return self.scale[..., None, None] * rotated + self.translation[..., None, :]

    def apply_to_cameras(self, cam_from_source: Float[Tensor, "n 3 4"]) -> Float[Tensor, "n 3 4"]:
        """Cameras of the source frame expressed in the target frame, whose unit their depths then have."""
        centres = self.apply(camera_centres(cam_from_source))
        rotation = cam_from_source[..., :3] @ self.rotation.transpose(-1, -2)
        return torch.cat([rotation, -rotation @ centres[..., None]], dim=-1)

    def inverse(self) -> "Similarity":
        """``source = Rᵀ (target - t) / scale``; infinite where the scale is zero."""
        back, scale = self.rotation.transpose(-1, -2), 1 / self.scale
        return Similarity(scale, back, -scale[..., None] * (back @ self.translation[..., None])[..., 0])


def nearest_rotation(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotation that maximises ``tr(Rᵀ A)``: the singular values of A replaced by 1, 1 and ±1 (Kabsch).

    A matrix that is not finite gives NaN; an SVD of it would raise for the whole batch.
    """
    finite = matrix.isfinite().all(-1).all(-1)[..., None, None]
    u, _, vh = torch.linalg.svd(matrix.where(finite, 0.0))
    sign = torch.ones_like(u[..., 0])
    sign[..., 2] = torch.linalg.det(u @ vh).sign()
    return ((u * sign[..., None, :]) @ vh).where(finite, math.nan)


def fit_similarity(
    source: Float[Tensor, "*batch n 3"],
    target: Float[Tensor, "*batch n 3"],
    weights: Float[Tensor, "*batch n"] | None = None,
    *,
    with_scale: bool = True,
) -> Similarity:
    """Least squares over rotation, translation and, if wanted, scale.

    Rotations are proper (det = +1) also for noisy or planar sets. Fewer than three independent points leave
    the rotation undetermined; the result is then finite but arbitrary within the undetermined part. A batch
    element with a non-finite point gives NaN and leaves the others alone.
    """
    if weights is None:
        weights = torch.ones_like(source[..., 0])
    weights = weights / weights.sum(-1, keepdim=True).clamp_min(torch.finfo(weights.dtype).tiny)
    source_mean = (weights[..., None] * source).sum(-2, keepdim=True)
    target_mean = (weights[..., None] * target).sum(-2, keepdim=True)
    source_0, target_0 = source - source_mean, target - target_mean
    covariance = (weights[..., None] * target_0).transpose(-1, -2) @ source_0
    rotation = nearest_rotation(covariance)
    variance = (weights * source_0.square().sum(-1)).sum(-1)
    scale = (rotation * covariance).sum((-1, -2)) / variance.clamp_min(torch.finfo(variance.dtype).tiny)
    if not with_scale:
        scale = torch.ones_like(scale)
    translation = (
        target_mean[..., 0, :] - scale[..., None] * (rotation @ source_mean[..., 0, :, None])[..., 0]
    )
    return Similarity(scale, rotation, translation)
