"""RGB-D poses: exact truth, scipy and COLMAP, outliers, isolation, chunks, refusals."""

import math
from dataclasses import replace

import numpy as np
import pycolmap
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.posed_scene import random_poses
from scipy.spatial.transform import Rotation

from acezero_gpu.geometry import (
    camera_centres,
    fit_similarity,
    invert,
    matrix_from_se3,
    retract,
    rotation_angle_deg,
    transform_points,
)
from acezero_gpu.pnp import PoseStatus
from acezero_gpu.ransac.rigid_pose import (
    RigidRansacConfig,
    consistent_hypotheses,
    estimate_rigid_pose,
    refit_rigid_pose,
)

SMALL = RigidRansacConfig(samples=512, hypotheses=16)


def depth_scene(
    batch, n=300, *, outliers=0.0, noise=0.0, flat=False, seed=0, dtype=torch.float32, device="cpu"
):
    """World points, camera points two to six metres away, poses and which pairs are outliers."""
    g = torch.Generator().manual_seed(seed)
    f64 = torch.float64
    depth = 2 + 4 * torch.rand(batch, n, 1, generator=g, dtype=f64)
    rays = 1.2 * (torch.rand(batch, n, 2, generator=g, dtype=f64) - 0.5)
    if flat:
        depth = 1 / (0.3 + 0.2 * rays[..., :1])
    points_cam = torch.cat([rays * depth, depth], dim=-1)
    pose = random_poses(batch, g)
    points = transform_points(invert(pose), points_cam)
    points = points + noise * torch.randn(batch, n, 3, generator=g, dtype=f64)
    outlier = torch.rand(batch, n, generator=g, dtype=f64) < outliers
    box = 8 * (torch.rand(batch, n, 3, generator=g, dtype=f64) - 0.5)
    points = torch.where(outlier[..., None], box, points)
    to = {"dtype": dtype, "device": device}
    return points.to(**to), points_cam.to(**to), pose, outlier


def pose_errors(result, pose):
    estimate = matrix_from_se3(result.cam_from_world).cpu().double()
    rotation = rotation_angle_deg(estimate[..., :3], pose[..., :3])
    return rotation, (camera_centres(estimate) - camera_centres(pose)).norm(dim=-1)


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


def same(a, b, rows) -> bool:
    fields = ("inliers", "inlier_count", "score", "status")
    poses = torch.equal(torch.Tensor(a.cam_from_world)[rows], torch.Tensor(b.cam_from_world)[rows])
    return poses and all(torch.equal(getattr(a, f)[rows], getattr(b, f)[rows]) for f in fields)


def test_bad_images_are_reported_and_leave_the_others_bit_identical(device):
    points, points_cam, _, _ = depth_scene(12, outliers=0.4, noise=0.02, device=device)
    clean = estimate_rigid_pose(points, points_cam, SMALL)
    assert (clean.status == PoseStatus.OK).all()
    points, points_cam = points.clone(), points_cam.clone()
    mask = torch.ones(points.shape[:2], dtype=torch.bool, device=device)
    weights = torch.ones_like(points[..., 0])
    points[1] = math.nan
    points_cam[2] = points_cam[2, :1].clone()
    points[2] = points_cam[2]  # even so, nothing is an inlier
    line = torch.linspace(1, 2, points.shape[1], device=device)[:, None]
    points[3] = line * torch.tensor([1.0, 2.0, 3.0], device=device)
    mask[4, 3:] = False
    points_cam[5] = math.inf
    points_cam[6, :, 2] *= -1  # all behind the camera
    points[7] = 1e30
    weights[8] = 0
    weights[9] = math.nan
    points_cam[10] = 0  # no depth was measured
    result = estimate_rigid_pose(points, points_cam, SMALL, mask=mask, weights=weights)
    S = PoseStatus
    assert result.status[[1, 4, 5, 6, 7, 8, 9, 10]].tolist() == [S.TOO_FEW_POINTS] * 8
    assert result.status[[2, 3]].tolist() == [S.NO_HYPOTHESIS] * 2
    failed = [*range(1, 11)]
    assert (result.inlier_count[failed] == 0).all()
    assert (result.score[failed] == 0).all()
    identity = torch.tensor([0.0, 0, 0, 0, 0, 0, 1], device=device)
    assert torch.equal(torch.Tensor(result.cam_from_world)[failed], identity.expand(10, 7))
    assert same(result, clean, [0, 11])


BAD_VALUES = [math.nan, math.inf, -math.inf, 0.0, 1e30, -1e38]


@given(seed=st.integers(0, 1000), value=st.sampled_from(BAD_VALUES), share=st.floats(0.0, 1.0))
@settings(max_examples=20, deadline=None)
def test_whatever_is_in_one_image_the_other_is_bit_identical(seed, value, share):
    points, points_cam, _, _ = depth_scene(2, 30, outliers=0.3, noise=0.02)
    clean = estimate_rigid_pose(points, points_cam, SMALL)
    g = torch.Generator().manual_seed(seed)
    points[0] = torch.where(torch.rand(30, 3, generator=g) < share, value, points[0])
    points_cam[0] = torch.where(torch.rand(30, 3, generator=g) < share / 2, value, points_cam[0])
    result = estimate_rigid_pose(points, points_cam, SMALL)
    assert same(result, clean, [1])
    assert torch.Tensor(result.cam_from_world).isfinite().all()
    assert result.score.isfinite().all()


def test_one_bad_pair_does_not_cost_its_image_the_pose(device):
    points, points_cam, pose, _ = depth_scene(5, outliers=0.3, device=device)
    points[0, 0], points[1, 0], points_cam[2, 0] = math.nan, 1e30, -math.inf
    points_cam[3, 0], points[4, 0] = torch.zeros(3, device=device), 1e17
    result = estimate_rigid_pose(points, points_cam, SMALL)
    assert (result.status == PoseStatus.OK).all()
    assert not result.inliers[:, 0].any()
    assert pose_errors(result, pose)[1].max() < 1e-3


