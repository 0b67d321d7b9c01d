"""The whole estimator: accuracy against PoseLib, isolation, masks, determinism, chunking, refusals."""

import math
from dataclasses import replace

import numpy as np
import poselib
import pypose as pp
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.posed_scene import make_scene

from acezero_gpu.geometry import PinholeCamera, matrix_from_se3, reproject
from acezero_gpu.pnp import PoseStatus
from acezero_gpu.ransac import RansacConfig, estimate_absolute_pose

SMALL_ROBUST = replace(RansacConfig.robust(), hypotheses=1024)


def poselib_poses(scene, max_error_px=10.0) -> torch.Tensor:
    camera = {
        "model": "PINHOLE",
        "width": 640,
        "height": 480,
        "params": [*scene.camera.focal_px.tolist(), *scene.camera.principal_point_px.tolist()],
    }
    poses = []
    for points in scene.points.double().cpu().numpy():
        pose, _ = poselib.estimate_absolute_pose(
            scene.pixels.double().cpu().numpy(), points, camera, {"max_reproj_error": max_error_px}, {}
        )
        poses.append(torch.from_numpy(np.column_stack([pose.R, pose.t])))
    return torch.stack(poses)


@pytest.mark.parametrize(
    ("preset", "outliers"),
    [("fast", 0.3), ("fast", 0.6), ("balanced", 0.3), ("balanced", 0.6), ("balanced", 0.8), ("robust", 0.8)],
)
@pytest.mark.parametrize("heavy_tails", [False, True], ids=["gaussian", "heavy"])
def test_as_accurate_as_poselib(device, preset, outliers, heavy_tails):
    scene = make_scene(
        12,
        outliers=outliers,
        noise_px=1.5,
        heavy_tails=heavy_tails,
        rows=30,
        columns=40,
        device=device,
        seed=1,
    )
    config = {"fast": RansacConfig.fast(), "balanced": RansacConfig.balanced(), "robust": SMALL_ROBUST}[
        preset
    ]
    result = estimate_absolute_pose(scene.points, scene.pixels, scene.camera, config)
    assert (result.status == PoseStatus.OK).all()
    rotation_deg, distance = scene.errors(matrix_from_se3(result.cam_from_world))
    their_rotation_deg, their_distance = scene.errors(poselib_poses(scene))
    margin = 1.05  # twelve images: the medians themselves wander
    assert rotation_deg.median() < margin * their_rotation_deg.median()
    assert distance.median() < margin * their_distance.median()
    assert distance.max() < 0.05


def test_robust_bears_ninety_per_cent_outliers(device):
    scene = make_scene(4, outliers=0.9, noise_px=1.5, device=device, seed=2)
    result = estimate_absolute_pose(scene.points, scene.pixels, scene.camera, RansacConfig.robust())
    _, distance = scene.errors(matrix_from_se3(result.cam_from_world))
    assert distance.max() < 0.05


@pytest.mark.parametrize("score", ["soft", "count", "msac"])
def test_result_counts_at_the_returned_pose(device, dtype, score):
    scene = make_scene(3, outliers=0.4, noise_px=2.0, rows=12, columns=16, dtype=dtype, device=device)
    config = replace(RansacConfig(), score=score)
    result = estimate_absolute_pose(scene.points, scene.pixels, scene.camera, config)
    seen = reproject(scene.points, matrix_from_se3(result.cam_from_world), scene.camera)
    error = (seen.pixels - scene.pixels).norm(dim=-1)
    expected = (error < 10) & (seen.depth > 0)
    undecided = (error - 10).abs() < 1e-2
    assert torch.equal(result.inliers & ~undecided, expected & ~undecided)
    assert torch.equal(result.inlier_count, result.inliers.sum(-1))
    assert isinstance(result.cam_from_world, pp.LieTensor)
    assert result.inlier_count.dtype == result.status.dtype == torch.int64
    truth = ~scene.outlier
    assert ((result.inliers & truth).sum(-1) > 0.99 * truth.sum(-1)).all()


def test_exact_points_give_the_exact_pose():
    scene = make_scene(4, outliers=0.3, rows=12, columns=16, dtype=torch.float64)
    result = estimate_absolute_pose(scene.points, scene.pixels, scene.camera, RansacConfig.fast())
    assert (matrix_from_se3(result.cam_from_world) - scene.cam_from_world).abs().max() < 1e-7


def same(a, b, rows) -> bool:
    fields = ("inliers", "inlier_count", "score", "status")
    poses = torch.equal(torch.Tensor(a.cam_from_world)[rows], torch.Tensor(b.cam_from_world)[rows])
    return poses and all(torch.equal(getattr(a, f)[rows], getattr(b, f)[rows]) for f in fields)


