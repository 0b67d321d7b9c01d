"""Solvers for the absolute pose: this one and others, on the same frames."""

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import poselib
import pycolmap
import torch
from numpy.typing import NDArray

from acezero_gpu.geometry import PinholeCamera, matrix_from_se3
from acezero_gpu.pnp import PoseStatus
from acezero_gpu.ransac import RansacConfig, estimate_absolute_pose
from acezero_gpu.runtime import InputError
from benchmarks.pose_cases import PoseCase

PoseSolver = Callable[[PoseCase], NDArray[np.float64]]
"""``[R | t]`` of every frame (frames, 3, 4), NaN where there is none."""

USAC_ITERATIONS = 10_000


class Ours:
    """All frames in one call, in float32."""

    def __init__(self, preset: str, *, compile: bool, device: str = "cpu") -> None:
        self.config = replace(getattr(RansacConfig, preset)(), compile=compile)
        self.device = device

    def __call__(self, case: PoseCase) -> NDArray[np.float64]:
        points, pixels, camera = tensors(case, self.device)
        config = replace(self.config, max_error_px=case.max_error_px)
        result = estimate_absolute_pose(points, pixels, camera, config)
        poses = matrix_from_se3(result.cam_from_world).double().cpu().numpy()
        return np.where((result.status == PoseStatus.OK).cpu().numpy()[:, None, None], poses, np.nan)


def tensors(
    case: PoseCase, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor, PinholeCamera]:
    """Points, pixels and camera of a case as the library takes them."""
    camera = PinholeCamera(
        torch.tensor([case.focal_px] * 2, dtype=dtype, device=device),
        torch.tensor(case.principal_point_px, dtype=dtype, device=device),
    )
    points, pixels = (torch.tensor(x, dtype=dtype, device=device) for x in (case.points, case.pixels))
    return points, pixels, camera


def poselib_poses(case: PoseCase) -> NDArray[np.float64]:
    """PoseLib with its own settings."""
    width, height = case.size_px
    parameters = [case.focal_px, *case.principal_point_px]
    camera = {"model": "SIMPLE_PINHOLE", "width": width, "height": height, "params": parameters}
    options = {"max_reproj_error": case.max_error_px}
    poses = []
    for points in case.points:
        pose, _ = poselib.estimate_absolute_pose(case.pixels, points, camera, options, {})
        poses.append(np.column_stack([pose.R, pose.t]))
    return np.array(poses)


def pycolmap_poses(case: PoseCase) -> NDArray[np.float64]:
    """COLMAP's estimator and refinement with their own settings."""
    width, height = case.size_px
    parameters = [case.focal_px, *case.principal_point_px]
    camera = pycolmap.Camera(model="SIMPLE_PINHOLE", width=width, height=height, params=parameters)
    options = pycolmap.AbsolutePoseEstimationOptions()
    options.ransac.max_error = case.max_error_px
    poses = []
    for points in case.points:
        found = pycolmap.estimate_and_refine_absolute_pose(case.pixels, points, camera, options)
        pose = np.full((3, 4), np.nan) if found is None else found["cam_from_world"].matrix()
        poses.append(pose)
    return np.array(poses)


def usac_poses(case: PoseCase) -> NDArray[np.float64]:
    """OpenCV's USAC with up to 10,000 iterations."""
    matrix = np.eye(3)
    matrix[[0, 1], [0, 1]] = case.focal_px
    matrix[:2, 2] = case.principal_point_px
    poses = []
    for points in case.points:
        found, rotation, translation, _ = cv2.solvePnPRansac(
            points,
            case.pixels,
            matrix,
            None,
            iterationsCount=USAC_ITERATIONS,
            reprojectionError=case.max_error_px,
            flags=cv2.USAC_DEFAULT,
        )
        pose = np.full((3, 4), np.nan)
        if found:
            pose = np.column_stack([cv2.Rodrigues(rotation)[0], translation])
        poses.append(pose)
    return np.array(poses)


SOLVERS: dict[str, Callable[[str], PoseSolver]] = {
    "fast": lambda device: Ours("fast", compile=False, device=device),
    "fast, compiled": lambda device: Ours("fast", compile=True, device=device),
    "robust": lambda device: Ours("robust", compile=False, device=device),
    "robust, compiled": lambda device: Ours("robust", compile=True, device=device),
    "OpenCV USAC": lambda _: usac_poses,
    "PoseLib": lambda _: poselib_poses,
    "pycolmap": lambda _: pycolmap_poses,
}
"""From the type of a device; the others run on the CPU wherever ours do."""
OURS = frozenset(name for name in SOLVERS if name.startswith(("fast", "robust")))
SLOW = frozenset({"PoseLib", "pycolmap"})
"""Solvers that take minutes where most points are outliers."""


def chosen_solvers(names: str) -> list[str]:
    """The solvers of a list with semicolons; ``all`` for all of them; ``InputError`` for an unknown one."""
    if names == "all":
        return list(SOLVERS)
    chosen = [name.strip() for name in names.split(";") if name.strip()]
    unknown = [name for name in chosen if name not in SOLVERS]
    if unknown or not chosen:
        raise InputError(f"--solvers {names}: choose from {'; '.join(SOLVERS)}, or all.")
    return chosen