def test_what_is_left_out_does_not_count_where_the_frames_coincide(device):
    """Pairs that are left out are moved out of the way: at a pose near the identity, zeros would be inliers."""
    points_cam = depth_scene(1, device=device)[1]
    mask = torch.arange(300, device=device)[None] % 2 == 0
    result = estimate_rigid_pose(points_cam, points_cam, SMALL, mask=mask)
    assert torch.equal(result.inliers, mask)


def test_masked_images_equal_images_without_the_masked_points(device):
    points, points_cam, pose, _ = depth_scene(4, outliers=0.3, noise=0.02, device=device)
    mask = torch.rand(4, 300, generator=torch.Generator().manual_seed(5)).to(device) < 0.7
    garbage = torch.where(mask[..., None], points, 1e6)
    result = estimate_rigid_pose(garbage, points_cam, SMALL, mask=mask)
    assert not result.inliers[~mask].any()
    assert same(result, estimate_rigid_pose(points, points_cam, SMALL, mask=mask), [0, 1, 2, 3])
    assert pose_errors(result, pose)[1].max() < 0.05


def test_batch_equals_chunks_and_the_same_generator_the_same_result(device):
    points, points_cam, _, _ = depth_scene(5, outliers=0.6, noise=0.02, device=device)

    def run(config):
        return estimate_rigid_pose(points, points_cam, config, generator=torch.Generator().manual_seed(3))

    whole, chunked = run(SMALL), run(replace(SMALL, max_chunk_bytes=1))
    difference = torch.Tensor(whole.cam_from_world) - torch.Tensor(chunked.cam_from_world)
    assert difference.abs().max() < 1e-4
    assert torch.equal(whole.status, chunked.status)
    assert same(whole, run(SMALL), range(5))
    unseeded = estimate_rigid_pose(points, points_cam, SMALL)
    assert same(unseeded, estimate_rigid_pose(points, points_cam, SMALL), range(5))


@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100), n=st.integers(4, 30))
@settings(max_examples=15, deadline=None)
def test_scaling_the_unit_scales_the_translation(seed, scale, n):
    points, points_cam, pose, _ = depth_scene(1, n, seed=seed, dtype=torch.float64)
    config = replace(SMALL, max_error=0.1 * scale)
    result = estimate_rigid_pose(points * scale, points_cam * scale, config)
    assert result.inlier_count.item() == n
    assert (matrix_from_se3(result.cam_from_world)[..., 3] / scale - pose[..., 3]).abs().max() < 1e-7


@given(seed=st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_moving_the_world_moves_the_pose(seed):
    points, points_cam, _, _ = depth_scene(1, 50, outliers=0.3, noise=0.02, seed=seed, dtype=torch.float64)
    new_from_old = random_poses(1, torch.Generator().manual_seed(seed + 1))
    before = estimate_rigid_pose(points, points_cam, SMALL)
    after = estimate_rigid_pose(transform_points(new_from_old, points), points_cam, SMALL)
    moved = transform_points(matrix_from_se3(after.cam_from_world), transform_points(new_from_old, points))
    assert (moved - transform_points(matrix_from_se3(before.cam_from_world), points)).abs().max() < 1e-6


REFUSED = {
    r"points must have the shape \(batch, n, 3\)": {"points": torch.zeros(2, 9, 2)},
    "points must be float32 or float64": {"points": torch.zeros(2, 9, 3, dtype=torch.float16)},
    r"points_cam must have the shape \(2, 9, 3\)": {"points_cam": torch.zeros(2, 8, 3)},
    "points_cam must be torch.float32 on cpu": {"points_cam": torch.zeros(2, 9, 3, dtype=torch.float64)},
    "points_cam must be .* got torch.float32 on meta": {"points_cam": torch.zeros(2, 9, 3, device="meta")},
    r"mask must have the shape \(2, 9\)": {"mask": torch.ones(2, 8, dtype=torch.bool)},
    "mask must be torch.bool": {"mask": torch.ones(2, 9)},
    r"weights must have the shape \(2, 9\)": {"weights": torch.ones(9)},
    "weights must be torch.float32": {"weights": torch.ones(2, 9, dtype=torch.float64)},
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_wrong_inputs_are_refused_with_a_sentence(sentence):
    inputs = {"points": torch.zeros(2, 9, 3), "points_cam": torch.zeros(2, 9, 3)} | REFUSED[sentence]
    with pytest.raises(ValueError, match=sentence):
        estimate_rigid_pose(**inputs)


@pytest.mark.parametrize("bad", [{"hypotheses": 0}, {"samples": 0}, {"max_error": 0.0}])
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValueError, match=f"RigidRansacConfig.{next(iter(bad))} must be"):
        RigidRansacConfig(**bad)


def test_nothing_waits_for_the_device():
    """Tensors without data refuse ``item``, ``nonzero`` and boolean indexing, all that would synchronise."""
    points = torch.zeros(3, 200, 3, device="meta")
    result = estimate_rigid_pose(points, points)
    assert result.inliers.shape == (3, 200)
    assert result.status.device.type == "meta"


@pytest.mark.parametrize(("batch", "n"), [(0, 50), (0, 0), (3, 0), (3, 3)])
def test_nothing_to_do(batch, n):
    result = estimate_rigid_pose(torch.zeros(batch, n, 3), torch.zeros(batch, n, 3))
    assert result.cam_from_world.shape == (batch, 7)
    assert result.inliers.shape == (batch, n)
    assert result.status.tolist() == [PoseStatus.TOO_FEW_POINTS] * batch
