"""Real correspondences: keypoints of a query matched to the measured 3D points of a mapping frame."""

from pathlib import Path

import cv2
import numpy as np
import poselib
import pytest
import torch

from acezero_gpu.geometry import PinholeCamera, camera_centres, invert, matrix_from_se3, rotation_angle_deg
from acezero_gpu.pnp import PoseStatus
from acezero_gpu.ransac import RansacConfig, estimate_absolute_pose

FOCAL_PX = 525.505
PAIRS = [(8 * k, 8 * k + 4) for k in range(0, 124, 8)]
LARGEST = 1500


def correspondences(folder: Path, mapping: int, query: int) -> tuple[np.ndarray, np.ndarray]:
    """World points and query pixels of tentative matches; no ratio test, so that many are wrong."""

    def features(frame: int) -> tuple[np.ndarray, np.ndarray]:
        image = cv2.imread(str(folder / f"images/frame-{frame:06d}.jpg"), cv2.IMREAD_GRAYSCALE)
        keypoints, descriptors = cv2.SIFT_create(2000).detectAndCompute(image, None)
        return np.array([k.pt for k in keypoints]) + 0.5, descriptors  # pixel centres at one half

    pixels, descriptors = features(mapping)
    query_pixels, query_descriptors = features(query)
    matches = cv2.BFMatcher().match(query_descriptors, descriptors)
    seen = np.array([pixels[m.trainIdx] for m in matches])
    there = np.array([query_pixels[m.queryIdx] for m in matches])
    depth = cv2.imread(str(folder / f"depth/frame-{mapping:06d}.png"), cv2.IMREAD_UNCHANGED)
    z = depth[seen[:, 1].astype(int), seen[:, 0].astype(int)] / 1000.0
    measured = (z > 0.1) & (z < 10)
    rays = np.column_stack([(seen - [320, 240]) / FOCAL_PX, np.ones(len(seen))])
    world_from_cam = np.loadtxt(folder / f"poses/frame-{mapping:06d}.txt")
    world = (rays * z[:, None]) @ world_from_cam[:3, :3].T + world_from_cam[:3, 3]
    return world[measured][:LARGEST], there[measured][:LARGEST]


@pytest.fixture(scope="module")
def queries(real_data) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """World points, pixels and true camera-to-world matrix of each query."""
    folder = real_data / "redkitchen"
    if not (folder / "depth").is_dir():
        pytest.skip("the redkitchen set is not among the real image sets here")
    truth = [np.loadtxt(folder / f"poses/frame-{query:06d}.txt")[:3] for _, query in PAIRS]
    return [(*correspondences(folder, *pair), pose) for pair, pose in zip(PAIRS, truth, strict=True)]


@pytest.fixture(scope="module")
def poselib_poses(queries) -> torch.Tensor:
    camera = {"model": "SIMPLE_PINHOLE", "width": 640, "height": 480, "params": [FOCAL_PX, 320, 240]}
    options = {"max_reproj_error": 10.0}
    poses = [
        poselib.estimate_absolute_pose(there, world, camera, options, {})[0] for world, there, _ in queries
    ]
    return torch.tensor(np.array([np.column_stack([pose.R, pose.t]) for pose in poses]))


@pytest.mark.parametrize("preset", ["fast", "balanced", "robust"])
def test_registers_real_frames_as_well_as_poselib(queries, poselib_poses, device, preset):
    """Mean errors, on images of different numbers of matches that are padded to one batch."""
    points, pixels = torch.zeros(len(queries), LARGEST, 3), torch.zeros(len(queries), LARGEST, 2)
    mask = torch.zeros(len(queries), LARGEST, dtype=torch.bool)
    for i, (world, there, _) in enumerate(queries):
        points[i, : len(world)], pixels[i, : len(world)] = torch.from_numpy(world), torch.from_numpy(there)
        mask[i, : len(world)] = True
    camera = PinholeCamera.centred(FOCAL_PX, 640, 480, device=device)
    config = getattr(RansacConfig, preset)()
    result = estimate_absolute_pose(
        points.to(device), pixels.to(device), camera, config, mask=mask.to(device)
    )
    assert (result.status == PoseStatus.OK).all()

    cam_from_world = invert(torch.tensor(np.array([pose for _, _, pose in queries])))

    def mean_errors(estimate: torch.Tensor) -> tuple[float, float]:
        distance = (camera_centres(estimate) - camera_centres(cam_from_world)).norm(dim=-1)
        angle = rotation_angle_deg(estimate[..., :3], cam_from_world[..., :3])
        return distance.mean().item(), angle.mean().item()

    our_m, our_deg = mean_errors(matrix_from_se3(result.cam_from_world).double().cpu())
    their_m, their_deg = mean_errors(poselib_poses)
    assert our_m < 1.05 * their_m
    assert our_deg < 1.05 * their_deg
