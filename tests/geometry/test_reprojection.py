"""Reprojection derivatives against finite differences, automatic differentiation and OpenCV."""

import cv2
import numpy as np
import pytest
import torch

from acezero_gpu.geometry import (
    PinholeCamera,
    project,
    reproject,
    reprojection_jacobian,
    retract,
    transform_points,
)


def scene(generator: torch.Generator, device: torch.device, batch: tuple[int, ...] = (3,), n: int = 6):
    poses = torch.eye(3, 4, dtype=torch.float64).expand(*batch, 3, 4)
    poses = retract(poses, 0.3 * torch.randn(*batch, 6, generator=generator, dtype=torch.float64)).to(device)
    points = torch.randn(*batch, n, 3, generator=generator, dtype=torch.float64).to(device)
    points[..., 2] += 6.0
    focal = torch.tensor([500.0, 530.0], dtype=torch.float64, device=device)
    return (
        poses,
        points,
        PinholeCamera(focal, torch.tensor([320.0, 240.0], dtype=torch.float64, device=device)),
    )


@pytest.mark.parametrize("batch", [(), (3,), (2, 2)], ids=str)
def test_jacobians_agree_with_central_differences(batch, device, generator):
    poses, points, camera = scene(generator, device, batch)
    points_cam = transform_points(poses, points)
    by_pose, by_point = reprojection_jacobian(points_cam, camera)
    step = 1e-6
    for column in range(6):
        delta = torch.zeros(*batch, 6, dtype=torch.float64, device=device)
        delta[..., column] = step
        ahead = reproject(points, retract(poses, delta), camera).pixels
        behind = reproject(points, retract(poses, -delta), camera).pixels
        torch.testing.assert_close(by_pose[..., column], (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-5)
    for column in range(3):
        offset = torch.zeros(3, dtype=torch.float64, device=device)
        offset[column] = step
        difference = project(points_cam + offset, camera) - project(points_cam - offset, camera)
        torch.testing.assert_close(by_point[..., column], difference / (2 * step), rtol=1e-6, atol=1e-5)


def test_jacobian_agrees_with_automatic_differentiation(generator):
    poses, points, camera = scene(generator, torch.device("cpu"), (), 4)

    def pixels(delta: torch.Tensor) -> torch.Tensor:
        return reproject(points, retract(poses, delta), camera).pixels

    automatic = torch.autograd.functional.jacobian(pixels, torch.zeros(6, dtype=torch.float64))
    by_pose, _ = reprojection_jacobian(transform_points(poses, points), camera)
    torch.testing.assert_close(by_pose, automatic)


def test_jacobian_agrees_with_opencv_at_the_identity(generator):
    # At R = I and t = 0 a rotation vector and a step in the camera frame are the same thing.
    _, points, camera = scene(generator, torch.device("cpu"), (), 5)
    matrix = np.array([[500.0, 0, 320], [0, 530, 240], [0, 0, 1]])
    _, jacobian = cv2.projectPoints(points.numpy(), np.zeros(3), np.zeros(3), matrix, None)
    by_pose, _ = reprojection_jacobian(points, camera)
    np.testing.assert_allclose(by_pose[..., 3:].reshape(-1, 3).numpy(), jacobian[:, :3], atol=1e-9)
    np.testing.assert_allclose(by_pose[..., :3].reshape(-1, 3).numpy(), jacobian[:, 3:6], atol=1e-9)


def test_points_behind_the_camera_stay_finite_and_are_told_by_their_depth(device, dtype):
    points = torch.tensor([[0.1, 0.2, -3.0], [0.1, 0.2, 0.0], [0.1, 0.2, 3.0]], device=device, dtype=dtype)
    camera = PinholeCamera.centred(500.0, 640, 480, device=device, dtype=dtype)
    identity = torch.eye(3, 4, device=device, dtype=dtype)
    seen = reproject(points, identity, camera)
    by_pose, by_point = reprojection_jacobian(points, camera)
    assert seen.pixels.isfinite().all() and by_pose.isfinite().all() and by_point.isfinite().all()
    assert seen.depth.tolist() == [-3.0, 0.0, 3.0]
    torch.testing.assert_close(seen.pixels[2], project(points[2:], camera)[0])


def test_the_nearest_depth_is_the_callers_choice():
    camera = PinholeCamera.centred(500.0, 640, 480)
    point = torch.tensor([[0.05, 0.0, 0.01]])
    assert project(point, camera, 0.1)[0, 0].item() == pytest.approx(500 * 0.5 + 320)
