"""From where a scene is looked at, and how large it is: what all views of it share."""

import torch
from jaxtyping import Float
from torch import Tensor

from acezero_gpu.data.camera_frusta import scene_extent
from acezero_gpu.geometry import camera_centres


def middle_and_radius(
    points: Float[Tensor, "n 3"], centres: Float[Tensor, "v 3"]
) -> tuple[Float[Tensor, "3"], float]:
    """A sphere around most of the points and of the cameras, each counted as one half."""
    parts = [part[:: max(1, len(part) // 20_000)] for part in (points, centres) if len(part) > 0]
    if not parts:
        return torch.zeros(3), 1.0
    low = torch.stack([torch.quantile(part, 0.05, dim=0) for part in parts]).amin(0)
    high = torch.stack([torch.quantile(part, 0.95, dim=0) for part in parts]).amax(0)
    return (low + high) / 2, max(float((high - low).norm()) / 2, 1e-6)


def frustum_size(cam_from_world: Float[Tensor, "v 3 4"], radius: float) -> float:
    """About the spacing of the cameras, within limits that keep them visible and modest."""
    if len(cam_from_world) < 2:
        return 0.1 * radius
    spacing = scene_extent(camera_centres(cam_from_world)) * 4.0 / len(cam_from_world)
    return min(max(spacing, 0.035 * radius), 0.11 * radius)


def up_and_ahead(
    points: Float[Tensor, "n 3"], cam_from_world: Float[Tensor, "v 3 4"]
) -> tuple[Float[Tensor, "3"], Float[Tensor, "3"]]:
    """The cameras' mean vertical, and the horizontal direction to look along.

    That is where the cameras look if they agree, else across the longer side of the scene.
    """
    if len(cam_from_world) == 0:
        return torch.tensor([0.0, -1.0, 0.0]), torch.tensor([0.0, 0.0, 1.0])
    up = -cam_from_world[:, 1, :3].mean(0)
    up = torch.nn.functional.normalize(up if up.norm() > 0.1 else -cam_from_world[0, 1, :3], dim=0)
    ahead = cam_from_world[:, 2, :3].mean(0)
    ahead = ahead - (ahead @ up) * up
    if ahead.norm() < 0.4 and len(points) > 2:
        flat = points[:: max(1, len(points) // 20_000)]
        flat = flat.clamp(flat.quantile(0.05, dim=0), flat.quantile(0.95, dim=0))
        flat = flat - (flat @ up)[:, None] * up
        # Of the three principal axes, ascending, the first is the vertical, which was projected out.
        ahead = torch.linalg.eigh((flat - flat.mean(0)).T @ (flat - flat.mean(0)))[1][:, 1]
        ahead = ahead - (ahead @ up) * up
    if ahead.norm() < 1e-3:
        ahead = cam_from_world[0, 0, :3]
    return up, torch.nn.functional.normalize(ahead, dim=0)
