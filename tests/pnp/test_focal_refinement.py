"""Pose and focal length together: finite differences, scipy's optimum and covariance, failures, isolation."""

import math
from itertools import pairwise

import numpy as np
import pycolmap
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.posed_scene import make_scene
from scipy.optimize import least_squares

from acezero_gpu.geometry import PinholeCamera, reproject, reprojection_jacobian, retract, transform_points
from acezero_gpu.pnp import PoseStatus, RefinementConfig
from acezero_gpu.pnp.focal_refinement import _linearise, _problem, refine_pose_and_focal

FOCAL, PRINCIPAL = 525.0, (322.0, 239.0)
LONG = RefinementConfig(iterations=30)


def noisy_problem(batch=6, n=(6, 8), size=0.05, noise_px=2.0, **kwargs):
    """Points, pixels, principal point, a wrong pose and a wrong focal length for each problem; the truth."""
    scene = make_scene(batch, rows=n[0], columns=n[1], noise_px=0.0, dtype=torch.float64, **kwargs)
    g = torch.Generator().manual_seed(9)
    principal = torch.tensor(PRINCIPAL, dtype=torch.float64)
    camera = PinholeCamera(torch.full((2,), FOCAL, dtype=torch.float64), principal)
    pixels = reproject(scene.points, scene.cam_from_world, camera).pixels
    pixels = pixels + noise_px * torch.randn(pixels.shape, generator=g, dtype=torch.float64)
    start = retract(scene.cam_from_world, size * torch.randn(batch, 6, generator=g, dtype=torch.float64))
    focal = FOCAL * (1 + 2 * size * torch.randn(batch, generator=g, dtype=torch.float64))
    return scene.points, pixels, principal, start, focal, scene.cam_from_world


def square(focal, principal) -> PinholeCamera:
    return PinholeCamera(torch.stack([focal, focal], dim=-1), principal.expand(*focal.shape, 2))


def moved(pose, focal, delta):
    """After the step ``(translation, rotation, log focal)`` that the normal matrix refers to."""
    return retract(pose, delta[..., :6]), focal * delta[..., 6].exp()


@pytest.mark.parametrize("name", ["squared", "cauchy", "huber", "tukey"])
def test_gradient_by_finite_differences(name):
    points, pixels, principal, pose, focal, _ = noisy_problem(3)
    config = RefinementConfig(loss=name, loss_scale_px=30.0)
    problem = _problem(points, pixels, principal, pose.shape[:-2], config, None, None)
    state = _linearise(problem, pose, focal)
    step = 1e-6
    for k in range(7):
        delta = torch.zeros(3, 7, dtype=torch.float64)
        delta[:, k] = step
        if k == 6:  # this step moves the camera as well
            delta[:, 2] = step * state.pivot
        ahead, behind = (_linearise(problem, *moved(pose, focal, s)).cost for s in (delta, -delta))
        slope = (ahead - behind) / (2 * step)
        assert torch.allclose(2 * state.gradient[:, k, 0], slope, rtol=1e-4, atol=1e-2)


def test_the_step_of_the_focal_length_is_uncorrelated_with_the_distance():
    points, pixels, principal, pose, focal, _ = noisy_problem(4)
    problem = _problem(points, pixels, principal, pose.shape[:-2], RefinementConfig(), None, None)
    normal = _linearise(problem, pose, focal).normal
    correlation = normal[:, 2, 6] / (normal[:, 2, 2] * normal[:, 6, 6]).sqrt()
    assert correlation.abs().max() < 1e-12


