"""Synthetic bundle adjustment problems of any size: a camera carried twice round a room."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from acezero_gpu.adjustment import BundleProblem
from acezero_gpu.geometry import PinholeCamera, camera_centres, retract, transform_points

WIDTH, HEIGHT, FOCAL_PX = 640, 480, 525.0
WINDOW = 24
"""A point is looked for in this many frames before and after the one that found it, in either lap."""
WIDE = 0.05
"""Two of the views of each point are this share of its depth apart."""
POSE_ERROR_M, POSE_ERROR_DEG, POINT_ERROR, FOCAL_FACTOR = 0.01, 0.5, 0.01, 1.02
"""The start: standard deviations per axis of poses, and of points as a share of their depth; focal length 2 % off."""


@dataclass(frozen=True, slots=True)
class AdjustmentCase:
    """A problem with its start, and what it was made from."""

    problem: BundleProblem
    """float64 on the CPU; two views are held at their true poses."""
    cam_from_world: Tensor
    """True poses ``(views, 3, 4)``, in metres."""

    @property
    def size(self) -> dict[str, int]:
        problem = self.problem
        return {
            "views": len(problem.cam_from_world),
            "points": len(problem.points),
            "observations": len(problem.pixels),
        }


def room_case(
    views: int,
    points: int,
    observations: int,
    *,
    noise_px: float = 0.7,
    outliers: float = 0.02,
    seed: int = 0,
) -> AdjustmentCase:
    """Points found in one frame at depths of 1 to 4 m, and seen again in frames near it in time or place.

    Tracks differ in length: some points are easily seen again, most are not; each is seen at least twice, from
    places ``WIDE`` apart. A share of the observations is off by some 5 px: like what a matcher
    leaves after its own filters.
    """
    draw = torch.Generator().manual_seed(seed)
    poses = _two_laps(views, draw)
    camera = PinholeCamera.centred(FOCAL_PX, WIDTH, HEIGHT, dtype=torch.float64)
    finder, cloud, depth = _found_points(poses, camera, 3 * points, draw)
    again = _seen_again(poses, camera, finder, cloud)
    good = (again[1] & (again[2] > WIDE * depth)).any(1).nonzero()[:points, 0]
    finder, cloud, depth = finder[good], cloud[good], depth[good]
    view_index, point_index = _observations(finder, depth, [x[good] for x in again], observations, draw)
    seen = transform_points(poses[view_index], cloud[point_index][:, None])[:, 0]
    exact = seen[:, :2] / seen[:, 2:] * camera.focal_px + camera.principal_point_px
    wrong = torch.rand(len(exact), 1, generator=draw) < outliers
    noise = noise_px * _normal(draw, len(exact), 2) + wrong * 4 * _normal(draw, len(exact), 2)
    fixed = torch.zeros(views, dtype=torch.bool)
    fixed[[0, views // 4]] = True
    scale = torch.tensor([POSE_ERROR_M] * 3 + [math.radians(POSE_ERROR_DEG)] * 3, dtype=torch.float64)
    start = retract(poses, scale * _normal(draw, views, 6))
    problem = BundleProblem(
        torch.where(fixed[:, None, None], poses, start),
        cloud + POINT_ERROR * depth * _normal(draw, len(cloud), 3),
        PinholeCamera(camera.focal_px * FOCAL_FACTOR, camera.principal_point_px),
        view_index,
        point_index,
        exact + noise,
        fixed_views=fixed,
    )
    return AdjustmentCase(problem, poses)


def _two_laps(views: int, draw: torch.Generator) -> Tensor:
    """World to camera: on an ellipse of 3 m by 2 m, looking outwards and swaying, by hand."""
    angle = torch.arange(views, dtype=torch.float64) / views * 4 * math.pi
    heading = angle + 0.4 * (3 * angle).sin()
    sine, cosine, zero, one = heading.sin(), heading.cos(), torch.zeros_like(angle), torch.ones_like(angle)
    rotation = torch.stack([sine, -cosine, zero, zero, zero, -one, cosine, sine, zero], -1).view(-1, 3, 3)
    rotation = retract(
        torch.cat([rotation, rotation.new_zeros(views, 3, 1)], -1),
        torch.cat([torch.zeros(views, 3), 0.1 * _normal(draw, views, 3)], -1),
    )[..., :3]
    centres = torch.stack([1.5 * angle.cos(), angle.sin(), 0.2 * (0.5 * angle).sin()], dim=-1)
    centres = centres + 0.05 * _normal(draw, views, 3)
    return torch.cat([rotation, -rotation @ centres[..., None]], dim=-1)


def _found_points(
    poses: Tensor, camera: PinholeCamera, points: int, draw: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """The view that each point was found in, its world coordinates, and its depth there."""
    finder = torch.randint(len(poses), (points,), generator=draw)
    size = torch.tensor([WIDTH, HEIGHT])
    pixels = torch.rand(points, 2, generator=draw, dtype=torch.float64) * size
    depth = 1 + 3 * torch.rand(points, 1, generator=draw, dtype=torch.float64)
    plane = (pixels - camera.principal_point_px) / camera.focal_px
    seen = torch.cat([plane, torch.ones_like(depth)], dim=-1) * depth
    world = (poses[finder][..., :3].mT @ seen[..., None])[..., 0]
    return finder, world + camera_centres(poses)[finder], depth


def _seen_again(
    poses: Tensor, camera: PinholeCamera, finder: Tensor, cloud: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Views near each point's finder, whether they see the point, and how far from the finder they are."""
    views = len(poses)
    offsets = torch.arange(-WINDOW, WINDOW + 1)
    offsets = torch.cat([offsets, offsets + views // 2])
    if len(offsets) >= views:
        offsets = torch.arange(views)
    candidate = (finder[:, None] + offsets) % views
    seen = transform_points(poses[candidate].flatten(0, 1), cloud.repeat_interleave(len(offsets), 0)[:, None])
    seen = seen[:, 0].unflatten(0, candidate.shape)
    pixels = seen[..., :2] / seen[..., 2:] * camera.focal_px + camera.principal_point_px
    inside = (pixels >= 0).all(-1) & (pixels < torch.tensor([WIDTH, HEIGHT])).all(-1)
    apart = (camera_centres(poses)[candidate] - camera_centres(poses)[finder][:, None]).norm(dim=-1)
    return candidate, inside & (seen[..., 2] > 0.5) & (seen[..., 2] < 6), apart


def _observations(
    finder: Tensor,
    depth: Tensor,
    again: tuple[Tensor, Tensor, Tensor],
    observations: int,
    draw: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """View and point of each: the finder, the nearest view that is wide apart, and the likeliest of the rest."""
    candidate, possible, apart = again
    ease = 0.8 * _normal(draw, len(finder), 1)
    score = ease - apart - 0.7 * torch.rand(candidate.shape, generator=draw, dtype=torch.float64).log().neg()
    score = torch.where(possible, score, -torch.inf)
    score = score.masked_fill(candidate == finder[:, None], torch.inf)
    second = torch.where(possible & (apart > WIDE * depth), apart, torch.inf).argmin(1, keepdim=True)
    score.scatter_(1, second, torch.inf)
    best = score.flatten().topk(min(observations, int((score > -torch.inf).sum()))).indices.sort().values
    return candidate.flatten()[best], best // candidate.shape[1]


def _normal(draw: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=draw, dtype=torch.float64)
