"""Relative poses against exact synthetic truth, PoseLib and OpenCV."""

import json

import cv2
import imageio.v3 as iio
import numpy as np
import poselib
import pytest
import torch
from reference.two_view_pairs import FOCAL_PX, pairs, pose_error_deg

from acezero_gpu.geometry import PinholeCamera, matrix_from_se3
from acezero_gpu.network.keypoints import detect_keypoints, match_pairs
from acezero_gpu.ransac.relative_pose import RelativePoseConfig, RelativePoseStatus, estimate_relative_pose

MAX_ERROR_PX = 4.0


CONFIG = RelativePoseConfig(max_error=MAX_ERROR_PX / FOCAL_PX)


def with_poselib(rays_a: torch.Tensor, rays_b: torch.Tensor) -> torch.Tensor:
    camera = {"model": "PINHOLE", "width": 600, "height": 600, "params": [FOCAL_PX, FOCAL_PX, 0, 0]}
    options = {"max_epipolar_error": MAX_ERROR_PX, "max_iterations": 1000}
    pixels = (rays_a.numpy() * FOCAL_PX, rays_b.numpy() * FOCAL_PX)
    pose, _ = poselib.estimate_relative_pose(*pixels, camera, camera, options, {})
    return torch.from_numpy(np.column_stack([pose.R, pose.t]))


def with_opencv(rays_a: torch.Tensor, rays_b: torch.Tensor) -> torch.Tensor:
    a, b = rays_a.numpy(), rays_b.numpy()
    essential, mask = cv2.findEssentialMat(a, b, np.eye(3), cv2.RANSAC, 0.999, MAX_ERROR_PX / FOCAL_PX)
    _, rotation, t, _ = cv2.recoverPose(essential[:3], a, b, np.eye(3), mask=mask)
    return torch.from_numpy(np.column_stack([rotation, t]))


