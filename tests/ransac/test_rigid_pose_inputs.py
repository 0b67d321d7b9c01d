"""RGB-D poses of any input: bad images harm no others, batches equal chunks, what is wrong is refused."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.depth_scenes import SMALL, depth_scene, pose_errors
from reference.pose_results import identical
from reference.posed_scene import random_poses

from acezero_gpu.geometry import matrix_from_se3, transform_points
from acezero_gpu.pnp import PoseStatus
from acezero_gpu.ransac.rigid_pose import RigidRansacConfig, estimate_rigid_pose


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
    assert identical(result, clean, [0, 11])


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
    assert identical(result, clean, [1])
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
    assert identical(result, estimate_rigid_pose(points, points_cam, SMALL, mask=mask), [0, 1, 2, 3])
    assert pose_errors(result, pose)[1].max() < 0.05


def test_batch_equals_chunks_and_the_same_generator_the_same_result(device):
    points, points_cam, _, _ = depth_scene(5, outliers=0.6, noise=0.02, device=device)

    def run(config):
        return estimate_rigid_pose(points, points_cam, config, generator=torch.Generator().manual_seed(3))

    whole, chunked = run(SMALL), run(replace(SMALL, max_chunk_bytes=1))
    difference = torch.Tensor(whole.cam_from_world) - torch.Tensor(chunked.cam_from_world)
    assert difference.abs().max() < 1e-4
    assert torch.equal(whole.status, chunked.status)
    assert identical(whole, run(SMALL), range(5))
    unseeded = estimate_rigid_pose(points, points_cam, SMALL)
    assert identical(unseeded, estimate_rigid_pose(points, points_cam, SMALL), range(5))


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
