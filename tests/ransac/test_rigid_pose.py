"""RGB-D poses: exact truth, scipy and COLMAP, outliers, and the parts of the search."""

from dataclasses import replace

import numpy as np
import pycolmap
import pytest
import torch
from reference.depth_scenes import SMALL, depth_scene, pose_errors
from scipy.spatial.transform import Rotation

from acezero_gpu.geometry import camera_centres, fit_similarity, matrix_from_se3, retract, transform_points
from acezero_gpu.pnp import PoseStatus
from acezero_gpu.ransac.rigid_pose import consistent_hypotheses, estimate_rigid_pose, refit_rigid_pose


@pytest.mark.parametrize("flat", [False, True], ids=["deep", "plane"])
def test_exact_points_give_the_exact_pose(device, dtype, flat):
    points, points_cam, pose, _ = depth_scene(4, outliers=0.3, flat=flat, dtype=dtype, device=device)
    result = estimate_rigid_pose(points, points_cam, SMALL)
    assert (result.status == PoseStatus.OK).all()
    assert result.camera is None
    difference = (matrix_from_se3(result.cam_from_world).cpu().double() - pose).abs().max()
    assert difference < (2e-5 if dtype == torch.float32 else 1e-12)


@pytest.mark.parametrize(("outliers", "least"), [(0.3, 60), (0.6, 60), (0.8, 59)])
def test_outliers_are_borne_and_the_pose_is_that_of_scipy_on_the_true_inliers(device, outliers, least):
    points, points_cam, pose, outlier = depth_scene(60, 500, outliers=outliers, noise=0.02, device=device)
    result = estimate_rigid_pose(points, points_cam)
    rotation_deg, distance = pose_errors(result, pose)
    assert ((rotation_deg < 1) & (distance < 0.05)).sum() >= least
    theirs = []
    for i in range(60):
        world, cam = points[i].double().cpu().numpy(), points_cam[i].double().cpu().numpy()
        world, cam = world[~outlier[i].numpy()], cam[~outlier[i].numpy()]
        turn, _ = Rotation.align_vectors(cam - cam.mean(0), world - world.mean(0))
        r = turn.as_matrix()
        theirs.append(np.column_stack([r, cam.mean(0) - r @ world.mean(0)]))
    best = (camera_centres(torch.from_numpy(np.stack(theirs))) - camera_centres(pose)).norm(dim=-1)
    assert distance.median() < 1.05 * best.median()


def test_as_accurate_as_colmap():
    points, points_cam, pose, _ = depth_scene(20, outliers=0.5, noise=0.02, seed=3)
    options = pycolmap.RANSACOptions()
    options.max_error = 0.1
    theirs = []
    for world, cam in zip(points.double().numpy(), points_cam.double().numpy(), strict=True):
        theirs.append(pycolmap.estimate_rigid3d_robust(world, cam, options)["tgt_from_src"].matrix())
    best = (camera_centres(torch.from_numpy(np.stack(theirs))) - camera_centres(pose)).norm(dim=-1)
    _, distance = pose_errors(estimate_rigid_pose(points, points_cam), pose)
    assert distance.median() < 1.05 * best.median()


@pytest.mark.parametrize("score", ["soft", "count", "msac"])
def test_result_counts_at_the_returned_pose(device, dtype, score):
    points, points_cam, _, outlier = depth_scene(3, outliers=0.4, noise=0.03, dtype=dtype, device=device)
    result = estimate_rigid_pose(points, points_cam, replace(SMALL, score=score))
    moved = transform_points(matrix_from_se3(result.cam_from_world), points)
    error = (moved - points_cam).norm(dim=-1)
    undecided = (error - 0.1).abs() < 1e-4
    assert torch.equal(result.inliers & ~undecided, (error < 0.1) & ~undecided)
    assert torch.equal(result.inlier_count, result.inliers.sum(-1))
    expected = {
        "soft": (5 * (0.1 - error) / 0.1).sigmoid(),
        "count": error < 0.1,
        "msac": (1 - (error / 0.1) ** 2).clamp_min(0),
    }[score].sum(-1)
    assert torch.allclose(result.score, expected.to(dtype), rtol=1e-3, atol=1.01 if score == "count" else 0)
    truth = ~outlier.to(device)
    assert ((result.inliers & truth).sum(-1) > 0.98 * truth.sum(-1)).all()
    assert (result.inlier_count < 1.1 * truth.sum(-1)).all()