def test_normal_matrix_is_that_of_the_plain_step():
    points, pixels, principal, pose, focal, _ = noisy_problem(4)
    g = torch.Generator().manual_seed(1)
    weights = torch.rand(points.shape[:2], generator=g, dtype=torch.float64)
    result = refine_pose_and_focal(
        points, pixels, principal, pose, focal, RefinementConfig(iterations=0), weights=weights
    )
    camera = square(focal, principal)
    by_pose, _ = reprojection_jacobian(transform_points(pose, points), camera)
    by_focal = reproject(points, pose, camera).pixels - principal
    jacobian = torch.cat([by_pose, by_focal[..., None]], dim=-1)
    expected = torch.einsum("bn,bnij,bnik->bjk", weights, jacobian, jacobian)
    assert torch.allclose(result.normal_matrix, expected, rtol=1e-9, atol=1e-6)
    variance = torch.linalg.inv(expected)[:, 6, 6]
    assert torch.allclose(result.focal_information, 1 / variance, rtol=1e-6)


def test_optimum_and_covariance_are_those_of_scipy():
    points, pixels, principal, start, focal, _ = noisy_problem(3)
    result = refine_pose_and_focal(points, pixels, principal, start, focal, LONG)
    assert (result.status == PoseStatus.OK).all()
    for i in range(3):

        def residual(delta: np.ndarray, i: int = i) -> np.ndarray:
            pose, f = moved(result.cam_from_world[i], result.focal_px[i], torch.from_numpy(delta))
            return (reproject(points[i], pose, square(f, principal)).pixels - pixels[i]).flatten().numpy()

        solution = least_squares(residual, np.zeros(7), method="lm")
        assert np.abs(solution.x).max() < 1e-6
        assert np.allclose(result.cost[i].item(), 2 * solution.cost)
        normal = solution.jac.T @ solution.jac
        assert np.allclose(result.normal_matrix[i].numpy(), normal, rtol=1e-4, atol=1.0)
        variance = np.linalg.inv(normal)[6, 6]
        assert np.isclose(result.focal_information[i].item(), 1 / variance, rtol=1e-3)


def test_same_optimum_as_colmap_with_a_robust_loss():
    points, pixels, principal, start, focal, _ = noisy_problem(4, size=0.02)
    pixels = torch.where(torch.arange(48)[None, :, None] % 6 > 0, pixels, pixels + 60.0)
    config = RefinementConfig(iterations=60, loss="cauchy", loss_scale_px=2.0)
    result = refine_pose_and_focal(points, pixels, principal, start, focal, config)
    options = pycolmap.AbsolutePoseRefinementOptions()
    options.refine_focal_length = True
    options.loss_function_scale = 2.0
    options.gradient_tolerance = 1e-10
    for i in range(4):
        params = [focal[i].item(), *PRINCIPAL]
        camera = pycolmap.Camera(model="SIMPLE_PINHOLE", width=640, height=480, params=params)
        theirs = pycolmap.refine_absolute_pose(
            pycolmap.Rigid3d(start[i].numpy()),
            pixels[i].numpy(),
            points[i].numpy(),
            np.ones(48, dtype=bool),
            camera,
            options,
        )
        assert abs(camera.params[0] / result.focal_px[i].item() - 1) < 2e-4
        difference = np.abs(theirs["cam_from_world"].matrix() - result.cam_from_world[i].numpy())
        assert difference.max() < 1e-3


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_exact_points_give_the_exact_pose_and_focal_length(device, precision):
    problem = noisy_problem(8, noise_px=0.0)
    points, pixels, principal, start, focal = (x.to(device, precision) for x in problem[:5])
    result = refine_pose_and_focal(points, pixels, principal, start, focal)
    assert result.focal_px.dtype == precision
    small = 1e-4 if precision == torch.float32 else 1e-10
    assert (result.focal_px / FOCAL - 1).abs().max() < small
    assert (result.cam_from_world.cpu().double() - problem[5]).abs().max() < small


def test_predicted_deviation_of_the_focal_length_is_the_observed_one():
    """Over 400 problems the errors are normal with the deviation that ``focal_information`` gives."""
    points, pixels, principal, start, focal, _ = noisy_problem(400, size=0.01)
    result = refine_pose_and_focal(points, pixels, principal, start, focal)
    variance = result.cost / (2 * points.shape[1] - 7) / result.focal_information
    normalised = (result.focal_px / FOCAL).log() / variance.sqrt()
    assert 0.9 < normalised.std() < 1.1  # three deviations of the estimate: 0.11
    assert normalised.mean().abs() < 0.2


