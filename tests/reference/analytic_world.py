"""Views of a cloud of points whose features are functions of the points: a map of it is learnt in a second."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from acezero_gpu.geometry import (
    PinholeCamera,
    camera_centres,
    fit_similarity,
    project,
    retract,
    rotation_angle_deg,
    transform_points,
)
from acezero_gpu.mapping import FeatureBuffer


@dataclass(frozen=True)
class World:
    points: Tensor
    """World points, all of them seen by all views."""
    cam_from_world: Tensor
    camera: PinholeCamera
    features: Tensor
    """One row per point, the same in every view."""

    def pixels(self) -> Tensor:
        """``(views, points, 2)``."""
        return project(
            transform_points(self.cam_from_world, self.points.expand(len(self), -1, -1)), self.camera
        )

    def buffer(self) -> FeatureBuffer:
        """Each point is one patch of each view."""
        views, (points, channels) = len(self), self.features.shape
        buffer = FeatureBuffer(views, 1, points, channels, self.points.device)
        buffer.features = self.features.expand(views, -1, -1).clone()
        buffer.pixels = self.pixels()
        return buffer

    def __len__(self) -> int:
        return len(self.cam_from_world)

    def disturbed_poses(self, generator: torch.Generator, size: float = 0.03) -> Tensor:
        noise = size * torch.randn(len(self), 6, generator=generator)
        return retract(self.cam_from_world, noise.to(self.points.device))

    def pose_errors(self, cam_from_world: Tensor) -> tuple[float, float]:
        """Mean rotation error in degrees and mean distance of centres, after the best similarity.

        Rotations are those of relative poses to all other views, which no choice of frame changes.
        """
        centres, true_centres = camera_centres(cam_from_world), camera_centres(self.cam_from_world)
        aligned = fit_similarity(centres, true_centres).apply(centres)
        rotation, truth = cam_from_world[:, :, :3], self.cam_from_world[:, :, :3]
        relative = rotation[:, None] @ rotation.transpose(1, 2)[None]
        true_relative = truth[:, None] @ truth.transpose(1, 2)[None]
        angles = rotation_angle_deg(relative, true_relative)
        return float(angles.mean()), float((aligned - true_centres).norm(dim=-1).mean())

    def in_unit(self, metres: float) -> "World":
        """The same world by another measure, so that its numbers are so many times larger."""
        poses = self.cam_from_world.clone()
        poses[..., 3] /= metres
        return replace(self, points=self.points / metres, cam_from_world=poses)

    def to(self, device: torch.device) -> "World":
        return replace(
            self,
            points=self.points.to(device),
            cam_from_world=self.cam_from_world.to(device),
            camera=self.camera.to(device),
            features=self.features.to(device),
        )


def make_world(views: int = 12, points: int = 300, seed: int = 0) -> World:
    """Cameras on an arc of 140 degrees, six away from a ball of radius one, which fills the image."""
    generator = torch.Generator().manual_seed(seed)
    cloud = torch.nn.functional.normalize(torch.randn(points, 3, generator=generator), dim=-1)
    cloud = cloud * torch.rand(points, 1, generator=generator) ** (1 / 3) * 2
    angle = torch.linspace(-1.2, 1.2, views)
    poses = torch.zeros(views, 3, 4)
    poses[:, 0, 0], poses[:, 0, 2] = angle.cos(), angle.sin()
    poses[:, 2, 0], poses[:, 2, 2] = -angle.sin(), angle.cos()
    poses[:, 1, 1] = 1.0
    poses[:, 2, 3] = 6.0
    poses = retract(poses, 0.2 * torch.randn(views, 6, generator=generator))
    waves = torch.randn(3, 13, generator=generator)
    features = torch.cat([cloud, torch.sin(cloud @ waves)], dim=-1)
    return World(cloud, poses, PinholeCamera.centred(500.0, 640, 480), features)
