"""Robust losses and Levenberg-Marquardt against finite differences, geometry, OpenCV, PoseLib and scipy."""

import cv2
import numpy as np
import poselib
import pytest
import torch
from reference.posed_scene import make_scene
from scipy.optimize import least_squares

from acezero_gpu.geometry import (
    PinholeCamera,
    compose,
    reproject,
    reprojection_jacobian,
    retract,
    transform_points,
)
from acezero_gpu.pnp import ROBUST_LOSSES, PoseStatus, RefinementConfig, refine_absolute_pose, robust_loss
from acezero_gpu.pnp.levenberg_marquardt import (
    _PLACES,
    ReprojectionProblem,
    _fused_sums,
    _linearise,
    small_motion,
)


def noisy_problem(batch=6, n=(6, 8), size=0.05, **kwargs):
    scene = make_scene(batch, rows=n[0], columns=n[1], noise_px=2.0, dtype=torch.float64, **kwargs)
    g = torch.Generator().manual_seed(9)
    start = retract(scene.cam_from_world, size * torch.randn(batch, 6, generator=g, dtype=torch.float64))
    return scene, start


def rows_of(scene, weights):
    points = scene.points.transpose(1, 2)
    points_h = torch.cat([points, torch.ones_like(points[:, :1])], dim=1)
    pixels = scene.pixels.T.expand(len(points), 2, -1)
    return ReprojectionProblem(points_h, pixels, weights, scene.camera)


@pytest.mark.parametrize("name", ROBUST_LOSSES)
def test_weight_is_the_derivative_of_the_loss(name):
    pair = robust_loss(name)
    squared = torch.linspace(0.01, 30, 400, dtype=torch.float64)
    squared = squared[(squared - 9).abs() > 0.1]  # the kink of the truncated loss
    step = 1e-5
    slope = (pair.loss(squared + step, 3.0) - pair.loss(squared - step, 3.0)) / (2 * step)
    assert torch.allclose(pair.weight(squared, 3.0), slope, atol=1e-7)
    tiny = torch.tensor([1e-8], dtype=torch.float64)
    assert torch.allclose(pair.loss(tiny, 3.0), tiny, rtol=1e-6)
    per_item = pair.loss(squared, torch.full_like(squared, 3.0))
    assert torch.allclose(per_item, pair.loss(squared, 3.0))


def test_unknown_loss_is_named():
    with pytest.raises(ValueError, match="choose one of squared"):
        robust_loss("cosine")


@pytest.mark.parametrize("name", ["squared", "cauchy", "huber", "tukey"])
def test_gradient_by_finite_differences(name):
    scene, start = noisy_problem(3)
    problem, scale = (
        rows_of(scene, torch.ones(scene.points.shape[:2], dtype=torch.float64)),
        torch.tensor([30.0]),
    )
    state = _linearise(problem, start, name, scale)
    step = 1e-6
    for k in range(6):
        delta = torch.zeros(3, 6, dtype=torch.float64)
        delta[:, k] = step
        slope = (
            _linearise(problem, retract(start, delta), name, scale).cost
            - _linearise(problem, retract(start, -delta), name, scale).cost
        ) / (2 * step)
        assert torch.allclose(2 * state.gradient[:, k, 0], slope, rtol=1e-4, atol=1e-2)


def test_normal_matrix_is_that_of_the_geometry_jacobian():
    scene, start = noisy_problem(4)
    weights = torch.rand(scene.points.shape[:2], dtype=torch.float64)
    state = _linearise(rows_of(scene, weights), start, "squared", torch.tensor([1.0]))
    jacobian, _ = reprojection_jacobian(transform_points(start, scene.points), scene.camera)
    residual = reproject(scene.points, start, scene.camera).pixels - scene.pixels
    assert torch.allclose(state.normal, torch.einsum("bn,bnij,bnik->bjk", weights, jacobian, jacobian))
    assert torch.allclose(
        state.gradient[..., 0], torch.einsum("bn,bnij,bni->bj", weights, jacobian, residual)
    )