def test_single_precision_suffices_far_away():
    """A view of things 100 times farther away than they are deep: pose and zoom differ in the last digits."""
    g = torch.Generator().manual_seed(0)
    depth = 200 + 2 * torch.rand(50, 400, 1, generator=g, dtype=torch.float64)
    pixels = torch.rand(50, 400, 2, generator=g, dtype=torch.float64) * torch.tensor([640.0, 480.0])
    principal = torch.tensor(PRINCIPAL, dtype=torch.float64)
    focal = torch.full((50,), 5000.0, dtype=torch.float64)
    points = torch.cat([square(focal, principal).normalised(pixels), torch.ones_like(depth)], -1) * depth
    points = points - torch.tensor([0.0, 0.0, 200.0])
    pixels = pixels + 0.03 * torch.randn(pixels.shape, generator=g, dtype=torch.float64)
    pose = torch.eye(3, 4, dtype=torch.float64).repeat(50, 1, 1)
    pose[:, 2, 3] = 200.0
    exact = refine_pose_and_focal(points, pixels, principal, pose, 1.02 * focal, LONG)
    rounded = [x.float() for x in (points, pixels, principal, pose, 1.02 * focal)]
    result = refine_pose_and_focal(*rounded, LONG)
    deviation = (exact.cost / 793 / exact.focal_information).sqrt()
    assert (result.status == PoseStatus.OK).all()
    assert ((result.focal_px / exact.focal_px).log().abs() < deviation).all()
    assert torch.allclose(result.focal_information.double(), exact.focal_information, rtol=0.05)


@given(seed=st.integers(0, 1000), zoom=st.floats(0.1, 10.0), scale=st.floats(0.01, 100.0))
@settings(max_examples=15, deadline=None)
def test_scaling_the_image_or_the_world_scales_the_result(seed, zoom, scale):
    points, pixels, principal, start, focal, _ = noisy_problem(1, seed=seed, size=0.02)
    once = refine_pose_and_focal(points, pixels, principal, start, focal, LONG)
    larger = torch.cat([start[..., :3], start[..., 3:] * scale], dim=-1)
    again = refine_pose_and_focal(points * scale, pixels * zoom, principal * zoom, larger, focal * zoom, LONG)
    assert torch.allclose(again.focal_px, once.focal_px * zoom, rtol=1e-7)
    assert torch.allclose(
        again.cam_from_world[..., 3], once.cam_from_world[..., 3] * scale, rtol=1e-6, atol=1e-6
    )
    assert torch.allclose(again.cost, once.cost * zoom**2)


def test_cost_never_rises_and_weights_hide_what_is_not_finite():
    points, pixels, principal, start, _, _ = noisy_problem(16, size=0.7)
    focal = torch.full((16,), 100.0, dtype=torch.float64)
    results = [
        refine_pose_and_focal(points, pixels, principal, start, focal, RefinementConfig(iterations=k))
        for k in range(8)
    ]
    for before, after in pairwise(results):
        assert (after.cost <= before.cost).all()
        assert after.cam_from_world.isfinite().all()
        assert (after.focal_px > 0).all()
    keep = torch.rand(points.shape[:2], generator=torch.Generator().manual_seed(1)) < 0.6
    points, pixels, principal, start, focal, _ = noisy_problem(4)
    spoilt = torch.where(keep[:4, :, None], points, torch.nan)
    masked = refine_pose_and_focal(spoilt, pixels, principal, start, focal, weights=keep[:4])
    for i in range(4):
        chosen = keep[i]
        alone = refine_pose_and_focal(points[i][chosen], pixels[i][chosen], principal, start[i], focal[i])
        assert torch.allclose(masked.focal_px[i], alone.focal_px, rtol=1e-9)