@pytest.mark.parametrize("config", [RansacConfig.fast(), SMALL_ROBUST], ids=["fast", "robust"])
def test_bad_images_are_reported_and_leave_the_others_bit_identical(device, config):
    scene = make_scene(10, outliers=0.4, noise_px=1.5, rows=12, columns=16, device=device)
    clean = estimate_absolute_pose(scene.points, scene.pixels, scene.camera, config)
    assert (clean.status == PoseStatus.OK).all()
    points = scene.points.clone()
    mask = torch.ones(points.shape[:2], dtype=torch.bool, device=device)
    focal = scene.camera.focal_px.expand(10, 2).clone()
    principal = scene.camera.principal_point_px.expand(10, 2)
    points[1] = math.nan
    points[2] = points[2, :1]
    direction = torch.tensor([1.0, 2.0, 3.0], device=device)
    points[3] = torch.linspace(-1, 1, points.shape[1], device=device)[:, None] * direction
    mask[4, 3:] = False
    focal[5] = math.nan
    points[6] = 1e30
    focal[7] = 0
    result = estimate_absolute_pose(points, scene.pixels, PinholeCamera(focal, principal), config, mask=mask)
    S = PoseStatus
    assert result.status[[1, 4, 5, 7]].tolist() == [S.TOO_FEW_POINTS] * 4
    assert result.status[[2, 3]].tolist() == [S.NO_HYPOTHESIS] * 2
    assert result.status[6] != S.OK
    failed = [1, 2, 3, 4, 5, 7]
    assert (result.inlier_count[failed] == 0).all()
    identity = torch.tensor([0.0, 0, 0, 0, 0, 0, 1], device=device)
    assert torch.equal(torch.Tensor(result.cam_from_world)[failed], identity.expand(6, 7))
    assert torch.Tensor(result.cam_from_world).isfinite().all()
    assert same(result, clean, [0, 8, 9])


def test_points_behind_the_camera_are_never_inliers():
    """A mirrored scene reprojects perfectly behind the camera; it must not count."""
    scene = make_scene(1, rows=12, columns=16, dtype=torch.float64)
    cam = scene.points @ scene.cam_from_world[..., :3].mT + scene.cam_from_world[..., None, :, 3]
    mirrored = (-cam - scene.cam_from_world[..., None, :, 3]) @ scene.cam_from_world[..., :3]
    points = torch.where(torch.arange(192)[None, :, None] % 3 > 0, scene.points, mirrored)
    result = estimate_absolute_pose(points, scene.pixels, scene.camera)
    assert result.inlier_count.item() == 128
    assert not result.inliers[0, ::3].any()


def test_masked_images_equal_images_without_the_masked_points(device):
    """Ragged images by padding: what lies under the mask does not matter."""
    scene = make_scene(4, outliers=0.3, noise_px=1.5, rows=12, columns=16, device=device)
    mask = torch.rand(4, 192, generator=torch.Generator().manual_seed(5)).to(device) < 0.7
    garbage = torch.where(mask[..., None], scene.points, 1e6)
    result = estimate_absolute_pose(garbage, scene.pixels, scene.camera, mask=mask)
    assert not result.inliers[~mask].any()
    again = estimate_absolute_pose(scene.points, scene.pixels, scene.camera, mask=mask)
    assert same(result, again, [0, 1, 2, 3])
    _, distance = scene.errors(matrix_from_se3(result.cam_from_world))
    assert distance.max() < 0.1


def close(a, b) -> bool:
    poses = torch.Tensor(a.cam_from_world), torch.Tensor(b.cam_from_world)
    return torch.allclose(*poses, atol=1e-3) and torch.equal(a.status, b.status)


@pytest.mark.parametrize("config", [RansacConfig.fast(), SMALL_ROBUST], ids=["fast", "robust"])
def test_batch_equals_loop_and_chunks(device, config):
    """One generator serves image after image: the batch, its chunks and a loop draw the same samples."""
    scene = make_scene(5, outliers=0.5, noise_px=1.5, rows=12, columns=16, device=device)

    def draws() -> torch.Generator:
        return torch.Generator().manual_seed(3)

    whole = estimate_absolute_pose(scene.points, scene.pixels, scene.camera, config, generator=draws())
    tiny = replace(config, max_chunk_bytes=1)
    chunked = estimate_absolute_pose(scene.points, scene.pixels, scene.camera, tiny, generator=draws())
    assert close(whole, chunked)
    shared = draws()
    for i in range(5):
        one = estimate_absolute_pose(
            scene.points[i : i + 1], scene.pixels, scene.camera, config, generator=shared
        )
        difference = torch.Tensor(one.cam_from_world)[0] - torch.Tensor(whole.cam_from_world)[i]
        assert difference.abs().max() < 1e-3


