"""Matches of image pairs with known relative poses."""

import math

import torch

from acezero_gpu.geometry import retract, rotation_angle_deg, transform_points

FOCAL_PX = 600.0


def pairs(
    count: int,
    matches: int,
    generator: torch.Generator,
    *,
    outliers: float = 0.0,
    noise_px: float = 1.0,
    baseline: float = 1.0,
    angle_deg: float = 15.0,
    planar: bool = False,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rays a, rays b, ``b_from_a`` and which matches are true; points lie 4 to 8 before camera a."""
    size = torch.tensor([6.0, 4.0, 4.0], dtype=torch.float64)
    points = torch.rand(count, matches, 3, generator=generator, dtype=torch.float64) * size
    points = points + torch.tensor([-3.0, -2.0, 4.0], dtype=torch.float64)
    if planar:
        points[..., 2] = 6 + 0.3 * points[..., 0] - 0.2 * points[..., 1]
    step = torch.randn(count, 6, generator=generator, dtype=torch.float64)
    direction, axis = torch.nn.functional.normalize(step.unflatten(1, (2, 3)), dim=-1).unbind(1)
    step = torch.cat([baseline * direction, math.radians(angle_deg) * axis], dim=-1)
    b_from_a = retract(torch.eye(3, 4, dtype=torch.float64).expand(count, 3, 4), step)
    in_b = transform_points(b_from_a, points)
    noise = torch.randn(2, count, matches, 2, generator=generator, dtype=torch.float64) * noise_px / FOCAL_PX
    rays_a = points[..., :2] / points[..., 2:] + noise[0]
    rays_b = in_b[..., :2] / in_b[..., 2:] + noise[1]
    true = torch.rand(count, matches, generator=generator) >= outliers
    anywhere = 1.4 * (torch.rand(count, matches, 2, generator=generator, dtype=torch.float64) - 0.5)
    return rays_a, torch.where(true[..., None], rays_b, anywhere), b_from_a, true


def pose_error_deg(estimate: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """The larger of the rotation's and the translation direction's error."""
    directions = torch.nn.functional.normalize(torch.stack([estimate[..., 3], truth[..., 3]]), dim=-1)
    translation = torch.rad2deg(torch.acos((directions[0] * directions[1]).sum(-1).clamp(-1, 1)))
    return torch.maximum(rotation_angle_deg(estimate[..., :3], truth[..., :3]), translation)