def test_points_behind_the_camera_pull_nowhere():
    points, pixels, principal, start, focal, pose = noisy_problem(4, noise_px=0.0, size=0.02)
    behind = transform_points(pose, points)[:, :9] * torch.tensor([1.0, 1.0, -1.0])
    behind = (behind - pose[:, None, :, 3]) @ pose[..., :3]
    points, pixels = torch.cat([points, behind], dim=1), torch.cat([pixels, pixels[:, :9]], dim=1)
    result = refine_pose_and_focal(points, pixels, principal, start, focal)
    assert (result.focal_px / FOCAL - 1).abs().max() < 1e-9
    assert torch.allclose(result.cost, torch.full_like(result.cost, 9 * 1e8))  # but a step behind costs much


def test_hopeless_problems_are_reported_and_disturb_nobody():
    points, pixels, principal, start, focal, _ = noisy_problem(10, noise_px=1.0)
    clean = refine_pose_and_focal(points, pixels, principal, start, focal)
    points, focal, start = points.clone(), focal.clone(), start.clone()
    weights = torch.ones(points.shape[:2], dtype=torch.float64)
    points[1], points[2] = torch.nan, points[2, :1].clone()
    weights[3] = 0
    weights[4, 3:] = 0
    focal[5], focal[6], focal[8] = math.nan, 0.0, -FOCAL
    start[7, :, 3] = transform_points(start[7], -points[7]).mean(0) - 50.0  # all behind the camera
    result = refine_pose_and_focal(points, pixels, principal, start, focal, weights=weights)
    bad = [*range(1, 9)]
    assert result.status.tolist() == [PoseStatus.OK, *[PoseStatus.NOT_REFINED] * 8, PoseStatus.OK]
    assert torch.equal(result.cam_from_world[bad], start[bad])
    assert torch.equal(result.focal_px[[1, 2, 3, 4, 6, 7, 8]], focal[[1, 2, 3, 4, 6, 7, 8]])
    assert (result.focal_information[bad] == 0).all()
    for field in ("cam_from_world", "focal_px", "cost", "normal_matrix", "focal_information"):
        assert torch.equal(getattr(result, field)[[0, 9]], getattr(clean, field)[[0, 9]])


def test_a_plane_that_faces_the_camera_tells_no_focal_length():
    points, pixels, principal, _, focal, pose = noisy_problem(4)
    facing = torch.cat([pixels - principal, torch.full_like(pixels[..., :1], FOCAL)], dim=-1) / 100
    identity = torch.eye(3, 4, dtype=torch.float64).expand_as(pose)
    start = torch.full((4,), FOCAL, dtype=torch.float64)
    plane = refine_pose_and_focal(facing, pixels, principal, identity, start)
    space = refine_pose_and_focal(points, pixels, principal, pose, focal)
    assert (plane.focal_information < 1e-6 * space.focal_information).all()


def test_batch_equals_loop_with_broadcasting(device):
    problem = noisy_problem(3)[:5]
    points, pixels, principal, start, focal = (x.to(device) for x in problem)
    whole = refine_pose_and_focal(
        points[0], pixels[0], principal, start[None].expand(2, 3, 3, 4), focal, loss_scale_px=focal / 100
    )
    for i in range(3):
        one = refine_pose_and_focal(points[0], pixels[0], principal, start[i], focal[i])
        assert torch.allclose(whole.cam_from_world[1, i], one.cam_from_world, atol=1e-9)
        assert torch.allclose(whole.focal_px[1, i], one.focal_px, rtol=1e-9)


def test_nothing_waits_for_the_device():
    """Tensors without data refuse ``item``, ``nonzero`` and boolean indexing, all that would synchronise."""
    shapes = (3, 50, 3), (3, 50, 2), (2,), (3, 3, 4), (3,)
    result = refine_pose_and_focal(*(torch.zeros(shape, device="meta") for shape in shapes))
    assert result.focal_px.shape == (3,)