def test_exact_matches_give_the_exact_pose(device, dtype, generator):
    rays_a, rays_b, truth, _ = pairs(6, 60, generator, noise_px=0.0)
    result = estimate_relative_pose(rays_a.to(device, dtype), rays_b.to(device, dtype), generator=generator)
    assert result.b_from_a.dtype == dtype
    assert result.ok.all()
    assert result.inliers.all()
    estimate = matrix_from_se3(result.b_from_a).cpu().double()
    # float32 coordinates are exact to about 6e-8, which a few hundred times the geometry's condition gives
    assert pose_error_deg(estimate, truth).max() < (1e-3 if dtype == torch.float32 else 1e-6)
    torch.testing.assert_close(estimate[..., 3].norm(dim=-1), torch.ones(6).double(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("outliers", [0.3, 0.6])
def test_noisy_matches_with_outliers_are_as_good_as_poselibs(device, generator, outliers):
    rays_a, rays_b, truth, true = pairs(40, 250, generator, outliers=outliers)
    result = estimate_relative_pose(
        rays_a.to(device).float(), rays_b.to(device).float(), CONFIG, generator=generator
    )
    ours = pose_error_deg(matrix_from_se3(result.b_from_a).cpu().double(), truth)
    theirs = torch.stack([with_poselib(*rays) for rays in zip(rays_a, rays_b, strict=True)])
    poselibs = pose_error_deg(theirs, truth)
    # over 400 pairs the two are within a tenth of each other; the mean of forty wanders more
    assert ours.clamp_max(5).mean() < 1.25 * poselibs.clamp_max(5).mean()
    assert ours.median() < 1.25 * poselibs.median()
    opencvs = torch.stack([with_opencv(rays_a[i], rays_b[i]) for i in range(4)])
    assert ours[:4].median() < pose_error_deg(opencvs, truth[:4]).median()
    assert (ours < 3.0).float().mean() > 0.95
    inliers = result.inliers.cpu()
    assert (inliers & true).sum() > 0.97 * true.sum()
    assert (inliers & ~true).sum() < 0.1 * (~true).sum()
    assert torch.equal(result.inlier_count, result.inliers.sum(1))


def test_counts_tell_a_general_scene_from_a_plane_and_from_a_turn(device, generator):
    general = pairs(4, 300, generator, outliers=0.2)
    plane = pairs(4, 300, generator, outliers=0.2, planar=True)
    turn = pairs(4, 300, generator, outliers=0.2, baseline=0.0)
    rays_a, rays_b, _, true = (
        torch.cat(parts).to(device) for parts in zip(general, plane, turn, strict=True)
    )
    result = estimate_relative_pose(rays_a, rays_b, CONFIG, generator=generator)
    share = true.sum(1)
    by_plane = (result.homography_inlier_count / share).cpu().split(4)
    by_turn = (result.rotation_only_inlier_count / share).cpu().split(4)
    angle = result.median_angle_deg.cpu().split(4)
    assert by_plane[0].max() < 0.5
    assert by_plane[1].min() > 0.9
    assert by_plane[2].min() > 0.9
    assert by_turn[0].max() < 0.5
    assert by_turn[1].max() < 0.5
    assert by_turn[2].min() > 0.9
    assert angle[0].min() > 2.0
    assert angle[2].max() < 0.5


def test_bad_pairs_are_marked_and_alone(device, generator):
    rays_a, rays_b, truth, _ = pairs(5, 50, generator, noise_px=0.1)
    mask = torch.ones(5, 50, dtype=torch.bool)
    mask[0, 4:] = False
    mask[1] = False
    rays_a[2], rays_b[2] = 0.25, -0.1  # fifty times the same match
    rays_b[3, ::3] = torch.nan
    rays_a[4, :20], mask[4, :20] = torch.inf, False
    result = estimate_relative_pose(
        rays_a.to(device), rays_b.to(device), generator=generator, mask=mask.to(device)
    )
    few, none, ok = (int(RelativePoseStatus[name]) for name in ("TOO_FEW_MATCHES", "NO_MODEL", "OK"))
    assert result.status.tolist() == [few, few, none, ok, ok]
    assert result.inlier_count[:3].tolist() == [0, 0, 0]
    assert (result.score[:3] == 0).all()
    estimate = matrix_from_se3(result.b_from_a).cpu()
    assert torch.isfinite(estimate).all()
    expected = torch.eye(3, 4, dtype=torch.float64)
    expected[2, 3] = 1.0
    torch.testing.assert_close(estimate[:3], expected.expand(3, 3, 4))
    assert pose_error_deg(estimate[3:], truth[3:]).max() < 1.0
    assert not result.inliers[3, ::3].any()
    assert not result.inliers[4, :20].any()


def test_batches_and_seeds_repeat(device, generator):
    rays_a, rays_b, _, _ = (x.to(device) for x in pairs(6, 80, generator, outliers=0.4))
    one = estimate_relative_pose(rays_a, rays_b, CONFIG, generator=torch.Generator().manual_seed(3))
    small = RelativePoseConfig(max_error=CONFIG.max_error, budget_bytes=1)
    other = estimate_relative_pose(rays_a, rays_b, small, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(other.b_from_a.tensor(), one.b_from_a.tensor(), atol=1e-9, rtol=0)
    assert torch.equal(other.inliers, one.inliers)
    assert torch.equal(other.homography_inlier_count, one.homography_inlier_count)
    empty = estimate_relative_pose(rays_a[:0], rays_b[:0], generator=generator)
    assert empty.b_from_a.shape == (0, 7)


def test_photographs_with_measured_poses(device, real_data):
    folder = real_data / "fountain_P11"
    if not folder.is_dir():
        pytest.skip("the fountain images are not here")
    paths = sorted((folder / "images").glob("*.jpg"))[2:5]
    images = [torch.from_numpy(iio.imread(path)).float().mean(-1) / 255 for path in paths]
    scale = 0.5
    small = torch.nn.functional.interpolate(torch.stack(images)[:, None], scale_factor=scale, mode="area")
    keypoints = detect_keypoints(small.to(device))
    row = torch.tensor([[0, 1], [1, 2], [0, 2]], device=device)
    matches = match_pairs(keypoints, row)
    intrinsics = json.loads((folder / "set.json").read_text())
    camera = PinholeCamera(
        scale * torch.tensor([intrinsics["fx"], intrinsics["fy"]]),
        scale * torch.tensor([intrinsics["cx"], intrinsics["cy"]]),
    ).to(device)
    result = estimate_relative_pose(
        camera.normalised(matches.pixels_a(keypoints.select(row[:, 0]))),
        camera.normalised(matches.pixels_b(keypoints.select(row[:, 1]))),
        RelativePoseConfig(max_error=1.5 / float(camera.focal_px[0])),
        generator=torch.Generator().manual_seed(0),
        mask=matches.matched,
    )
    world_from_cam = [np.loadtxt(folder / "poses" / f"{path.stem}.txt") for path in paths]
    truth = [np.linalg.inv(world_from_cam[b]) @ world_from_cam[a] for a, b in row.tolist()]
    estimate = matrix_from_se3(result.b_from_a).cpu().double()
    assert pose_error_deg(estimate, torch.from_numpy(np.stack(truth))[:, :3]).max() < 0.5
    assert (result.inlier_count > 120).all()
    assert (result.homography_inlier_count < 0.6 * result.inlier_count).all()
    assert result.median_angle_deg.min() > 5
