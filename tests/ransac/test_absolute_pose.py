"""The whole estimator: accuracy against PoseLib, masks, determinism, chunks, what must not matter."""

from dataclasses import replace

import numpy as np
import poselib
import pypose as pp
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.pose_results import PRESETS, identical, pose_rows
from reference.posed_scene import make_scene, random_poses

from acezero_gpu.geometry import PinholeCamera, compose, matrix_from_se3, reproject, transform_points
from acezero_gpu.pnp import PoseStatus
from acezero_gpu.ransac import RansacConfig, estimate_absolute_pose


def rounding(device: torch.device) -> float:
    """What sums in another order change; another sample drawn anywhere would change far more."""
    return 1e-5 if device.type == "cpu" else 1e-3


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
    result = estimate_absolute_pose(scene.points, scene.pixels, scene.camera, PRESETS[preset])
    assert (result.status == PoseStatus.OK).all()
    rotation_deg, distance = scene.errors(matrix_from_se3(result.cam_from_world))
    their_rotation_deg, their_distance = scene.errors(poselib_poses(scene))
    # Image by image, since the errors of different images are far apart.
    assert (rotation_deg / their_rotation_deg).log().mean().exp() < 1.05
    assert (distance / their_distance).log().mean().exp() < 1.05
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


def test_masked_images_equal_images_without_the_masked_points(device):
    """Ragged images by padding: what lies under the mask does not matter."""
    scene = make_scene(4, outliers=0.3, noise_px=1.5, rows=12, columns=16, device=device)
    mask = torch.rand(4, 192, generator=torch.Generator().manual_seed(5)).to(device) < 0.7
    garbage = torch.where(mask[..., None], scene.points, 1e6)
    result = estimate_absolute_pose(garbage, scene.pixels, scene.camera, mask=mask)
    assert not result.inliers[~mask].any()
    again = estimate_absolute_pose(scene.points, scene.pixels, scene.camera, mask=mask)
    assert identical(result, again)
    _, distance = scene.errors(matrix_from_se3(result.cam_from_world))
    assert distance.max() < 0.1


@pytest.mark.parametrize("preset", PRESETS)
def test_batch_equals_loop_and_chunks(device, preset):
    """One generator serves image after image: the batch, its chunks and a loop draw the same samples.

    The results differ by rounding at most: a library may choose another kernel for another batch size or
    another alignment in memory.
    """
    scene = make_scene(5, outliers=0.5, noise_px=1.5, rows=12, columns=16, device=device)

    def run(images: slice, generator: torch.Generator, **changes: int):
        few = {} if preset == "fast" else {"hypotheses": 120, "first_round": 48}
        config = replace(PRESETS[preset], **few, **changes)
        return estimate_absolute_pose(
            scene.points[images], scene.pixels, scene.camera, config, generator=generator
        )

    everything = slice(None)
    whole = run(everything, torch.Generator().manual_seed(3))
    tolerance = rounding(device)
    for budget in (1, 100_000):
        chunked = run(everything, torch.Generator().manual_seed(3), max_chunk_bytes=budget)
        assert (pose_rows(chunked) - pose_rows(whole)).abs().max() <= tolerance
        assert torch.equal(chunked.status, whole.status)
    shared = torch.Generator().manual_seed(3)
    for i in range(5):
        one = run(slice(i, i + 1), shared)
        assert (pose_rows(one)[0] - pose_rows(whole)[i]).abs().max() <= tolerance


def test_what_passes_the_first_scoring_does_not_depend_on_the_pieces(device):
    """So few pass that it would show if every piece of a round let as many pass as the whole round."""
    scene = make_scene(4, outliers=0.85, noise_px=3.0, rows=24, columns=32, device=device, seed=6)
    config = replace(PRESETS["robust"], prescore_points=24, prescore_keep=1, first_round=None)
    whole = estimate_absolute_pose(scene.points, scene.pixels, scene.camera, config)
    pieces = replace(config, max_chunk_bytes=40_000)
    chunked = estimate_absolute_pose(scene.points, scene.pixels, scene.camera, pieces)
    assert (pose_rows(chunked) - pose_rows(whole)).abs().max() <= rounding(device)


def test_same_generator_same_result_and_no_generator_too():
    scene = make_scene(3, outliers=0.7, noise_px=3.0, rows=12, columns=16)
    run = lambda g: estimate_absolute_pose(scene.points, scene.pixels, scene.camera, generator=g)  # noqa: E731
    assert identical(run(torch.Generator().manual_seed(1)), run(torch.Generator().manual_seed(1)))
    assert identical(run(None), run(None))


def test_pixels_and_camera_per_image_equal_shared_ones():
    scene = make_scene(3, outliers=0.3, noise_px=1.0, rows=12, columns=16)
    shared = estimate_absolute_pose(scene.points, scene.pixels, scene.camera)
    camera = PinholeCamera(
        scene.camera.focal_px.expand(3, 2).clone(), scene.camera.principal_point_px.expand(3, 2).clone()
    )
    own = estimate_absolute_pose(scene.points, scene.pixels.expand(3, -1, 2).clone(), camera)
    assert identical(shared, own)


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


@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100), preset=st.sampled_from([*PRESETS]))
@settings(max_examples=15, deadline=None)
def test_moving_the_world_moves_the_pose(seed, scale, preset):
    """The same samples are drawn, so the same pose is found, but for the new coordinates."""
    scene = make_scene(2, outliers=0.3, noise_px=1.0, rows=8, columns=12, seed=seed, dtype=torch.float64)
    moved_from_world = random_poses(1, torch.Generator().manual_seed(seed + 1), 3.0).expand(2, 3, 4)
    points = scale * transform_points(moved_from_world, scene.points)
    pose, moved = (
        matrix_from_se3(estimate_absolute_pose(p, scene.pixels, scene.camera, PRESETS[preset]).cam_from_world)
        for p in (scene.points, points)
    )
    back = torch.cat([moved[..., :3], moved[..., 3:] / scale], dim=-1)
    assert (compose(back, moved_from_world) - pose).abs().max() < 1e-5


@given(seed=st.integers(0, 1000), preset=st.sampled_from([*PRESETS]))
@settings(max_examples=15, deadline=None)
def test_the_order_of_the_points_does_not_matter(seed, preset):
    """The samples are others, the pose is the same as far as the noise allows."""
    scene = make_scene(2, outliers=0.3, noise_px=1.0, rows=12, columns=16, seed=seed)
    g = torch.Generator().manual_seed(seed)
    mask = torch.rand(2, 192, generator=g) < 0.8
    order = torch.randperm(192, generator=g)
    config = PRESETS[preset]
    result = estimate_absolute_pose(scene.points, scene.pixels, scene.camera, config, mask=mask)
    other = estimate_absolute_pose(
        scene.points[:, order], scene.pixels[order], scene.camera, config, mask=mask[:, order]
    )
    assert (pose_rows(result) - pose_rows(other)).abs().max() < 2e-2
    differ = (result.inliers[:, order] != other.inliers).sum(-1)
    assert (differ <= 3).all()
