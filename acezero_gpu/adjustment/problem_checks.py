"""What a problem must look like before anything is computed from it; each violation is one sentence."""

import math

import torch
from torch import Tensor

from acezero_gpu.adjustment.problem import BundleProblem


def check_problem(problem: BundleProblem) -> None:
    """``ValueError`` for wrong shapes, kinds of numbers, devices, indices out of range, or no usable camera.

    Poses, points, pixels and weights that are not finite are no error: they only count for nothing.
    """
    pose, points = problem.cam_from_world, problem.points
    views, number, k = len(pose), len(points), len(problem.pixels)
    _check("cam_from_world", pose, (views, 3, 4), "floating point")
    _check("points", points, (number, 3), "floating point")
    _check("pixels", problem.pixels, (k, 2), "floating point")
    _check("view_index", problem.view_index, (k,), "integer")
    _check("point_index", problem.point_index, (k,), "integer")
    _check("focal_px", problem.camera.focal_px, (2,), "floating point")
    _check("principal_point_px", problem.camera.principal_point_px, (2,), "floating point")
    if problem.weights is not None:
        _check("weights", problem.weights, (k,), "floating point")
    if problem.radial is not None:
        _check("radial", problem.radial, (2,), "floating point")
    if problem.fixed_views is not None:
        _check("fixed_views", problem.fixed_views, (views,), "bool")
    optional = [x for x in (problem.weights, problem.fixed_views) if x is not None]
    for value in [pose, problem.pixels, problem.view_index, problem.point_index, *optional]:
        if value.device != points.device:
            raise ValueError(f"All tensors must be on one device, got {value.device} and {points.device}.")
    _check_range("view_index", problem.view_index, views)
    _check_range("point_index", problem.point_index, number)
    _check_camera(problem)


def _check(name: str, value: Tensor, shape: tuple[int, ...], kind: str) -> None:
    if tuple(value.shape) != shape:
        raise ValueError(f"{name} must have the shape {shape}, got {tuple(value.shape)}.")
    is_bool, is_float = value.dtype == torch.bool, value.is_floating_point()
    found = "bool" if is_bool else "floating point" if is_float else "integer"
    if found != kind or value.is_complex():
        raise ValueError(f"{name} must be {kind}, got {value.dtype}.")


def _check_range(name: str, index: Tensor, end: int) -> None:
    if len(index) and not 0 <= int(index.min()) <= int(index.max()) < end:
        low, high = int(index.min()), int(index.max())
        raise ValueError(f"{name} must lie between 0 and {end - 1}, got {low} to {high}.")


def _check_camera(problem: BundleProblem) -> None:
    numbers = [problem.camera.focal_px, problem.camera.principal_point_px]
    numbers += [] if problem.radial is None else [problem.radial]
    values = [x for tensor in numbers for x in tensor.tolist()]
    if not (all(map(math.isfinite, values)) and min(values[:2]) > 0):
        raise ValueError(f"The camera must be finite with a positive focal length, got {values}.")
