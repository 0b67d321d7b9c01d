"""A short walk through the synthetic room at 160 x 120 pixels, rendered once for all tests that look at pictures."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from acezero_gpu.data import ImageSet, LoadedImages, PosedViews
from acezero_gpu.data.synthetic import Scene, render, synthetic_scene, walk, walk_camera
from acezero_gpu.geometry import PinholeCamera, invert, retract, se3_from_matrix
from acezero_gpu.mapping import BufferConfig
from acezero_gpu.network import make_encoder
from acezero_gpu.network.keypoints import KeypointConfig
from acezero_gpu.reconstruction import BankConfig, ImageBank

WIDTH, HEIGHT = 160, 120
FRAMES, STEP_DEG = 18, 5.0
LUMINANCE = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Room:
    images: Tensor
    """Grey bytes ``(n, 1, h, w)``."""
    depth_m: Tensor
    """``(n, h, w)``."""
    cam_from_world: Tensor
    camera: PinholeCamera

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, rows: list[int]) -> "Room":
        return Room(self.images[rows], self.depth_m[rows], self.cam_from_world[rows], self.camera)

    def loaded(self) -> LoadedImages:
        names = tuple(f"frame_{row:03d}.png" for row in range(len(self)))
        return LoadedImages(ImageSet(names, tuple(map(Path, names)), WIDTH, HEIGHT), self.images)

    def views(self) -> PosedViews:
        """The truth, as a reconstruction would give it."""
        focal = torch.full((len(self),), float(self.camera.focal_px[0]))
        given = torch.full((len(self),), torch.inf)
        return PosedViews(self.loaded().image_set.names, se3_from_matrix(self.cam_from_world), focal, given)

    def bank(self, device: torch.device, config: BankConfig | None = None, seed: int = 0) -> ImageBank:
        """Everything at the pictures' own resolution."""
        loaded = self.loaded()
        return ImageBank(
            loaded, loaded, make_encoder("dense-sift", device), config or tiny_bank(), device, seed
        )


def tiny_bank() -> BankConfig:
    """What 300 cells per image need."""
    return BankConfig(
        shortest_side_px=HEIGHT,
        keypoint_side_px=HEIGHT,
        buffer=BufferConfig(max_passes=3),
        keypoints=KeypointConfig(per_image=400),
    )


@cache
def _scene() -> Scene:
    return synthetic_scene(3, texels_per_m=80)


def _photographed(poses: Tensor) -> Room:
    camera = walk_camera(WIDTH, HEIGHT)
    pictures = [render(_scene(), pose, camera) for pose in poses]
    grey = torch.stack([rgb.float() @ torch.tensor(LUMINANCE) for rgb, _ in pictures])
    return Room(
        grey.round().to(torch.uint8)[:, None], torch.stack([depth for _, depth in pictures]), poses, camera
    )


@cache
def walked_room() -> Room:
    """Neighbours are five degrees around the table apart."""
    return _photographed(walk(_scene(), FRAMES, 3, step_deg=STEP_DEG))


@cache
def room_with_a_turn(walked: int = 6, turned: int = 4, turn_deg: float = 7.0) -> Room:
    """A walk whose last camera then turns on the spot: its pictures share what they show, but no parallax."""
    poses = walk(_scene(), FRAMES, 3, step_deg=STEP_DEG)[:walked]
    turn = torch.zeros(turned, 6)
    turn[:, 4] = torch.deg2rad(turn_deg * torch.arange(1, turned + 1))
    return _photographed(torch.cat([poses, retract(poses[-1].expand(turned, 3, 4), turn)]))


@cache
def turned_room(count: int = 6) -> Room:
    """A camera that turns on the spot: nothing in its pictures tells of depth."""
    start = walk(_scene(), FRAMES, 3, step_deg=STEP_DEG)[0]
    turn = torch.zeros(count, 6)
    turn[:, 4] = torch.linspace(-0.2, 0.2, count)
    poses = retract(start.expand(count, 3, 4), turn)
    centres = invert(poses)[:, :, 3]
    assert (centres - centres[0]).abs().max() < 1e-5
    return _photographed(poses)