def test_same_generator_same_result_and_no_generator_too():
    scene = make_scene(3, outliers=0.7, noise_px=3.0, rows=12, columns=16)
    run = lambda g: estimate_absolute_pose(scene.points, scene.pixels, scene.camera, generator=g)  # noqa: E731
    first, second = run(torch.Generator().manual_seed(1)), run(torch.Generator().manual_seed(1))
    assert same(first, second, [0, 1, 2])
    assert same(run(None), run(None), [0, 1, 2])


def test_pixels_and_camera_per_image_equal_shared_ones():
    scene = make_scene(3, outliers=0.3, noise_px=1.0, rows=12, columns=16)
    shared = estimate_absolute_pose(scene.points, scene.pixels, scene.camera)
    camera = PinholeCamera(
        scene.camera.focal_px.expand(3, 2).clone(), scene.camera.principal_point_px.expand(3, 2).clone()
    )
    own = estimate_absolute_pose(scene.points, scene.pixels.expand(3, -1, 2).clone(), camera)
    assert same(shared, own, [0, 1, 2])


@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100), n=st.integers(4, 30))
@settings(max_examples=10, deadline=None)
def test_scaling_the_world_scales_the_translation(seed, scale, n):
    scene = make_scene(1, rows=6, columns=8, seed=seed, dtype=torch.float64)
    points, pixels = scene.points[:, :n], scene.pixels[:n]
    result = estimate_absolute_pose(points * scale, pixels, scene.camera)
    pose = matrix_from_se3(result.cam_from_world)
    assert result.inlier_count.item() == n
    error = (pose[..., 3] / scale - scene.cam_from_world[..., 3]).abs().max()
    assert error < 1e-5


REFUSED = {
    r"points must have the shape \(batch, n, 3\)": {"points": torch.zeros(2, 9, 2)},
    "points must be float32 or float64": {"points": torch.zeros(2, 9, 3, dtype=torch.float16)},
    "pixels must have the shape": {"pixels": torch.zeros(8, 2)},
    "pixels is torch.float64": {"pixels": torch.zeros(9, 2, dtype=torch.float64)},
    "camera.focal_px must have the shape": {"camera": PinholeCamera(torch.ones(3, 2), torch.ones(3, 2))},
    "camera.focal_px is torch.float64": {
        "camera": PinholeCamera(torch.ones(2).double(), torch.ones(2).double())
    },
    "pixels is torch.float32 on meta": {"pixels": torch.zeros(9, 2, device="meta")},
    "mask must be bool": {"mask": torch.ones(2, 9)},
    r"mask must be bool of shape \(2, 9\)": {"mask": torch.ones(2, 8, dtype=torch.bool)},
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_wrong_inputs_are_refused_with_a_sentence(sentence):
    camera = PinholeCamera(torch.ones(2), torch.ones(2))
    inputs = {"points": torch.zeros(2, 9, 3), "pixels": torch.zeros(9, 2), "camera": camera} | REFUSED[
        sentence
    ]
    with pytest.raises(ValueError, match=sentence):
        estimate_absolute_pose(**inputs)


@pytest.mark.parametrize("bad", [{"hypotheses": 0}, {"attempts": 0}, {"max_error_px": 0.0}])
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValueError, match=f"RansacConfig.{next(iter(bad))} must be"):
        RansacConfig(**bad)


@pytest.mark.parametrize("config", [RansacConfig.fast(), RansacConfig.balanced(), RansacConfig.robust()])
def test_nothing_waits_for_the_device(config):
    """Tensors without data refuse ``item``, ``nonzero`` and boolean indexing, all that would synchronise."""
    camera = PinholeCamera(torch.ones(2, device="meta"), torch.ones(2, device="meta"))
    points, pixels = torch.zeros(3, 200, 3, device="meta"), torch.zeros(200, 2, device="meta")
    result = estimate_absolute_pose(points, pixels, camera, config)
    assert result.inliers.shape == (3, 200)
    assert result.status.device.type == "meta"


@pytest.mark.parametrize(("batch", "n"), [(0, 50), (0, 0), (3, 0), (3, 3)])
def test_nothing_to_do(batch, n):
    camera = PinholeCamera(torch.ones(2), torch.ones(2))
    result = estimate_absolute_pose(torch.zeros(batch, n, 3), torch.zeros(n, 2), camera)
    assert result.cam_from_world.shape == (batch, 7)
    assert result.inliers.shape == (batch, n)
    assert result.status.tolist() == [PoseStatus.TOO_FEW_POINTS] * batch
