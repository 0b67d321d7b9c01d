"""Obvious twins of the batched absolute pose code: one image, one sample, one point at a time, in float64."""

import math

import numpy as np
import poselib


def project_one(
    pose: np.ndarray, point: np.ndarray, focal: np.ndarray, principal: np.ndarray
) -> np.ndarray | None:
    """The pixel of one world point, or None behind the camera."""
    camera_point = pose[:, :3] @ point + pose[:, 3]
    if camera_point[2] <= 1e-6:
        return None
    return focal * camera_point[:2] / camera_point[2] + principal


def score_one(pose, points, pixels, usable, focal, principal, max_error_px: float, score: str) -> float:
    """Inlier score of one pose, point by point."""
    total = 0.0
    for point, pixel, use in zip(points, pixels, usable, strict=True):
        projected = project_one(pose, point, focal, principal) if use else None
        if projected is None:
            continue
        error = float(np.linalg.norm(projected - pixel))
        if score == "soft":
            total += 1 / (1 + math.exp(min(5 / max_error_px * (error - max_error_px), 700)))
        elif score == "count":
            total += error < max_error_px
        else:
            total += max(0.0, 1 - (error / max_error_px) ** 2)
    return total


def p3p_one(bearings: np.ndarray, points: np.ndarray) -> list[np.ndarray]:
    """All poses of one sample, by PoseLib, without the NaN poses that it returns for some unsolvable ones."""
    poses = [(np.asarray(pose.R), np.asarray(pose.t)) for pose in poselib.p3p(list(bearings), list(points))]
    return [np.column_stack([r, t]) for r, t in poses if np.isfinite(r).all() and np.isfinite(t).all()]


def distinct_ranks_one(uniform, count: int) -> list[int]:
    """Draw without replacement by removing each drawn rank from a list."""
    remaining = list(range(count))
    return [
        remaining.pop(min(int(np.float32(u) * np.float32(len(remaining))), len(remaining) - 1))
        for u in uniform
    ]


def verified_hypothesis_one(attempts, points, pixels, bearings, focal, principal, max_error_px: float):
    """The first of the four-point samples whose points all reproject within the threshold, else the best."""
    best, best_error = None, math.inf
    for sample in attempts:
        error_of = {}
        for k, pose in enumerate(p3p_one(bearings[sample[:3]], points[sample[:3]])):
            depths = (points[sample[:3]] @ pose[:, :3].T + pose[:, 3])[:, 2]
            projected = project_one(pose, points[sample[3]], focal, principal)
            if projected is not None and (depths > 0).all():
                error_of[k] = (float(np.linalg.norm(projected - pixels[sample[3]])), pose)
        if not error_of:
            continue
        error, pose = min(error_of.values(), key=lambda item: item[0])
        if error < max_error_px:
            return pose, error
        if error < best_error:
            best, best_error = pose, error
    return best, best_error
