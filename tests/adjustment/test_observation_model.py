"""Predicted pixels against OpenCV, and their derivatives against finite differences of what a step does."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from adjustment_scenes import make_scene

from acezero_gpu.adjustment.observation_model import Estimate, intrinsic_columns, predict, prediction_jacobian
from acezero_gpu.geometry import PinholeCamera, retract


@pytest.fixture
def scene(generator):
    problem = make_scene(generator, radial=(0.12, -0.07))
    camera = PinholeCamera(torch.tensor([500.0, 430.0]).double(), torch.tensor([310.0, 250.0]).double())
    return replace(problem, camera=camera)


def estimate_of(problem) -> Estimate:
    return Estimate(problem.cam_from_world, problem.points, problem.camera, problem.radial)


def pixels_of(estimate, problem):
    return predict(estimate, problem.view_index, problem.point_index, torch.tensor(1e-3).double()).pixels


def test_pixels_are_those_of_opencv(scene):
    predicted = pixels_of(estimate_of(scene), scene)
    fx, fy = scene.camera.focal_px.tolist()
    cx, cy = scene.camera.principal_point_px.tolist()
    for view in range(len(scene.cam_from_world)):
        mine = scene.view_index == view
        pose = scene.cam_from_world[view].numpy()
        expected, _ = cv2.projectPoints(
            scene.points[scene.point_index[mine]].numpy(),
            cv2.Rodrigues(pose[:, :3])[0],
            pose[:, 3],
            np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]),
            np.array([*scene.radial.tolist(), 0.0, 0.0]),
        )
        torch.testing.assert_close(predicted[mine], torch.from_numpy(expected[:, 0]), rtol=0, atol=1e-6)


def moved(estimate, name, index, step):
    """The estimate after a step of one scalar parameter in all views or points at once."""
    delta = torch.zeros(6).double()
    if name == "pose":
        delta[index] = step
        return replace(
            estimate,
            cam_from_world=retract(estimate.cam_from_world, delta.expand(len(estimate.cam_from_world), 6)),
        )
    delta[index] = step
    if name == "point":
        return replace(estimate, points=estimate.points + delta[:3])
    camera = PinholeCamera(
        estimate.camera.focal_px * delta[0].exp(), estimate.camera.principal_point_px + delta[1:3]
    )
    return replace(estimate, camera=camera, radial=estimate.radial + delta[3:5])


def test_derivatives_are_finite_differences(scene):
    estimate = estimate_of(scene)
    prediction = predict(estimate, scene.view_index, scene.point_index, torch.tensor(1e-3).double())
    jacobians = prediction_jacobian(prediction, estimate, intrinsic_columns(True, True, True))
    step = 1e-6
    for name, jacobian in zip(("pose", "point", "intrinsics"), jacobians, strict=True):
        for index in range(jacobian.shape[-1]):
            ahead = pixels_of(moved(estimate, name, index, step), scene)
            behind = pixels_of(moved(estimate, name, index, -step), scene)
            torch.testing.assert_close(
                jacobian[..., index], (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-5
            )


def test_only_the_free_intrinsics_have_columns(scene):
    estimate = estimate_of(scene)
    prediction = predict(estimate, scene.view_index, scene.point_index, torch.tensor(1e-3).double())
    every = prediction_jacobian(prediction, estimate, [0, 1, 2, 3, 4])[2]
    assert intrinsic_columns(True, False, True) == [0, 3, 4]
    some = prediction_jacobian(prediction, estimate, [0, 3, 4])[2]
    torch.testing.assert_close(some, every[..., [0, 3, 4]])
    assert prediction_jacobian(prediction, estimate, [])[2].shape == (len(scene.pixels), 2, 0)


def test_points_behind_or_not_finite_stay_finite(scene, device):
    points = scene.points.clone()
    points[0] = torch.nan
    points[1] = -100 * scene.cam_from_world[0, 2, :3]
    estimate = replace(estimate_of(scene), points=points)
    estimate = Estimate(
        *(x.to(device) for x in (estimate.cam_from_world, points)),
        scene.camera.to(device),
        scene.radial.to(device),
    )
    view, point = torch.zeros(3, dtype=torch.long, device=device), torch.arange(3, device=device)
    prediction = predict(estimate, view, point, torch.tensor(1e-3, device=device).double())
    assert prediction.in_front.tolist() == [False, False, True]
    assert prediction.pixels.isfinite().all()
    for jacobian in prediction_jacobian(prediction, estimate, [0, 1, 2, 3, 4]):
        assert jacobian.isfinite().all()
