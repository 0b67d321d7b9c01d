"""A small scene with exact truth for the adjustment tests."""

from dataclasses import replace

import torch
from torch import Tensor

from acezero_gpu.adjustment import BundleAdjustmentConfig, BundleProblem
from acezero_gpu.geometry import PinholeCamera, camera_centres, retract, transform_points

CONVERGED = BundleAdjustmentConfig(cost_tolerance=1e-10, max_iterations=100)
EVERYTHING = BundleAdjustmentConfig(
    max_iterations=100, refine_focal=True, refine_radial=True, cost_tolerance=1e-11, step_tolerance=1e-12
)


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


def disturbed(
    problem: BundleProblem,
    generator: torch.Generator,
    *,
    poses: float = 0.01,
    points: float = 0.03,
    focal_factor: float = 1.0,
) -> BundleProblem:
    """The same observations with a wrong start; the radial terms start at zero."""

    def noise(like: Tensor, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(like)

    camera = PinholeCamera(problem.camera.focal_px * focal_factor, problem.camera.principal_point_px)
    steps = poses * noise(problem.points, len(problem.cam_from_world), 6)
    return replace(
        problem,
        cam_from_world=retract(problem.cam_from_world, steps),
        points=problem.points + points * noise(problem.points, len(problem.points), 3),
        camera=camera,
        radial=torch.zeros_like(problem.camera.focal_px),
    )


def on_device(
    problem: BundleProblem, device: torch.device, dtype: torch.dtype = torch.float64
) -> BundleProblem:
    def move(value: Tensor | None) -> Tensor | None:
        return value if value is None else value.to(device, dtype if value.is_floating_point() else None)

    return BundleProblem(
        move(problem.cam_from_world),
        move(problem.points),
        problem.camera.to(device, dtype),
        move(problem.view_index),
        move(problem.point_index),
        move(problem.pixels),
        move(problem.radial),
        move(problem.weights),
        move(problem.fixed_views),
    )


def joined(a: BundleProblem, b: BundleProblem) -> BundleProblem:
    """Both problems in one, with the camera of the first."""
    return replace(
        a,
        cam_from_world=torch.cat([a.cam_from_world, b.cam_from_world]),
        points=torch.cat([a.points, b.points]),
        view_index=torch.cat([a.view_index, b.view_index + len(a.cam_from_world)]),
        point_index=torch.cat([a.point_index, b.point_index + len(a.points)]),
        pixels=torch.cat([a.pixels, b.pixels]),
    )


def with_points(problem: BundleProblem, points, view_index, point_index, pixels) -> BundleProblem:
    """More points; ``point_index`` counts from the first of them."""
    count = len(problem.points)
    return replace(
        problem,
        points=torch.cat([problem.points, points]),
        view_index=torch.cat([problem.view_index, torch.tensor(view_index)]),
        point_index=torch.cat([problem.point_index, torch.tensor(point_index) + count]),
        pixels=torch.cat([problem.pixels, pixels]),
    )


def spread(poses: torch.Tensor) -> float:
    centres = camera_centres(poses)
    return float((centres - centres.mean(0)).norm(dim=-1).mean())


def pixels_of(problem: BundleProblem, view: int, points: torch.Tensor) -> torch.Tensor:
    cam = transform_points(problem.cam_from_world[view], points)
    return cam[:, :2] / cam[:, 2:] * problem.camera.focal_px + problem.camera.principal_point_px


def with_outliers(problem: BundleProblem, generator: torch.Generator, share: float = 0.05) -> BundleProblem:
    bad = torch.rand(len(problem.pixels), generator=generator) < share
    shift = 30 * torch.randn(len(bad), 2, generator=generator, dtype=torch.float64)
    return replace(problem, pixels=problem.pixels + bad[:, None] * shift)