@pytest.mark.parametrize("name", ROBUST_LOSSES)
def test_sums_of_one_pass_equal_the_products(name, dtype):
    scene = make_scene(3, outliers=0.3, noise_px=4.0, rows=6, columns=8, dtype=dtype)
    turned_round = torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0], dtype=dtype))[:3]
    pose = scene.cam_from_world.to(dtype).clone()
    pose[2] = compose(turned_round, pose[2])  # looks away
    problem, scale = rows_of(scene, torch.rand(3, 48, dtype=dtype)), torch.full((3, 1), 8.0, dtype=dtype)
    expected = _linearise(problem, pose, name, scale)
    focal, principal = scene.camera.focal_px.expand(3, 2), scene.camera.principal_point_px.expand(3, 2)
    cost, sums = _fused_sums(
        problem.points_h, problem.pixels, problem.weights, focal, principal, pose, scale, name
    )
    torch.testing.assert_close(cost, expected.cost)
    # Sums in another order, of terms that cancel: another processor rounds them differently.
    close = {"rtol": 1e-5, "atol": 5e-5 if dtype == torch.float32 else 1e-12}
    size = expected.normal.abs().amax()
    torch.testing.assert_close(sums[:, _PLACES].view(3, 6, 6) / size, expected.normal / size, **close)
    size = expected.gradient.abs().amax().clamp_min(1)
    torch.testing.assert_close(sums[:, 21:, None] / size, expected.gradient / size, **close)


def test_small_motion_is_a_rotation_and_agrees_with_retract_to_second_order():
    g = torch.Generator().manual_seed(0)
    delta = torch.randn(50, 6, generator=g, dtype=torch.float64)
    identity = torch.eye(3, 4, dtype=torch.float64).expand(50, 3, 4)
    rotation = small_motion(10 * delta)[..., :3]
    assert torch.allclose(rotation @ rotation.mT, torch.eye(3, dtype=torch.float64).expand(50, 3, 3))
    for size in (1e-2, 1e-3):
        difference = (small_motion(size * delta) - retract(identity, size * delta)).abs().max()
        assert difference < 20 * size**3
    assert torch.equal(small_motion(torch.zeros(6)), torch.eye(3, 4))


def camera_dict(camera: PinholeCamera) -> dict:
    params = [*camera.focal_px.tolist(), *camera.principal_point_px.tolist()]
    return {"model": "PINHOLE", "width": 640, "height": 480, "params": params}


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
def test_same_optimum_as_opencv(device, precision):
    scene, start = noisy_problem()
    refined = refine_absolute_pose(
        scene.points.to(device, precision),
        scene.pixels.to(device, precision),
        scene.camera.to(device, precision),
        start.to(device, precision),
    )
    assert (refined.status == PoseStatus.OK).all()
    matrix = np.array([[525.0, 0, 322], [0, 515, 239], [0, 0, 1]])
    criteria = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 50, 1e-12)
    for i in range(len(start)):
        rotation = cv2.Rodrigues(start[i, :, :3].numpy())[0]
        theirs = cv2.solvePnPRefineLM(
            scene.points[i].numpy(),
            scene.pixels.numpy(),
            matrix,
            None,
            rotation,
            start[i, :, 3:].numpy().copy(),
            criteria,
        )
        pose = np.concatenate([cv2.Rodrigues(theirs[0])[0], theirs[1]], axis=1)
        difference = np.abs(refined.cam_from_world[i].cpu().double().numpy() - pose).max()
        assert difference < (2e-5 if precision == torch.float32 else 1e-7)


@pytest.mark.parametrize(
    ("ours", "theirs"), [("squared", "TRIVIAL"), ("huber", "HUBER"), ("cauchy", "CAUCHY")]
)
def test_same_optimum_as_poselib(ours, theirs):
    scene, start = noisy_problem(heavy_tails=True, size=0.01)
    config = RefinementConfig(iterations=60, loss=ours, loss_scale_px=2.0)
    refined = refine_absolute_pose(scene.points, scene.pixels, scene.camera, start, config)
    for i in range(len(start)):
        initial = poselib.CameraPose()
        initial.R, initial.t = start[i, :, :3].numpy(), start[i, :, 3].numpy()
        options = {"loss_type": theirs, "loss_scale": 2.0, "max_iterations": 200}
        pose, _ = poselib.refine_absolute_pose(
            scene.pixels.numpy(), scene.points[i].numpy(), initial, camera_dict(scene.camera), options
        )
        expected = np.concatenate([pose.R, pose.t[:, None]], axis=1)
        assert np.abs(refined.cam_from_world[i].numpy() - expected).max() < 2e-5


