"""How well a pose explains the correspondences of its image: inlier scores in pixel space."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from acezero_gpu.geometry import PinholeCamera
from acezero_gpu.geometry.reprojection import MIN_DEPTH
from acezero_gpu.runtime import chunk_ranges, chunk_size_for

ScoreName = Literal["soft", "count", "msac"]

_NEVER_INLIER_PX = 1e9
"""Pixel of unusable correspondences: no projection comes near it, so the hot loop needs no mask."""
_CPU_BLOCK = 1 << 19
"""Reprojections computed at once: small temporaries stay in the caches of a CPU (2 to 3 times faster)."""
_DEVICE_BLOCK = 1 << 27
"""The same for other devices, where it only bounds the memory."""


@dataclass(frozen=True, slots=True)
class Correspondences:
    """World points and their pixels, one row per component; unusable ones are neutralised."""

    points_h: Float[Tensor, "batch 4 n"]
    """Homogeneous world points; the origin where unusable."""
    pixels: Float[Tensor, "batch 2 n"]
    """Observed pixels; far outside any image where unusable."""
    bearings: Float[Tensor, "batch 3 n"]
    """Unit rays in the camera frame; the optical axis where unusable."""
    usable: Bool[Tensor, "batch n"]
    """Finite, not masked, and the camera is valid."""
    camera: PinholeCamera
    """Batched like the rest."""

    def images(self, part: slice) -> "Correspondences":
        """Some of the images."""
        camera = PinholeCamera(self.camera.focal_px[part], self.camera.principal_point_px[part])
        rows = self.points_h[part], self.pixels[part], self.bearings[part], self.usable[part]
        return Correspondences(*rows, camera)

    def narrow(self, indices: Tensor) -> "Correspondences":
        """The correspondences at ``indices`` (batch, k) of each image."""

        def take(rows: Tensor) -> Tensor:
            return rows.gather(-1, indices[:, None].expand(-1, rows.shape[1], -1))

        usable = self.usable.gather(-1, indices)
        return Correspondences(
            take(self.points_h), take(self.pixels), take(self.bearings), usable, self.camera
        )

    def repeated(self, times: int) -> "Correspondences":
        """Each image ``times`` times in a row, as one flat batch."""

        def repeat(rows: Tensor) -> Tensor:
            return rows.repeat_interleave(times, 0)

        camera = PinholeCamera(repeat(self.camera.focal_px), repeat(self.camera.principal_point_px))
        points_h, pixels, bearings = repeat(self.points_h), repeat(self.pixels), repeat(self.bearings)
        return Correspondences(points_h, pixels, bearings, repeat(self.usable), camera)


def checked_inputs(
    points: Tensor, pixels: Tensor, camera: PinholeCamera, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None]:
    """Inputs with the batch dimension spelled out, or a ``ValueError`` that names what does not fit."""
    if points.dim() != 3 or points.shape[-1] != 3:
        raise ValueError(f"points must have the shape (batch, n, 3), got {tuple(points.shape)}.")
    if points.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"points must be float32 or float64, got {points.dtype}; convert them first.")
    batch, n = points.shape[:2]
    if tuple(pixels.shape) not in ((n, 2), (batch, n, 2)):
        raise ValueError(
            f"pixels must have the shape ({n}, 2) or ({batch}, {n}, 2), got {tuple(pixels.shape)}."
        )
    focal, principal = camera.focal_px, camera.principal_point_px
    for name, value in (("focal_px", focal), ("principal_point_px", principal)):
        if tuple(value.shape) not in ((2,), (1, 2), (batch, 2)):
            raise ValueError(
                f"camera.{name} must have the shape (2,) or ({batch}, 2), got {tuple(value.shape)}."
            )
    for name, value in (
        ("pixels", pixels),
        ("camera.focal_px", focal),
        ("camera.principal_point_px", principal),
    ):
        if value.dtype != points.dtype or value.device != points.device:
            raise ValueError(
                f"{name} is {value.dtype} on {value.device}, points are {points.dtype} on {points.device}; "
                "give all of one type and on one device."
            )
    if mask is not None and (tuple(mask.shape) != (batch, n) or mask.dtype != torch.bool):
        raise ValueError(f"mask must be bool of shape ({batch}, {n}), got {mask.dtype} {tuple(mask.shape)}.")
    if mask is not None and mask.device != points.device:
        raise ValueError(f"mask is on {mask.device}, points are on {points.device}.")
    return points, pixels.expand(batch, n, 2), focal.expand(batch, 2), principal.expand(batch, 2), mask


def make_correspondences(
    points: Float[Tensor, "batch n 3"],
    pixels: Float[Tensor, "batch n 2"],
    camera: PinholeCamera,
    mask: Bool[Tensor, "batch n"] | None,
) -> Correspondences:
    """Sort out what can be used; ``camera`` must be batched like the points."""
    bearings = camera.bearings(pixels)
    usable = points.isfinite().all(-1) & bearings.isfinite().all(-1) & pixels.isfinite().all(-1)
    usable = usable & (camera.focal_px > 0).all(-1, keepdim=True)
    if mask is not None:
        usable = usable & mask
    keep = usable[:, None]
    points_rows = torch.where(keep, points.transpose(1, 2), 0)
    axis = torch.eye(3, dtype=points.dtype, device=points.device)[:, 2:]
    return Correspondences(
        torch.cat([points_rows, torch.ones_like(points_rows[:, :1])], dim=1),
        torch.where(keep, pixels.transpose(1, 2), _NEVER_INLIER_PX),
        torch.where(keep, bearings.transpose(1, 2), axis),
        usable,
        camera,
    )


def squared_errors_px(
    data: Correspondences, cam_from_world: Float[Tensor, "batch m 3 4"]
) -> Float[Tensor, "batch m n"]:
    """Squared reprojection errors of every correspondence under every pose; infinite behind the camera.

    The camera is multiplied into the poses; one matrix product per image projects all points by all poses.
    In TF32, which PyTorch leaves off by default, that product would be wrong by tenths of a pixel.
    """
    batch, m = cam_from_world.shape[:2]
    fx, fy = data.camera.focal_px[:, None, None, :].unbind(-1)
    cx, cy = data.camera.principal_point_px[:, None, None, :].unbind(-1)
    row_x, row_y, row_z = cam_from_world.unbind(2)
    rows = torch.cat([fx * row_x + cx * row_z, fy * row_y + cy * row_z, row_z], dim=1)
    x, y, z = (rows @ data.points_h).view(batch, 3, m, -1).unbind(1)
    behind = z <= MIN_DEPTH
    inverse = z.reciprocal_()
    x.mul_(inverse).sub_(data.pixels[:, :1])
    y.mul_(inverse).sub_(data.pixels[:, 1:])
    return x.square_().addcmul_(y, y).masked_fill_(behind, torch.inf)


def score_hypotheses(
    data: Correspondences,
    cam_from_world: Float[Tensor, "batch m 3 4"],
    max_error_px: float,
    score: ScoreName = "soft",
) -> Float[Tensor, "batch m"]:
    """A number per pose, about its inlier count; higher is better.

    With the reprojection error ``e`` and the threshold ``T``: ``soft`` is ``sum sigmoid(5 (T - e) / T)``,
    ``count`` is ``sum [e < T]`` and ``msac`` is ``sum max(0, 1 - e²/T²)`` (Torr and Zisserman 2000). Points
    behind the camera add nothing.

    ``soft`` is that of DSAC* (Brachmann and Rother, TPAMI 2021). Differs from ACE0: no factor 100/n, which
    does not change the order, and ACE0 does not test on which side of the camera a point lies.
    """
    batch, m = cam_from_world.shape[:2]
    n = data.usable.shape[1]
    block = _CPU_BLOCK if cam_from_world.device.type == "cpu" else _DEVICE_BLOCK
    scores = cam_from_world.new_empty(batch, m)
    for images in chunk_ranges(batch, chunk_size_for(m * n, block)):
        part = data.images(images)
        for poses in chunk_ranges(m, chunk_size_for(n, block)):
            squared = squared_errors_px(part, cam_from_world[images, poses])
            scores[images, poses] = score_squared_errors(squared, max_error_px, score)
    return scores


def score_squared_errors(
    squared: Float[Tensor, "*batch n"], max_error_px: float, score: ScoreName
) -> Float[Tensor, "*batch"]:
    """The sums of ``score_hypotheses`` from squared errors in pixels, which are overwritten."""
    if score == "soft":
        return squared.sqrt_().mul_(-5.0 / max_error_px).add_(5.0).sigmoid_().sum(-1)
    if score == "count":
        return (squared < max_error_px**2).sum(-1).to(squared.dtype)
    if score == "msac":
        return squared.mul_(-1.0 / max_error_px**2).add_(1.0).clamp_min_(0).sum(-1)
    raise ValueError(f"No score is called {score!r}; choose soft, count or msac.")
