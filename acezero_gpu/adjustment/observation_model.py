"""What a shared camera with radial distortion sees, and how that changes with every parameter."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from acezero_gpu.geometry import PinholeCamera


@dataclass(frozen=True, slots=True)
class Estimate:
    """All that an adjustment may move."""

    cam_from_world: Float[Tensor, "views 3 4"]
    """World to camera, ``[R | t]``."""
    points: Float[Tensor, "points 3"]
    """World coordinates."""
    camera: PinholeCamera
    """One camera, shared by all views."""
    radial: Float[Tensor, " 2"]
    """``k1, k2`` of ``1 + k1 r² + k2 r⁴``, on normalised image coordinates."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """Where each observation ought to be, by the current estimate."""

    pixels: Float[Tensor, "k 2"]
    """Predicted pixel; finite, but without meaning where ``in_front`` is false."""
    depth: Float[Tensor, " k"]
    """Depth along the optical axis, negative behind the camera."""
    in_front: Bool[Tensor, " k"]
    """Whether the point lies at least the near distance in front of the camera."""
    points_cam: Float[Tensor, "k 3"]
    """The point in the camera frame; ``(0, 0, near)`` where ``in_front`` is false, for finite derivatives."""
    rotation: Float[Tensor, "k 3 3"]
    """Rotation of the observing view; zero where ``in_front`` is false."""


def intrinsic_columns(refine_focal: bool, refine_principal_point: bool, refine_radial: bool) -> list[int]:
    """Which of ``(ln focal, cx, cy, k1, k2)`` are free."""
    return [0] * refine_focal + [1, 2] * refine_principal_point + [3, 4] * refine_radial


def predict(
    estimate: Estimate,
    view_index: Int[Tensor, " k"],
    point_index: Int[Tensor, " k"],
    near: Float[Tensor, ""],
    anchors: Float[Tensor, "points 3"] | None = None,
) -> Prediction:
    """``pixel = f (1 + k1 r² + k2 r⁴) p + c`` with ``p = (x, y) / z``, ``r² = |p|²``: COLMAP's RADIAL.

    A point that has an anchor (finite numbers) is only a direction, that from the anchor: every view sees it as if
    it stood there, ``R (X - anchor)``.
    """
    # Components first, observations last: every operation below is one pass over contiguous numbers.
    pose = estimate.cam_from_world.flatten(1).index_select(0, view_index).T.contiguous()
    point = estimate.points.index_select(0, point_index).T.contiguous()
    if anchors is not None:
        anchor = anchors.index_select(0, point_index).T
        alone = anchor[0].isfinite()
        point = torch.where(alone, point - anchor, point)
        pose = pose.index_copy(0, torch.tensor([3, 7, 11], device=pose.device), pose[3::4] * (~alone))
    rotation = pose.view(3, 4, -1)[:, :3]
    x, y, depth = (
        row[0] * point[0] + row[1] * point[1] + row[2] * point[2] + row[3] for row in pose.view(3, 4, -1)
    )
    in_front = depth >= near
    z = torch.where(in_front, depth, near)
    x, y = torch.where(in_front, x, 0.0), torch.where(in_front, y, 0.0)
    rotation = torch.where(in_front, rotation, 0.0)
    u, v = x / z, y / z
    radius_sq = u * u + v * v
    k1, k2 = estimate.radial.unbind(-1)
    stretch = 1 + radius_sq * (k1 + k2 * radius_sq)
    focal, centre = estimate.camera.focal_px, estimate.camera.principal_point_px
    pixels = torch.stack([u * stretch * focal[0] + centre[0], v * stretch * focal[1] + centre[1]])
    points_cam = torch.stack([x, y, z])
    return Prediction(pixels.T, depth, in_front, points_cam.T, rotation.permute(2, 0, 1))


def prediction_jacobian(
    prediction: Prediction, estimate: Estimate, columns: list[int]
) -> tuple[Float[Tensor, "k 2 6"], Float[Tensor, "k 2 3"], Float[Tensor, "k 2 c"]]:
    """Derivatives of the pixel by the step of ``geometry.retract``, the world point, the free intrinsics.

    ``d pixel / d p = diag(f) [(1 + k1 r² + k2 r⁴) I + (2 k1 + 4 k2 r²) p pᵀ]``; the rest of the way is that of
    ``geometry.reprojection_jacobian`` for a unit camera, written out: one pass over each column. The focal length
    moves as ``f exp(s)``, both axes together, so it stays positive and the pixels keep their ratio.
    """
    x, y, inverse_depth = _plane(prediction)
    lens = _lens_derivative(x, y, estimate)
    zero, product = torch.zeros_like(x), x * y
    by_step = _through_lens(
        lens,
        (inverse_depth, zero, -x * inverse_depth, -product, 1 + x * x, -y),
        (zero, inverse_depth, -y * inverse_depth, -1 - y * y, product, x),
    )
    radius_sq = x * x + y * y
    k1, k2 = estimate.radial.unbind(-1)
    stretch = 1 + radius_sq * (k1 + k2 * radius_sq)
    focal_x, focal_y = estimate.camera.focal_px.unbind(-1)
    one, u, v = torch.ones_like(x), focal_x * x, focal_y * y
    fourth = radius_sq * radius_sq
    of_x = (u * stretch, one, zero, u * radius_sq, u * fourth)
    of_y = (v * stretch, zero, one, v * radius_sq, v * fourth)
    by_intrinsics = x.new_zeros(len(x), 2, 0)
    if columns:
        by_intrinsics = torch.stack([of[i] for of in (of_x, of_y) for i in columns])
        by_intrinsics = by_intrinsics.view(2, len(columns), -1).permute(2, 0, 1)
    return by_step, point_jacobian(prediction, estimate), by_intrinsics


def point_jacobian(prediction: Prediction, estimate: Estimate) -> Float[Tensor, "k 2 3"]:
    """Derivative of the pixel by the world point: ``d p / d X = (R_xy - p R_z) / z``, then through the lens."""
    x, y, inverse_depth = _plane(prediction)
    of_x, of_y, of_z = prediction.rotation.permute(1, 2, 0).unbind(0)
    return _through_lens(
        _lens_derivative(x, y, estimate),
        ((of_x - x * of_z) * inverse_depth).unbind(0),
        ((of_y - y * of_z) * inverse_depth).unbind(0),
    )


_Pair = tuple[Tensor, Tensor]


def _plane(prediction: Prediction) -> tuple[Tensor, Tensor, Tensor]:
    inverse_depth = prediction.points_cam[:, 2].reciprocal()
    return (
        prediction.points_cam[:, 0] * inverse_depth,
        prediction.points_cam[:, 1] * inverse_depth,
        inverse_depth,
    )


def _lens_derivative(x: Tensor, y: Tensor, estimate: Estimate) -> tuple[_Pair, _Pair]:
    """Rows of ``d pixel / d p``."""
    radius_sq = x * x + y * y
    k1, k2 = estimate.radial.unbind(-1)
    stretch = 1 + radius_sq * (k1 + k2 * radius_sq)
    along = 2 * k1 + 4 * k2 * radius_sq
    focal_x, focal_y = estimate.camera.focal_px.unbind(-1)
    mixed = along * x * y
    return (
        (focal_x * (stretch + along * x * x), focal_x * mixed),
        (focal_y * mixed, focal_y * (stretch + along * y * y)),
    )


def _through_lens(
    lens: tuple[_Pair, _Pair], of_x: tuple[Tensor, ...], of_y: tuple[Tensor, ...]
) -> Float[Tensor, "k 2 n"]:
    """Derivatives of the pixel from those of ``p``, column by column."""
    rows = [a * dx + b * dy for a, b in lens for dx, dy in zip(of_x, of_y, strict=True)]
    return torch.stack(rows).view(2, len(of_x), -1).permute(2, 0, 1)
