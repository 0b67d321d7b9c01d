"""The slow, obvious twin of ``acezero_gpu.evaluation``: one image and one pair at a time, on 4x4 matrices."""

import math

import numpy as np
from scipy.spatial.transform import Rotation


def four_by_four(pose: np.ndarray) -> np.ndarray:
    return np.vstack([pose, [0.0, 0.0, 0.0, 1.0]])


def angle_between_deg(a: np.ndarray, b: np.ndarray) -> float:
    cosine = np.dot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b))
    return math.degrees(math.acos(min(1.0, max(-1.0, cosine))))


def image_errors(
    estimate: np.ndarray,
    truth: np.ndarray,
    registered: np.ndarray,
    scale: float,
    rotation: np.ndarray,
    translation: np.ndarray,
) -> tuple[list[float], list[float]]:
    """Degrees and distances after ``truth = scale * rotation @ estimate + translation``; inf if failed."""
    angles, distances = [], []
    for est, true, good in zip(estimate, truth, registered, strict=True):
        if not good:
            angles.append(math.inf)
            distances.append(math.inf)
            continue
        cam_from_truth = est[:, :3] @ rotation.T
        angles.append(math.degrees(Rotation.from_matrix(true[:, :3].T @ cam_from_truth).magnitude()))
        centre = np.linalg.inv(four_by_four(est))[:3, 3]
        true_centre = np.linalg.inv(four_by_four(true))[:3, 3]
        distances.append(float(np.linalg.norm(scale * rotation @ centre + translation - true_centre)))
    return angles, distances


def pair_errors(
    estimate: np.ndarray, truth: np.ndarray, registered: np.ndarray, *, signed: bool = False
) -> tuple[list[float], list[float]]:
    """Rotation and direction error in degrees of each ``cam_i_from_cam_j``, i < j; inf if either failed."""
    rotations, directions = [], []
    for i in range(len(truth)):
        for j in range(i + 1, len(truth)):
            if not (registered[i] and registered[j]):
                rotations.append(math.inf)
                directions.append(math.inf)
                continue
            relative = four_by_four(estimate[i]) @ np.linalg.inv(four_by_four(estimate[j]))
            true_relative = four_by_four(truth[i]) @ np.linalg.inv(four_by_four(truth[j]))
            difference = Rotation.from_matrix(relative[:3, :3].T @ true_relative[:3, :3])
            rotations.append(math.degrees(difference.magnitude()))
            angle = angle_between_deg(relative[:3, 3], true_relative[:3, 3])
            directions.append(angle if signed else min(angle, 180 - angle))
    return rotations, directions


def area_under_curve(rotations: list[float], directions: list[float], max_threshold: int = 30) -> float:
    """Mean over 1, 2, … degrees of the share of pairs whose two errors are both below."""
    shares = []
    for threshold in range(1, max_threshold + 1):
        good = [r < threshold and d < threshold for r, d in zip(rotations, directions, strict=True)]
        shares.append(sum(good) / len(good))
    return sum(shares) / len(shares)
