"""The joint fit of centres and orientations against a general optimiser, and the score's thresholds."""

import math

import numpy as np
import pytest
import torch
from evaluation_trajectories import cameras_at, jittered, random_trajectory, rotations, straight_trajectory
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from acezero_gpu.evaluation import align_trajectory
from acezero_gpu.evaluation.similarity_ransac import SimilarityProblem, fit_cameras
from acezero_gpu.geometry import camera_centres


def joint_problem(generator: torch.Generator, *, with_scale: bool) -> SimilarityProblem:
    truth = straight_trajectory(generator, 12)
    estimate = jittered(generator, truth, 0.3, 4.0)
    turn = rotations(generator, 1)[0]
    return SimilarityProblem(
        source=0.5 * camera_centres(estimate) @ turn,
        target=camera_centres(truth),
        rotation=truth[..., :3].transpose(-1, -2) @ estimate[..., :3] @ turn,
        tolerance=0.2,
        rotation_tolerance_deg=5.0,
        with_scale=with_scale,
        use_orientations=True,
    )


@pytest.mark.parametrize("with_scale", [True, False])
def test_the_joint_fit_is_the_minimum_that_scipy_finds(with_scale, generator):
    problem = joint_problem(generator, with_scale=with_scale)
    weights = torch.rand(12, generator=generator, dtype=torch.float64)
    one = (problem.source[None], problem.target[None], problem.rotation[None], weights[None])
    found = fit_cameras(problem, *one)

    root = weights.sqrt().numpy()
    source, target, own = problem.source.numpy(), problem.target.numpy(), problem.rotation.numpy()
    tolerance_rad = math.radians(problem.rotation_tolerance_deg)

    def residuals(x: np.ndarray) -> np.ndarray:
        rotation = Rotation.from_rotvec(x[:3]).as_matrix()
        scale = x[6] if with_scale else 1.0
        position = root[:, None] * (target - scale * source @ rotation.T - x[3:6]) / problem.tolerance
        orientation = root[:, None, None] * (rotation - own) / (math.sqrt(2) * tolerance_rad)
        return np.concatenate([position.ravel(), orientation.ravel()])

    start = np.concatenate([Rotation.from_matrix(own[0]).as_rotvec(), np.zeros(3), [1.0]])
    best = least_squares(residuals, start, xtol=1e-14, ftol=1e-14, gtol=1e-14).x
    np.testing.assert_allclose(found.rotation[0], Rotation.from_rotvec(best[:3]).as_matrix(), atol=1e-5)
    np.testing.assert_allclose(found.translation[0], best[3:6], atol=1e-4)
    assert found.scale.item() == pytest.approx(best[6] if with_scale else 1.0, rel=1e-5)


@pytest.mark.parametrize(("angle_deg", "inlier"), [(4.9, True), (5.1, False)])
def test_an_orientation_counts_up_to_its_tolerance(angle_deg, inlier, generator):
    truth = random_trajectory(generator, 10)
    turned = truth[..., :3].clone()
    turn = Rotation.from_rotvec(math.radians(angle_deg) * np.array([0.6, 0.0, 0.8])).as_matrix()
    turned[3] = torch.from_numpy(turn) @ turned[3]
    found = align_trajectory(cameras_at(camera_centres(truth), turned), truth)
    assert found.inliers.tolist() == [i != 3 or inlier for i in range(10)]


@pytest.mark.parametrize(("share", "inlier"), [(0.0199, True), (0.0201, False)])
def test_a_position_counts_up_to_its_tolerance(share, inlier, generator):
    truth = random_trajectory(generator, 400)
    centres = camera_centres(truth)
    extent = 2 * (centres - centres.mean(0)).norm(dim=-1).max()
    near = int((centres - centres.mean(0)).norm(dim=-1).argmin())
    centres[near, 0] += share * extent
    found = align_trajectory(cameras_at(centres, truth[..., :3]), truth)
    # One camera of four hundred hardly moves the fit, so that its error is its own.
    assert bool(found.inliers[near]) is inlier
    assert found.inliers.sum() == 399 + inlier
