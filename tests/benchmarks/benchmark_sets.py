"""Small image sets on disk for the tests of the benchmarks, and estimates made from their truth."""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from acezero_gpu.data import PosedViews
from acezero_gpu.geometry import invert, se3_from_matrix
from acezero_gpu.geometry.pose import orthonormalise

FACTS = {"width": 32, "height": 24, "fx": 30.0, "fy": 32.0, "truth": "made up", "unit": "mm"}


def circle_of_cameras(count: int) -> torch.Tensor:
    """``world_from_cam`` of cameras on an uneven circle, in mm, each turned by itself."""
    generator = torch.Generator().manual_seed(1)
    angle = torch.arange(count, dtype=torch.float64) * 0.7
    centres = torch.stack([1000 * angle.cos(), 700 * angle.sin(), 100 * (2 * angle).cos()], dim=-1)
    rotation = orthonormalise(
        torch.eye(3, dtype=torch.float64) + 0.5 * torch.randn(count, 3, 3, generator=generator).double()
    )
    return torch.cat([rotation, centres[..., None]], dim=-1)


def write_set(folder: Path, count: int = 12, **facts: object) -> torch.Tensor:
    """An image set of blank pictures; returns its true ``world_from_cam``."""
    (folder / "images").mkdir(parents=True)
    (folder / "poses").mkdir()
    world_from_cam = circle_of_cameras(count)
    for row, pose in enumerate(world_from_cam):
        Image.new("L", (32, 24), 128).save(folder / "images" / f"img_{row:02d}.png")
        np.savetxt(folder / "poses" / f"img_{row:02d}.txt", np.vstack([pose.numpy(), [0, 0, 0, 1]]))
    (folder / "set.json").write_text(json.dumps({**FACTS, **facts}))
    return world_from_cam


def estimate_in_another_frame(
    world_from_cam: torch.Tensor, names: list[str], confidence: torch.Tensor, focal_px: float
) -> PosedViews:
    """The same cameras with the world turned, shrunk to a thousandth and moved."""
    generator = torch.Generator().manual_seed(2)
    turn = orthonormalise(torch.randn(3, 3, generator=generator).double())
    rotation = turn @ world_from_cam[..., :3]
    centres = 0.001 * world_from_cam[..., 3] @ turn.T + torch.tensor([3.0, -2.0, 1.0], dtype=torch.float64)
    cam_from_world = invert(torch.cat([rotation, centres[..., None]], dim=-1))
    focal = torch.full((len(names),), focal_px)
    return PosedViews(tuple(names), se3_from_matrix(cam_from_world), focal, confidence)
