"""Train a scene coordinate network through RANSAC: nothing but true camera poses tells it what is wrong.

A camera moves in front of a wavy wall whose every point looks different. A small network predicts from the look
of a point where it lies. As in DSAC* it first learns from measured scene coordinates; here the depth sensor that
measured them sits askew on the camera, by four degrees and fifteen centimetres that nobody knows of. Then the
expected pose loss takes over, and poses of held-out views get several times more accurate.

Run: ``python examples/03_learn_scene_coordinates.py`` (seconds on a CPU, no data needed).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from acezero_gpu import PinholeCamera, PoseDistributionConfig, pose_loss, sample_pose_distribution
from acezero_gpu.geometry import invert, reproject, retract, transform_points

CAMERA = PinholeCamera.centred(500.0, 640, 480)
POINTS_PER_VIEW = 96
LOOK_DIMENSIONS = 48
COORDINATE_STEPS, POSE_STEPS = 150, 60


@dataclass(frozen=True)
class Views:
    """What the camera saw: looks and pixels of some points of the wall, and the truth."""

    looks: Tensor
    pixels: Tensor
    points: Tensor
    cam_from_world: Tensor


class Wall:
    """A surface and its texture: smooth functions of the place, which a network can invert."""

    def __init__(self, generator: torch.Generator) -> None:
        self.frequencies = torch.randn(3, LOOK_DIMENSIONS, generator=generator)
        self.phases = 2 * math.pi * torch.rand(LOOK_DIMENSIONS, generator=generator)

    def look(self, points: Tensor) -> Tensor:
        return torch.cos(points @ self.frequencies + self.phases)

    def views(self, count: int, generator: torch.Generator) -> Views:
        """Random poses about four metres away; each sees points spread over its picture, to about a pixel."""
        front = torch.eye(3, 4)
        front[2, 3] = 4.0
        pose = retract(front.expand(count, 3, 4), 0.15 * torch.randn(count, 6, generator=generator))
        plane = 2 * torch.rand(count, POINTS_PER_VIEW, 2, generator=generator) - 1
        x, y = (plane * torch.tensor([2.0, 1.5])).unbind(-1)
        points = torch.stack([x, y, 0.5 * torch.sin(2 * x) * torch.cos(2 * y)], dim=-1)
        pixels = reproject(points, pose, CAMERA).pixels
        pixels = pixels + torch.randn(pixels.shape, generator=generator)
        return Views(self.look(points), pixels, points, pose)


def measured_points(views: Views, generator: torch.Generator) -> Tensor:
    """Scene coordinates of a sensor that sits askew and whose depths have two per cent of noise."""
    in_camera = transform_points(views.cam_from_world, views.points)
    noise = 0.02 * torch.randn(in_camera.shape[:-1], generator=generator)[..., None]
    askew = retract(torch.eye(3, 4), torch.tensor([0.1, -0.05, 0.1, 0.05, 0.03, 0.05]))
    measured = transform_points(askew.expand(len(in_camera), 3, 4), in_camera) + noise * in_camera
    return transform_points(invert(views.cam_from_world), measured)


def pose_error(network: nn.Module, views: Views, seed: int = 1) -> Tensor:
    """Expected loss of every view: degrees plus centimetres."""
    distribution = sample_pose_distribution(
        network(views.looks),
        views.pixels,
        CAMERA,
        PoseDistributionConfig(hypotheses=12, attempts=4),
        generator=torch.Generator().manual_seed(seed),
    )
    loss = pose_loss(distribution.cam_from_world, views.cam_from_world[:, None])
    return distribution.expected(loss, without_hypothesis=100.0)


def main() -> dict[str, float]:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    wall = Wall(generator)
    train, test = wall.views(64, generator), wall.views(32, generator)
    network = nn.Sequential(nn.Linear(LOOK_DIMENSIONS, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU())
    network.append(nn.Linear(128, 3))

    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    targets = measured_points(train, generator)
    for _ in range(COORDINATE_STEPS):
        optimizer.zero_grad()
        (network(train.looks) - targets).abs().mean().backward()
        optimizer.step()
    with torch.no_grad():
        before = pose_error(network, test).median().item()
    print(f"trained on measured coordinates: {before:5.2f} (median of held-out views, degrees + centimetres)")

    optimizer = torch.optim.Adam(network.parameters(), lr=3e-4)
    for step in range(POSE_STEPS):
        optimizer.param_groups[0]["lr"] = 3e-4 * (1 - step / POSE_STEPS)
        chosen = torch.randperm(len(train.pixels), generator=generator)[:8]
        batch = Views(*(getattr(train, name)[chosen] for name in Views.__dataclass_fields__))
        optimizer.zero_grad()
        pose_error(network, batch, seed=step).mean().backward()
        optimizer.step()
    with torch.no_grad():
        after = pose_error(network, test).median().item()
    print(f"and through the pose loss:       {after:5.2f}")
    return {"before": before, "after": after}


if __name__ == "__main__":
    main()
