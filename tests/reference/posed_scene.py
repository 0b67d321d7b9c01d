"""Synthetic registration problems with exact truth: a grid of cells, scene coordinates, outliers."""

from dataclasses import dataclass

import torch
from torch import Tensor

from acezero_gpu.geometry import (
    PinholeCamera,
    camera_centres,
    cell_centres_px,
    invert,
    retract,
    rotation_angle_deg,
    transform_points,
)


@dataclass(frozen=True)
class PosedScene:
    points: Tensor
    pixels: Tensor
    camera: PinholeCamera
    cam_from_world: Tensor
    outlier: Tensor

    def errors(self, estimate: Tensor) -> tuple[Tensor, Tensor]:
        """Rotation in degrees, distance of the camera centres."""
        estimate = estimate.to(self.cam_from_world)
        rotation = rotation_angle_deg(estimate[..., :3], self.cam_from_world[..., :3])
        return rotation, (camera_centres(estimate) - camera_centres(self.cam_from_world)).norm(dim=-1)


def random_poses(batch: int, generator: torch.Generator, size: float = 1.0) -> Tensor:
    identity = torch.eye(3, 4, dtype=torch.float64).expand(batch, 3, 4)
    return retract(identity, size * torch.randn(batch, 6, generator=generator, dtype=torch.float64))


def make_scene(
    batch: int,
    *,
    outliers: float = 0.0,
    noise_px: float = 0.0,
    heavy_tails: bool = False,
    rows: int = 60,
    columns: int = 80,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> PosedScene:
    """Cells of a 640 x 480 image see points two to six metres away; outliers fill a box of eight metres."""
    g = torch.Generator().manual_seed(seed)
    f64 = torch.float64
    stride = 640 // columns
    pixels = cell_centres_px(rows, columns, stride, dtype=f64)
    n = len(pixels)
    camera = PinholeCamera(torch.tensor([525.0, 515.0], dtype=f64), torch.tensor([322.0, 239.0], dtype=f64))
    noise = noise_px * torch.randn(batch, n, 2, generator=g, dtype=f64)
    if heavy_tails:
        noise = noise * torch.randn(batch, n, 1, generator=g, dtype=f64).exp()
    depth = 2 + 4 * torch.rand(batch, n, 1, generator=g, dtype=f64)
    rays = camera.normalised(pixels + noise)
    points_cam = torch.cat([rays, torch.ones_like(rays[..., :1])], dim=-1) * depth
    pose = random_poses(batch, g)
    camera_from = invert(pose)
    outlier = torch.rand(batch, n, generator=g, dtype=f64) < outliers
    box = 8 * (torch.rand(batch, n, 3, generator=g, dtype=f64) - 0.5)
    points = transform_points(camera_from, torch.where(outlier[..., None], box, points_cam))
    to = {"device": device, "dtype": dtype}
    return PosedScene(
        points.to(**to), pixels.to(**to), camera.to(device, dtype), pose.to(device), outlier.to(device)
    )
