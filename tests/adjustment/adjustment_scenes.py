"""A small scene with exact truth for the adjustment tests."""

import torch
from torch import Tensor

from acezero_gpu.adjustment import BundleProblem
from acezero_gpu.geometry import PinholeCamera, retract, transform_points


def make_scene(
    generator: torch.Generator,
    *,
    views: int = 8,
    points: int = 60,
    seen_by: int = 5,
    focal_px: float = 500.0,
    radial: tuple[float, float] = (0.0, 0.0),
    noise_px: float = 0.0,
    dtype: torch.dtype = torch.float64,
) -> BundleProblem:
    """Cameras on an arc that look at a ball of points, each point seen by ``seen_by`` random views."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    cloud = normal(points, 3)
    angle = torch.linspace(-1.2, 1.2, views, dtype=torch.float64)
    poses = torch.zeros(views, 3, 4, dtype=torch.float64)
    poses[:, 0, 0], poses[:, 0, 2] = angle.cos(), angle.sin()
    poses[:, 2, 0], poses[:, 2, 2] = -angle.sin(), angle.cos()
    poses[:, 1, 1] = 1.0
    poses[:, 2, 3] = 7.0
    poses = retract(poses, torch.cat([0.5 * normal(views, 3), 0.1 * normal(views, 3)], dim=-1))
    camera = PinholeCamera.centred(focal_px, 640, 480, dtype=torch.float64)
    chosen = torch.rand(points, views, generator=generator).argsort(1)[:, :seen_by]
    point_index = torch.arange(points).repeat_interleave(seen_by)
    view_index = chosen.flatten()
    shuffle = torch.randperm(len(view_index), generator=generator)
    point_index, view_index = point_index[shuffle], view_index[shuffle]
    cam = transform_points(poses[view_index], cloud[point_index][:, None])[:, 0]
    plane = cam[:, :2] / cam[:, 2:]
    radius_sq = plane.square().sum(-1, keepdim=True)
    plane = plane * (1 + radial[0] * radius_sq + radial[1] * radius_sq**2)
    pixels = plane * camera.focal_px + camera.principal_point_px + noise_px * normal(len(plane), 2)
    return BundleProblem(
        poses.to(dtype),
        cloud.to(dtype),
        camera.to("cpu", dtype),
        view_index,
        point_index,
        pixels.to(dtype),
        torch.tensor(radial, dtype=dtype),
    )
