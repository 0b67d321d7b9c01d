"""A procedural room with exact truth: rendered by ray casting, photographed along a smooth walk.

World axes: x and y along the floor, z up, in metres, the origin on the floor in the middle of the room.
Everything is a box (turned about the vertical) or a sphere; the room is a box seen from inside. Made on the
CPU; the same seed gives the same scene, walk and pictures.
"""

import json
import math
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from acezero_gpu.data.synthetic_raycast import render
from acezero_gpu.data.synthetic_room import Scene, synthetic_scene
from acezero_gpu.geometry import PinholeCamera, invert
from acezero_gpu.runtime import random_stream
from acezero_gpu.runtime.progress import report

__all__ = ["Scene", "render", "synthetic_scene", "walk", "walk_camera", "write_dataset"]

FOCAL_PER_WIDTH = 0.8
"""Focal length of the walk's camera; ACE0's guess would be 0.875 for a 4:3 image, so it has to be refined."""


def walk(scene: Scene, count: int, seed: int = 0, *, step_deg: float = 9.0) -> Float[Tensor, "count 3 4"]:
    """``cam_from_world`` of a smooth walk around the table, looking across it at the other side of the room.

    The cameras move about ``step_deg`` around the table from one to the next (less when ``count`` makes that
    more than a full turn, which then closes), so every step has parallax and neighbours share most of their
    view. Heights, radii and viewing directions drift smoothly.
    """
    generator = random_stream(seed, "walk")
    arc = min(2 * math.pi, math.radians(step_deg) * count)
    start = 2 * math.pi * torch.rand((), generator=generator, dtype=torch.float64)
    angle = start + torch.arange(count, dtype=torch.float64) * arc / count

    def drift(size: float) -> Tensor:
        phases = 2 * math.pi * torch.rand((2, 1), generator=generator, dtype=torch.float64)
        return size * (torch.sin(2 * angle + phases[0]) + 0.5 * torch.sin(3 * angle + phases[1]))

    half_x, half_y = scene.boxes[0].half[:2]
    radius_x, radius_y = 0.58 * half_x + drift(0.10), 0.54 * half_y + drift(0.08)
    centre = torch.stack([radius_x * angle.cos(), radius_y * angle.sin(), 1.5 + drift(0.15)], dim=-1)
    target = torch.stack(
        [
            -0.5 * radius_x * angle.cos() + drift(0.2),
            -0.5 * radius_y * angle.sin() + drift(0.2),
            1.0 + drift(0.12),
        ],
        dim=-1,
    )
    return _looking_at(centre, target).float()


def walk_camera(width: int, height: int) -> PinholeCamera:
    """The camera that ``write_dataset`` uses."""
    return PinholeCamera.centred(FOCAL_PER_WIDTH * width, width, height)


def write_dataset(
    folder: str | Path,
    count: int = 48,
    width: int = 480,
    height: int = 360,
    seed: int = 0,
    *,
    suffix: str = ".jpg",
    texels_per_m: int = 220,
) -> Path:
    """Render a walk into ``folder``: ``images``, ``poses`` (camera to world), ``depth`` (mm), ``set.json``.

    JPEG at quality 95, or any other suffix that imageio writes. Files of the same names are replaced.
    """
    folder = Path(folder)
    for name in ("images", "poses", "depth"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    scene = synthetic_scene(seed, texels_per_m=texels_per_m)
    cam_from_world = walk(scene, count, seed)
    camera = walk_camera(width, height)
    for index, pose in enumerate(cam_from_world):
        name = f"frame_{index:04d}"
        rgb, depth_m = render(scene, pose, camera)
        image_path = folder / "images" / f"{name}{suffix}"
        if suffix in (".jpg", ".jpeg"):
            iio.imwrite(image_path, rgb.numpy(), plugin="pillow", quality=95)
        else:
            iio.imwrite(image_path, rgb.numpy(), plugin="pillow")
        depth_mm = (depth_m * 1000.0).round().numpy().astype(np.uint16)
        iio.imwrite(folder / "depth" / f"{name}.png", depth_mm, plugin="pillow")
        world_from_cam = np.vstack([invert(pose.double()).numpy(), [0, 0, 0, 1]])
        np.savetxt(folder / "poses" / f"{name}.txt", world_from_cam, fmt="%.9f")
        report(index + 1, count, "images")
    (fx, fy), (cx, cy) = camera.focal_px.tolist(), camera.principal_point_px.tolist()
    facts = {"images": count, "width": width, "height": height, "fx": fx, "fy": fy, "cx": cx, "cy": cy}
    facts |= {"distortion_opencv": [0, 0, 0, 0], "truth": "exact (rendered)", "unit": "m", "seed": seed}
    (folder / "set.json").write_text(json.dumps(facts, indent=1) + "\n")
    return folder


def _looking_at(centre: Float[Tensor, "n 3"], target: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3 4"]:
    """Upright cameras at ``centre`` whose axis points at ``target``."""
    forward = torch.nn.functional.normalize(target - centre, dim=-1)
    up = centre.new_tensor([0.0, 0.0, 1.0]).expand_as(forward)
    right = torch.nn.functional.normalize(torch.linalg.cross(forward, up), dim=-1)
    rotation = torch.stack([right, torch.linalg.cross(forward, right), forward], dim=-2)
    return torch.cat([rotation, -rotation @ centre[..., None]], dim=-1)