def test_the_refit_is_kabsch_with_weights():
    points, points_cam, pose, _ = depth_scene(50, 20, noise=0.3, dtype=torch.float64)
    g = torch.Generator().manual_seed(1)
    weights = torch.rand(50, 20, generator=g, dtype=torch.float64)
    start = retract(pose, 0.2 * torch.randn(50, 6, generator=g, dtype=torch.float64))
    refit = refit_rigid_pose(points, points_cam, weights, start)
    kabsch = fit_similarity(points, points_cam, weights, with_scale=False)
    expected = torch.cat([kabsch.rotation, kabsch.translation[..., None]], dim=-1)
    assert (refit - expected).abs().max() < 1e-9


def test_the_refit_never_moves_away_nor_breaks():
    """Starts anywhere, a mirrored set, points on a line and no points at all."""
    g = torch.Generator().manual_seed(2)
    points, points_cam, pose, _ = depth_scene(200, 20, noise=0.1, dtype=torch.float64)
    points_cam[50:100, :, 0] *= -1
    points[100:150] = points[100:150, :1] * torch.rand(50, 20, 1, generator=g, dtype=torch.float64)
    weights = torch.ones(200, 20, dtype=torch.float64)
    weights[150:] = 0
    turned = retract(pose, 2 * torch.randn(200, 6, generator=g, dtype=torch.float64))[..., :3]
    best_translation = points_cam.mean(1)[..., None] - turned @ points.mean(1)[..., None]
    start = torch.cat([turned, best_translation], dim=-1)
    refit = refit_rigid_pose(points, points_cam, weights, start)

    def cost(estimate):
        moved = transform_points(estimate, points)
        return (weights * (moved - points_cam).square().sum(-1)).sum(-1)

    assert (cost(refit) <= cost(start) + 1e-12).all()
    eye = torch.eye(3, dtype=torch.float64).expand(200, 3, 3)
    assert torch.allclose(refit[..., :3] @ refit[..., :3].mT, eye)
    assert torch.equal(refit[150:], start[150:])


def test_weights_are_those_of_the_least_squares():
    points, points_cam, _, _ = depth_scene(8, 40, noise=0.02, dtype=torch.float64)
    weights = torch.rand(8, 40, generator=torch.Generator().manual_seed(4), dtype=torch.float64) + 0.1
    config = replace(SMALL, max_error=1.0, refinement_rounds=2)  # all are inliers
    result = estimate_rigid_pose(points, points_cam, config, weights=weights)
    kabsch = fit_similarity(points, points_cam, weights, with_scale=False)
    pose = matrix_from_se3(result.cam_from_world)
    assert (pose[..., :3] - kabsch.rotation).abs().max() < 1e-9
    assert (pose[..., 3] - kabsch.translation).abs().max() < 1e-9


def test_samples_with_unequal_sides_come_last_and_flat_ones_never():
    points, points_cam, pose, _ = depth_scene(1, 10, dtype=torch.float64)
    points[0, 0, 0] += 0.02
    points[0, 3:6] += torch.tensor([[1.0, 0, 0], [0, 2.0, 0], [0, 0, 3.0]], dtype=torch.float64)
    points[0, 6:9] = points[0, 6:7] + torch.arange(3.0)[:, None]
    samples = torch.tensor([[[3, 4, 5], [6, 7, 8], [0, 1, 2], [0, 0, 1], [1, 2, 9]]])
    kept = consistent_hypotheses(points, points_cam, samples, 0.1, 5)
    assert kept.valid.tolist() == [[True, True, True, False, False]]
    assert consistent_hypotheses(points, points_cam, samples, 0.1, 2).valid.all()
    noisy, exact, wrong = kept.cam_from_world[0, :3]
    assert 1e-4 < (noisy - pose[0]).abs().max() < 0.1  # within the threshold the order is that of the draw
    assert torch.allclose(exact, pose[0])
    assert (wrong - pose[0]).abs().max() > 0.1


def test_a_mirrored_scene_has_no_pose():
    points, points_cam, _, _ = depth_scene(4, dtype=torch.float64)
    points_cam[..., 0] *= -1
    result = estimate_rigid_pose(points, points_cam, SMALL)
    assert (result.inlier_count < 60).all()
    rotation = matrix_from_se3(result.cam_from_world)[..., :3]
    assert torch.allclose(torch.linalg.det(rotation), torch.ones(4, dtype=torch.float64))
