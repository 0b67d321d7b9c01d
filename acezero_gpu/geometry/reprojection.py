"""Reprojection: residuals in pixels and their analytic derivatives."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from acezero_gpu.geometry.camera import PinholeCamera
from acezero_gpu.geometry.pose import transform_points

MIN_DEPTH = 1e-6
"""Depths are clamped here before the division, so that points behind the camera give finite numbers; callers
decide by the returned depth whether such a point counts."""


@dataclass(frozen=True, slots=True)
class Reprojection:
    """Where points fall in the image, and how deep they lie along the optical axis."""

    pixels: Float[Tensor, "*batch n 2"]
    depth: Float[Tensor, "*batch n"]
    points_cam: Float[Tensor, "*batch n 3"]


def project(
    points_cam: Float[Tensor, "*batch n 3"], camera: PinholeCamera, min_depth: float = MIN_DEPTH
) -> Float[Tensor, "*batch n 2"]:
    """Pixels of camera points; depths below ``min_depth`` are clamped."""
    depth = points_cam[..., 2:].clamp_min(min_depth)
    return (
        points_cam[..., :2] / depth * camera.focal_px[..., None, :] + camera.principal_point_px[..., None, :]
    )


def reproject(
    points: Float[Tensor, "*batch n 3"],
    cam_from_world: Float[Tensor, "*batch 3 4"],
    camera: PinholeCamera,
    min_depth: float = MIN_DEPTH,
) -> Reprojection:
    """World points seen by the cameras."""
    points_cam = transform_points(cam_from_world, points)
    return Reprojection(project(points_cam, camera, min_depth), points_cam[..., 2], points_cam)


def reprojection_jacobian(
    points_cam: Float[Tensor, "*batch n 3"], camera: PinholeCamera
) -> tuple[Float[Tensor, "*batch n 2 6"], Float[Tensor, "*batch n 2 3"]]:
    """Derivatives of the pixel by the pose step ``(translation, rotation)`` of ``pose.retract`` and by the
    camera point.

    With ``p = (x/z, y/z)``: ``d pixel / d x_cam = diag(f) [[1/z, 0, -x/z²], [0, 1/z, -y/z²]]`` and
    ``d x_cam / d delta = [I | -hat(x_cam)]``. The derivative by a world point is the second result times
    ``R``.
    """
    inverse_depth = 1.0 / points_cam[..., 2].clamp_min(MIN_DEPTH)
    x = points_cam[..., 0] * inverse_depth
    y = points_cam[..., 1] * inverse_depth
    fx = camera.focal_px[..., None, 0]
    fy = camera.focal_px[..., None, 1]
    zero = torch.zeros_like(x)
    by_point = torch.stack(
        [
            fx * inverse_depth,
            zero,
            -fx * x * inverse_depth,
            zero,
            fy * inverse_depth,
            -fy * y * inverse_depth,
        ],
        dim=-1,
    ).unflatten(-1, (2, 3))
    by_rotation = torch.stack(
        [-fx * x * y, fx * (1 + x * x), -fx * y, -fy * (1 + y * y), fy * x * y, fy * x], dim=-1
    ).unflatten(-1, (2, 3))
    return torch.cat([by_point, by_rotation], dim=-1), by_point
