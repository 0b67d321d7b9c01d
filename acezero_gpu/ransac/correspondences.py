"""Correspondences of world points and pixels, checked and laid out for the solvers."""

from dataclasses import dataclass

import pypose as pp
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from acezero_gpu.geometry import PinholeCamera, matrix_from_se3

_NEVER_INLIER_PX = 1e9
"""Pixel of unusable correspondences: no projection comes near it, so the hot loop needs no mask."""
_LARGEST_POINT = 1e12
"""World points with a coordinate beyond this, in whatever unit, are not usable; nor are pixels and cameras
beyond the above."""


@dataclass(frozen=True, slots=True)
class Correspondences:
    """World points and their pixels, one row per component; unusable ones are neutralised."""

    points_h: Float[Tensor, "batch 4 n"]
    """Homogeneous world points; the origin where unusable."""
    pixels: Float[Tensor, "batch 2 n"]
    """Observed pixels; far outside any image where unusable."""
    usable: Bool[Tensor, "batch n"]
    """Finite, not huge, not masked, and the camera is valid."""
    camera: PinholeCamera
    """Batched like the rest."""
    weights: Float[Tensor, "batch n"] | None = None
    """What each correspondence counts for; zero where unusable. None: all that are usable count one."""

    def images(self, part: slice | Int64[Tensor, " some"]) -> "Correspondences":
        """Some of the images."""
        camera = PinholeCamera(self.camera.focal_px[part], self.camera.principal_point_px[part])
        rows = self.points_h[part], self.pixels[part], self.usable[part]
        return Correspondences(*rows, camera, None if self.weights is None else self.weights[part])

    def narrow(self, indices: Tensor) -> "Correspondences":
        """The correspondences at ``indices`` (batch, k) of each image."""

        def take(rows: Tensor) -> Tensor:
            return rows.gather(-1, indices[:, None].expand(-1, rows.shape[1], -1))

        usable = self.usable.gather(-1, indices)
        weights = None if self.weights is None else self.weights.gather(-1, indices)
        rows = take(self.points_h), take(self.pixels), usable
        return Correspondences(*rows, self.camera, weights)

    def repeated(self, times: int) -> "Correspondences":
        """Each image ``times`` times in a row, as one flat batch."""

        def repeat(rows: Tensor) -> Tensor:
            return rows.repeat_interleave(times, 0)

        camera = PinholeCamera(repeat(self.camera.focal_px), repeat(self.camera.principal_point_px))
        weights = None if self.weights is None else repeat(self.weights)
        rows = repeat(self.points_h), repeat(self.pixels), repeat(self.usable)
        return Correspondences(*rows, camera, weights)


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


def checked_weights(weights: Tensor | None, points: Tensor) -> Tensor | None:
    """The weights, or a ``ValueError`` that names what does not fit."""
    if weights is None:
        return None
    expected = tuple(points.shape[:2])
    if tuple(weights.shape) != expected or weights.dtype != points.dtype or weights.device != points.device:
        raise ValueError(
            f"weights must have the shape {expected} and be {points.dtype} on {points.device} like the points, "
            f"got {tuple(weights.shape)}, {weights.dtype} on {weights.device}."
        )
    return weights


def relative_weights(
    weights: Float[Tensor, "batch n"],
) -> tuple[Float[Tensor, "batch n"], Float[Tensor, " batch"]]:
    """Weights divided by the largest of each image, which is returned too; those that are no weights are zero.

    Sums of weights times squared errors then neither overflow nor vanish, whatever unit the weights have.
    """
    weights = torch.where((weights > 0) & weights.isfinite(), weights, 0)
    largest = weights.amax(-1)
    largest = torch.where(largest > 0, largest, 1)
    return weights / largest[:, None], largest


def checked_initial(initial: Tensor | None, points: Tensor) -> Tensor | None:
    """Given poses as ``[R | t]`` (batch, 3, 4), or a ``ValueError`` that names what does not fit."""
    if initial is None:
        return None
    batch = points.shape[0]
    if tuple(initial.shape) != (batch, 7) or initial.dtype != points.dtype or initial.device != points.device:
        raise ValueError(
            f"initial must be SE3 of shape ({batch}, 7), {points.dtype} on {points.device} like the points, "
            f"got {tuple(initial.shape)}, {initial.dtype} on {initial.device}."
        )
    return matrix_from_se3(pp.SE3(initial))


def make_correspondences(
    points: Float[Tensor, "batch n 3"],
    pixels: Float[Tensor, "batch n 2"],
    camera: PinholeCamera,
    mask: Bool[Tensor, "batch n"] | None,
    weights: Float[Tensor, "batch n"] | None = None,
) -> Correspondences:
    """Sort out what can be used; ``camera`` must be batched like the points."""
    # Rows must lie one after another in memory, or every pass over them is many times slower.
    points_rows, pixel_rows = points.transpose(1, 2).contiguous(), pixels.transpose(1, 2).contiguous()
    focal, principal = camera.focal_px, camera.principal_point_px
    valid_camera = (focal > 0).all(-1) & (torch.cat([focal, principal.abs()], -1) < _NEVER_INLIER_PX).all(-1)
    # False for NaN as well. What is finite but huge would overflow where it is squared, and 0 times infinity
    # would take the sums over all other points along.
    near = (points_rows.abs().amax(1) < _LARGEST_POINT) & (pixel_rows.abs().amax(1) < _NEVER_INLIER_PX)
    usable = near & valid_camera[:, None]
    if mask is not None:
        usable = usable & mask
    if weights is not None:
        usable = usable & (weights > 0)
        weights = torch.where(usable, weights, 0)
    keep = usable[:, None]
    points_rows = torch.where(keep, points_rows, 0)
    return Correspondences(
        torch.cat([points_rows, torch.ones_like(points_rows[:, :1])], dim=1),
        torch.where(keep, pixel_rows, _NEVER_INLIER_PX),
        usable,
        camera,
        weights,
    )
