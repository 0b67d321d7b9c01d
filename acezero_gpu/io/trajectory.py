"""Trajectories in the formats of TUM and KITTI: camera to world, OpenCV axes."""

from collections.abc import Sequence
from pathlib import Path

import pypose as pp
import torch

from acezero_gpu.data.posed_views import PosedViews
from acezero_gpu.geometry import invert
from acezero_gpu.runtime.atomic import write_atomically


def write_tum(path: str | Path, views: PosedViews, times_s: Sequence[float]) -> None:
    """One line per view, ``timestamp tx ty tz qx qy qz qw``, in the order of time."""
    poses = pp.SE3(torch.as_tensor(views.cam_from_world)).Inv().tensor().double().tolist()
    rows = sorted(zip(times_s, poses, strict=True), key=lambda row: row[0])
    lines = [" ".join([f"{time:.6f}", *(f"{value:.9g}" for value in pose)]) for time, pose in rows]
    write_atomically(path, "# timestamp tx ty tz qx qy qz qw\n" + "".join(line + "\n" for line in lines))


def write_kitti(path: str | Path, views: PosedViews) -> None:
    """One line per view, the 3x4 matrix row by row; the line's number is the only name that a view has there."""
    matrices = invert(views.matrices.double()).flatten(1).tolist()
    write_atomically(path, "".join(" ".join(f"{value:.9g}" for value in row) + "\n" for row in matrices))
