"""A small posed scene with distorted observations of exact points, as a run would hand it to an export."""

import numpy as np
import pypose as pp
import torch
from scipy.spatial.transform import Rotation

from acezero_gpu.data import PosedViews
from acezero_gpu.data.point_tracks import PointTracks
from acezero_gpu.io.export_scene import ExportScene
from acezero_gpu.io.track_file import SavedTracks

WIDTH, HEIGHT, FOCAL_PX = 640, 480, 500.0
RADIAL = (-0.12, 0.03)
VIEWS, POINTS = 5, 60


def poses() -> torch.Tensor:
    """World to camera ``tx ty tz qx qy qz qw``: around the origin, looking at it from four units away."""
    rng = np.random.default_rng(3)
    rotation = Rotation.from_rotvec(rng.normal(scale=0.25, size=(VIEWS, 3)))
    shift = np.array([0, 0, 4.0]) + rng.normal(scale=0.1, size=(VIEWS, 3))
    return torch.from_numpy(np.concatenate([shift, rotation.as_quat()], axis=1))


def points() -> np.ndarray:
    return np.random.default_rng(4).uniform(-1, 1, (POINTS, 3))


def seen_px(pose: np.ndarray, world: np.ndarray, radial: tuple[float, float] = RADIAL) -> np.ndarray:
    """Where a camera sees points, written out: turn, shift, divide, distort, scale."""
    camera = Rotation.from_quat(pose[3:]).apply(world) + pose[:3]
    plane = camera[:, :2] / camera[:, 2:]
    square = (plane**2).sum(1, keepdims=True)
    plane = plane * (1 + radial[0] * square + radial[1] * square**2)
    return FOCAL_PX * plane + np.array([WIDTH / 2, HEIGHT / 2])


def scene(radial: tuple[float, float] = RADIAL) -> ExportScene:
    names = tuple(f"photos/a {row}.jpg" for row in range(VIEWS))
    views = PosedViews(
        names, pp.SE3(poses()), torch.full((VIEWS,), FOCAL_PX).double(), torch.full((VIEWS,), 900.0).double()
    )
    files = tuple(f"a_{row}.jpg" for row in range(VIEWS))
    return ExportScene(views, files, (None,) * VIEWS, WIDTH, HEIGHT, radial)


def tracks() -> SavedTracks:
    """Point p is seen by all images but number p modulo their number, 0.5 px to the right of where it should be."""
    view, point = np.array([(v, p) for p in range(POINTS) for v in range(VIEWS) if v != p % VIEWS]).T
    pixels = np.zeros((len(view), 2))
    for row, pose in enumerate(poses().numpy()):
        pixels[view == row] = seen_px(pose, points()[point[view == row]])
    pixels[:, 0] += 0.5
    colours = torch.arange(3 * POINTS).reshape(POINTS, 3).to(torch.uint8)
    found = PointTracks(
        torch.from_numpy(points()).float(),
        torch.from_numpy(view),
        torch.from_numpy(point),
        torch.from_numpy(pixels).float(),
        torch.full((len(view),), 0.5),
    )
    return SavedTracks(scene().views.names, found, colours)
