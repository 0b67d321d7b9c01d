"""Poses with unknown focal lengths: accuracy against COLMAP, planes, and the sweep."""

from dataclasses import replace

import numpy as np
import pycolmap
import pytest
import torch
from reference.focal_scenes import SMALL, Scene
from reference.slow_absolute_pose import p3p_one

from acezero_gpu.geometry import PinholeCamera, camera_centres, matrix_from_se3, reproject
from acezero_gpu.pnp import PoseStatus
from acezero_gpu.ransac.absolute_pose import make_correspondences
from acezero_gpu.ransac.focal_hypotheses import sweep_hypotheses
from acezero_gpu.ransac.unknown_focal import FocalRansacConfig, estimate_pose_and_focal


@pytest.mark.parametrize(("outliers", "least"), [(0.3, 20), (0.6, 20), (0.8, 19)])
@pytest.mark.parametrize("noise", [{"noise_px": 1.5}, {"noise": 0.02}], ids=["pixels", "points"])
def test_outliers_are_borne(device, outliers, least, noise):
    scene = Scene(20, 1000, outliers=outliers, **noise, seed=1, device=device)
    # two centimetres are up to 24 pixels through the longest lens
    config = FocalRansacConfig(max_error_px=10.0 if "noise_px" in noise else 20.0)
    result = estimate_pose_and_focal(*scene.inputs, config)
    assert scene.succeeded(result).sum() >= least
    assert scene.focal_errors(result).median() < 0.005


def test_as_accurate_as_colmap():
    scene = Scene(12, 400, outliers=0.5, noise_px=1.5, seed=2)
    theirs = []
    estimation, refinement = (
        pycolmap.AbsolutePoseEstimationOptions(),
        pycolmap.AbsolutePoseRefinementOptions(),
    )
    estimation.estimate_focal_length = refinement.refine_focal_length = True
    estimation.ransac.max_error = 10.0
    for points, pixels in zip(scene.points, scene.pixels, strict=True):
        camera = pycolmap.Camera(model="SIMPLE_PINHOLE", width=640, height=480, params=[960.0, 320.0, 240.0])
        inputs = pixels.double().numpy(), points.double().numpy(), camera
        assert pycolmap.estimate_and_refine_absolute_pose(*inputs, estimation, refinement) is not None
        theirs.append(camera.params[0])
    best = np.abs(np.array(theirs) / scene.focal.numpy() - 1)
    result = estimate_pose_and_focal(*scene.inputs)
    assert scene.succeeded(result).all()
    assert scene.focal_errors(result).median() < 1.1 * np.median(best)


@pytest.mark.parametrize("plane", ["", "tilted"], ids=["deep", "tilted plane"])
def test_exact_points_give_the_exact_focal_length(device, dtype, plane):
    scene = Scene(6, outliers=0.3, plane=plane, dtype=dtype, device=device)
    result = estimate_pose_and_focal(*scene.inputs, SMALL)
    assert (result.status == PoseStatus.OK).all()
    small = 1e-4 if dtype == torch.float32 else 1e-9
    assert scene.focal_errors(result).max() < small
    pose = matrix_from_se3(result.cam_from_world).cpu().double()
    assert (camera_centres(pose) - camera_centres(scene.pose)).norm(dim=-1).max() < 20 * small


@pytest.mark.parametrize("n", [8, 50, 1000])
@pytest.mark.parametrize("noise_px", [0.0, 1.5])
def test_a_plane_that_faces_the_camera_leaves_the_focal_length_open(device, n, noise_px):
    flat = Scene(40, n, noise_px=noise_px, plane="frontal", device=device)
    result = estimate_pose_and_focal(*flat.inputs, SMALL)
    assert (result.status == PoseStatus.FOCAL_UNDETERMINED).all()
    assert (result.inlier_count >= n - 1).all()
    deep = Scene(40, n, noise_px=noise_px, device=device)
    result = estimate_pose_and_focal(*deep.inputs, SMALL)
    assert (result.status == PoseStatus.OK).float().mean() > 0.9
    assert deep.focal_errors(result)[result.status.cpu() == PoseStatus.OK].max() < 0.1


def test_a_larger_allowed_deviation_accepts_more():
    flat = Scene(40, 50, noise_px=1.5, plane="frontal")
    lenient = estimate_pose_and_focal(*flat.inputs, replace(SMALL, max_focal_deviation=1e6))
    assert (lenient.status == PoseStatus.OK).float().mean() > 0.3
    deep = Scene(40, 50, noise_px=1.5)
    strict = estimate_pose_and_focal(*deep.inputs, replace(SMALL, max_focal_deviation=1e-6))
    assert (strict.status == PoseStatus.FOCAL_UNDETERMINED).all()


@pytest.mark.parametrize("score", ["soft", "count", "msac"])
def test_result_counts_at_the_returned_pose_and_focal_length(device, dtype, score):
    scene = Scene(3, outliers=0.4, noise_px=2.0, dtype=dtype, device=device)
    result = estimate_pose_and_focal(*scene.inputs, replace(SMALL, score=score))
    seen = reproject(scene.points, matrix_from_se3(result.cam_from_world), result.camera)
    error = (seen.pixels - scene.pixels).norm(dim=-1)
    undecided = (error - 10).abs() < 1e-2
    expected = (error < 10) & (seen.depth > 0)
    assert torch.equal(result.inliers & ~undecided, expected & ~undecided)
    assert torch.equal(result.inlier_count, result.inliers.sum(-1))
    assert torch.equal(result.camera.principal_point_px, scene.principal.expand(3, 2))
    truth = ~scene.outlier.to(device)
    assert ((result.inliers & truth).sum(-1) > 0.97 * truth.sum(-1)).all()


def test_the_sweep_solves_each_sample_at_each_focal_length():
    """Against PoseLib, one sample and one focal length at a time."""
    scene = Scene(2, 30, dtype=torch.float64)
    offsets = scene.pixels - scene.principal
    ones = torch.ones(2, 2, dtype=torch.float64)
    unit = PinholeCamera(ones, torch.zeros_like(ones))
    data = make_correspondences(scene.points, offsets, unit, None)
    samples = torch.randint(30, (2, 5, 3), generator=torch.Generator().manual_seed(0))
    focals = scene.focal[:, None] * torch.tensor([0.8, 1.0, 1.3])
    swept = sweep_hypotheses(data, samples, focals)
    assert torch.equal(swept.focal, focals.repeat_interleave(20, 1))
    poses = swept.cam_from_world.view(2, 3, 5, 4, 3, 4)
    valid = (swept.score == 0).view(2, 3, 5, 4)
    scored = swept.scored(data, 10.0, "count").score
    assert torch.equal(scored >= 3, swept.score == 0)  # its own three points
    assert torch.equal(scored < 0, swept.score < 0)
    for image in range(2):
        for k in range(3):
            for s, sample in enumerate(samples[image]):
                rays = torch.cat([offsets[image, sample], focals[image, k].expand(3, 1)], dim=-1)
                rays = torch.nn.functional.normalize(rays, dim=-1).numpy()
                theirs = p3p_one(rays, scene.points[image, sample].numpy())
                ours = poses[image, k, s][valid[image, k, s]].numpy()
                for pose in theirs:
                    assert min([np.abs(pose - own).max() for own in ours], default=1.0) < 1e-5