def test_covariance_matches_scipy():
    """The normal matrix at the optimum is that of scipy's Jacobian of the whitened residuals."""
    scene, start = noisy_problem(1)
    refined = refine_absolute_pose(
        scene.points, scene.pixels, scene.camera, start, RefinementConfig(iterations=30)
    )
    optimum = refined.cam_from_world

    def residual(delta: np.ndarray) -> np.ndarray:
        pose = retract(optimum, torch.from_numpy(delta)[None])
        return (reproject(scene.points, pose, scene.camera).pixels - scene.pixels).flatten().numpy()

    solution = least_squares(residual, np.zeros(6), method="lm")
    assert np.abs(solution.x).max() < 1e-6
    assert np.allclose(refined.normal_matrix[0].numpy(), solution.jac.T @ solution.jac, rtol=1e-4, atol=1e-2)
    assert np.allclose(refined.cost.item(), 2 * solution.cost)


def test_weights_select_points_and_hide_what_is_not_finite():
    scene, start = noisy_problem(4)
    keep = torch.rand(scene.points.shape[:2], generator=torch.Generator().manual_seed(1)) < 0.6
    spoilt = torch.where(keep[..., None], scene.points, torch.nan)
    masked = refine_absolute_pose(spoilt, scene.pixels, scene.camera, start, weights=keep)
    for i in range(4):
        alone = refine_absolute_pose(scene.points[i][keep[i]], scene.pixels[keep[i]], scene.camera, start[i])
        assert torch.allclose(masked.cam_from_world[i], alone.cam_from_world, atol=1e-9)


def test_cost_never_rises_and_points_behind_do_not_break_it():
    scene, start = noisy_problem(16, size=1.5)
    before = refine_absolute_pose(
        scene.points, scene.pixels, scene.camera, start, RefinementConfig(iterations=0)
    )
    after = refine_absolute_pose(scene.points, scene.pixels, scene.camera, start)
    assert (after.cost <= before.cost).all()
    assert after.cam_from_world.isfinite().all()


def test_hopeless_problems_are_reported_and_disturb_nobody():
    scene, start = noisy_problem(6)
    clean = refine_absolute_pose(scene.points, scene.pixels, scene.camera, start)
    points, weights = scene.points.clone(), torch.ones(scene.points.shape[:2], dtype=torch.float64)
    points[1], points[2], weights[3] = torch.nan, points[2, :1].clone(), 0
    weights[4, 2:] = 0
    result = refine_absolute_pose(points, scene.pixels, scene.camera, start, weights=weights)
    assert result.status.tolist() == [PoseStatus.OK, *[PoseStatus.NOT_REFINED] * 4, PoseStatus.OK]
    assert torch.equal(result.cam_from_world[1:5], start[1:5])
    assert torch.equal(result.cam_from_world[[0, 5]], clean.cam_from_world[[0, 5]])


def test_batch_equals_loop_with_broadcasting(device):
    scene, start = noisy_problem(3)
    start = start.to(device)
    shared = scene.points[0].to(device)
    pixels, camera = scene.pixels.to(device), scene.camera.to(device)
    whole = refine_absolute_pose(shared, pixels, camera, start[None].expand(2, 3, 3, 4))
    for i in range(3):
        one = refine_absolute_pose(shared, pixels, camera, start[i])
        assert torch.allclose(whole.cam_from_world[1, i], one.cam_from_world, atol=1e-9)


def test_every_status_has_its_sentence():
    assert all(status.sentence.endswith(".") for status in PoseStatus)
    assert len({status.sentence for status in PoseStatus}) == len(PoseStatus)
    assert PoseStatus(0) is PoseStatus.OK
