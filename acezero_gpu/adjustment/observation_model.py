"""What a shared camera with radial distortion sees, and how that changes with every parameter."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from acezero_gpu.geometry import PinholeCamera, reprojection_jacobian


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
    estimate: Estimate, view_index: Int[Tensor, " k"], point_index: Int[Tensor, " k"], near: Float[Tensor, ""]
) -> Prediction:
    """``pixel = f (1 + k1 r² + k2 r⁴) p + c`` with ``p = (x, y) / z``, ``r² = |p|²``: COLMAP's RADIAL."""
    pose = estimate.cam_from_world.flatten(1).index_select(0, view_index).unflatten(1, (3, 4))
    rotation = pose[..., :3]
    points_cam = (rotation @ estimate.points.index_select(0, point_index)[..., None])[..., 0] + pose[..., 3]
    depth = points_cam[..., 2]
    in_front = depth >= near
    axis = torch.stack([torch.zeros_like(near), torch.zeros_like(near), near])
    points_cam = torch.where(in_front[:, None], points_cam, axis)
    rotation = torch.where(in_front[:, None, None], rotation, 0.0)
    plane = points_cam[..., :2] / points_cam[..., 2:]
    radius_sq = plane.square().sum(-1, keepdim=True)
    k1, k2 = estimate.radial.unbind(-1)
    distorted = plane * (1 + radius_sq * (k1 + k2 * radius_sq))
    pixels = distorted * estimate.camera.focal_px + estimate.camera.principal_point_px
    return Prediction(pixels, depth, in_front, points_cam, rotation)


def prediction_jacobian(
    prediction: Prediction, estimate: Estimate, columns: list[int]
) -> tuple[Float[Tensor, "k 2 6"], Float[Tensor, "k 2 3"], Float[Tensor, "k 2 c"]]:
    """Derivatives of the pixel by the step of ``geometry.retract``, the world point, the free intrinsics.

    ``d pixel / d p = diag(f) [(1 + k1 r² + k2 r⁴) I + (2 k1 + 4 k2 r²) p pᵀ]``; the rest of the way is
    ``geometry.reprojection_jacobian`` of a unit camera. The focal length moves as ``f exp(s)``, both axes
    together, so it stays positive and the pixels keep their ratio.
    """
    points_cam, focal = prediction.points_cam, estimate.camera.focal_px
    unit = PinholeCamera(torch.ones_like(focal), torch.zeros_like(focal))
    by_step, by_cam = reprojection_jacobian(points_cam, unit)
    plane = points_cam[..., :2] / points_cam[..., 2:]
    radius_sq = plane.square().sum(-1)
    k1, k2 = estimate.radial.unbind(-1)
    stretch = 1 + radius_sq * (k1 + k2 * radius_sq)
    outer = (2 * k1 + 4 * k2 * radius_sq)[:, None, None] * plane[:, :, None] * plane[:, None, :]
    by_plane = focal[:, None] * (outer + torch.diag_embed(stretch[:, None].expand(-1, 2)))
    by_step = by_plane @ by_step
    by_world = by_plane @ (by_cam @ prediction.rotation)
    scaled = plane * focal
    one, zero = torch.ones_like(radius_sq), torch.zeros_like(radius_sq)
    every = [
        scaled * stretch[:, None],
        torch.stack([one, zero], dim=-1),
        torch.stack([zero, one], dim=-1),
        scaled * radius_sq[:, None],
        scaled * radius_sq.square()[:, None],
    ]
    by_intrinsics = (
        torch.stack([every[i] for i in columns], -1) if columns else scaled.new_zeros(len(scaled), 2, 0)
    )
    return by_step, by_world, by_intrinsics
