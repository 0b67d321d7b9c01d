"""Poses with unknown focal lengths of any input: isolation, chunks, units, refusals."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.focal_scenes import DIAGONAL, SMALL, Scene
from reference.pose_results import identical

from acezero_gpu.geometry import invert, matrix_from_se3, transform_points
from acezero_gpu.pnp import PoseStatus
from acezero_gpu.ransac.unknown_focal import FocalRansacConfig, estimate_pose_and_focal


def same(a, b, rows) -> bool:
    return identical(a, b, rows) and torch.equal(a.camera.focal_px[rows], b.camera.focal_px[rows])


def test_bad_images_are_reported_and_leave_the_others_bit_identical(device):
    scene = Scene(12, outliers=0.3, noise_px=1.5, device=device)
    diagonal = torch.full((12,), DIAGONAL, device=device)
    clean = estimate_pose_and_focal(*scene.inputs, SMALL, image_diagonal_px=diagonal)
    assert (clean.status == PoseStatus.OK).all()
    points, pixels, principal = (x.clone() for x in scene.inputs)
    principal = principal.expand(12, 2).clone()
    mask = torch.ones(points.shape[:2], dtype=torch.bool, device=device)
    points[1] = math.nan
    points[2] = torch.tensor([0.0, 0.0, 3.0], device=device)
    pixels[2] = principal[2]  # even at the identity, nothing is an inlier
    line = torch.linspace(-1, 1, points.shape[1], device=device)[:, None]
    points[3] = line * torch.tensor([1.0, 2.0, 3.0], device=device)
    mask[4, 3:] = False
    pixels[5] = math.inf
    principal[6] = math.nan
    diagonal[7], diagonal[8], diagonal[9] = 0.0, math.nan, -DIAGONAL
    points[10] = 1e30
    result = estimate_pose_and_focal(points, pixels, principal, SMALL, image_diagonal_px=diagonal, mask=mask)
    S = PoseStatus
    assert result.status[[1, 4, 5, 6, 7, 8, 9]].tolist() == [S.TOO_FEW_POINTS] * 7
    assert result.status[[2, 3]].tolist() == [S.NO_HYPOTHESIS] * 2
    assert result.status[10] != S.OK
    failed = [*range(1, 10)]
    assert (result.inlier_count[failed] == 0).all()
    assert (result.score[failed] == 0).all()
    assert result.camera.focal_px[failed].isnan().all()
    identity = torch.tensor([0.0, 0, 0, 0, 0, 0, 1], device=device)
    assert torch.equal(torch.Tensor(result.cam_from_world)[failed], identity.expand(9, 7))
    assert torch.Tensor(result.cam_from_world).isfinite().all()
    assert same(result, clean, [0, 11])


BAD_VALUES = [math.nan, math.inf, -math.inf, 0.0, 1e30, -1e38]


@given(seed=st.integers(0, 1000), value=st.sampled_from(BAD_VALUES), share=st.floats(0.0, 1.0))
@settings(max_examples=20, deadline=None)
def test_whatever_is_in_one_image_the_other_is_bit_identical(seed, value, share):
    scene = Scene(2, 30, outliers=0.3, noise_px=1.0)
    clean = estimate_pose_and_focal(*scene.inputs, SMALL)
    g = torch.Generator().manual_seed(seed)
    points, pixels = scene.points.clone(), scene.pixels.clone()
    points[0] = torch.where(torch.rand(30, 3, generator=g) < share, value, points[0])
    pixels[0] = torch.where(torch.rand(30, 2, generator=g) < share / 2, value, pixels[0])
    result = estimate_pose_and_focal(points, pixels, scene.principal, SMALL)
    assert same(result, clean, [1])
    assert torch.Tensor(result.cam_from_world).isfinite().all()
    assert result.score.isfinite().all()


def test_points_behind_the_camera_are_never_inliers():
    """A mirrored scene reprojects perfectly behind the camera; it must not count."""
    scene = Scene(2, dtype=torch.float64)
    mirrored = transform_points(invert(scene.pose), -transform_points(scene.pose, scene.points))
    behind = torch.arange(200) % 3 == 0
    points = torch.where(behind[None, :, None], mirrored, scene.points)
    result = estimate_pose_and_focal(points, scene.pixels, scene.principal, SMALL)
    assert torch.equal(result.inliers, ~behind.expand(2, 200))
    nothing = estimate_pose_and_focal(mirrored, scene.pixels, scene.principal, SMALL)
    assert (nothing.inlier_count < 60).all()


def test_noise_alone_has_no_focal_length():
    scene = Scene(30, 300, outliers=1.0, seed=7)
    result = estimate_pose_and_focal(*scene.inputs, SMALL)
    assert (result.inlier_count < 20).all()
    assert (result.status != PoseStatus.OK).float().mean() > 0.5


def test_masked_images_equal_images_without_the_masked_points(device):
    scene = Scene(4, outliers=0.3, noise_px=1.5, device=device)
    mask = torch.rand(4, 200, generator=torch.Generator().manual_seed(5)).to(device) < 0.7
    garbage = torch.where(mask[..., None], scene.points, 1e6)
    result = estimate_pose_and_focal(garbage, scene.pixels, scene.principal, SMALL, mask=mask)
    assert not result.inliers[~mask].any()
    again = estimate_pose_and_focal(*scene.inputs, SMALL, mask=mask)
    assert same(result, again, [0, 1, 2, 3])
    assert scene.succeeded(result).all()


def test_batch_equals_chunks_and_the_same_generator_the_same_result(device):
    scene = Scene(4, outliers=0.4, noise_px=1.5, device=device)

    def run(config):
        return estimate_pose_and_focal(*scene.inputs, config, generator=torch.Generator().manual_seed(3))

    whole, chunked = run(SMALL), run(replace(SMALL, max_chunk_bytes=1))
    assert torch.allclose(whole.camera.focal_px, chunked.camera.focal_px, rtol=1e-4)
    assert torch.equal(whole.status, chunked.status)
    assert same(whole, run(SMALL), range(4))
    unseeded = estimate_pose_and_focal(*scene.inputs, SMALL)
    assert same(unseeded, estimate_pose_and_focal(*scene.inputs, SMALL), range(4))


def test_shared_inputs_equal_those_of_each_image_and_the_diagonal_has_a_default():
    scene = Scene(3, noise_px=1.0)
    pixels = scene.pixels[0]
    own = estimate_pose_and_focal(scene.points, pixels.expand(3, -1, 2), scene.principal.expand(3, 2), SMALL)
    shared = estimate_pose_and_focal(scene.points, pixels, scene.principal, SMALL)
    assert same(own, shared, range(3))
    given = estimate_pose_and_focal(
        scene.points, pixels, scene.principal, SMALL, image_diagonal_px=torch.tensor(DIAGONAL)
    )
    assert same(given, shared, range(3))


def test_the_range_is_in_diagonals_of_the_image():
    """With one focal length in the sweep the refinement cannot come from far away; the diagonal moves it."""
    scene = Scene(10, noise_px=0.5)
    one = replace(SMALL, focals=1, min_focal_diagonals=1.0, max_focal_diagonals=1.0)
    right = estimate_pose_and_focal(*scene.inputs, one, image_diagonal_px=scene.focal.float())
    assert scene.succeeded(right).all()
    wrong = estimate_pose_and_focal(*scene.inputs, one, image_diagonal_px=20 * scene.focal.float())
    assert scene.succeeded(wrong).sum() < 5


@given(seed=st.integers(0, 1000), zoom=st.floats(0.1, 10.0), scale=st.floats(0.05, 20.0))
@settings(max_examples=10, deadline=None)
def test_scaling_the_image_or_the_world_scales_the_result(seed, zoom, scale):
    scene = Scene(1, 60, seed=seed, dtype=torch.float64)
    config = replace(SMALL, max_error_px=10.0 * zoom)
    result = estimate_pose_and_focal(
        scene.points * scale, scene.pixels * zoom, scene.principal * zoom, config
    )
    assert result.inlier_count.item() == 60
    assert abs(result.camera.focal_px[0, 0].item() / (zoom * scene.focal.item()) - 1) < 1e-7
    translation = matrix_from_se3(result.cam_from_world)[..., 3] / scale
    assert (translation - scene.pose[..., 3]).abs().max() < 1e-5


REFUSED = {
    r"points must have the shape \(batch, n, 3\)": {"points": torch.zeros(2, 9, 2)},
    "points must be float32 or float64": {
        "points": torch.zeros(2, 9, 3, dtype=torch.float16),
        "principal_point_px": torch.zeros(2, dtype=torch.float16),
    },
    "pixels must have the shape": {"pixels": torch.zeros(8, 2)},
    "pixels is torch.float64": {"pixels": torch.zeros(9, 2, dtype=torch.float64)},
    r"principal_point_px must have the shape \(2,\) or \(2, 2\)": {"principal_point_px": torch.ones(3, 2)},
    "principal_point_px is torch.float64": {"principal_point_px": torch.ones(2, dtype=torch.float64)},
    r"image_diagonal_px must have the shape \(\) or \(2,\)": {"image_diagonal_px": torch.ones(3)},
    "image_diagonal_px is torch.float32 on meta": {"image_diagonal_px": torch.ones(2, device="meta")},
    "mask must be bool": {"mask": torch.ones(2, 9)},
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_wrong_inputs_are_refused_with_a_sentence(sentence):
    inputs = {
        "points": torch.zeros(2, 9, 3),
        "pixels": torch.zeros(9, 2),
        "principal_point_px": torch.ones(2),
    }
    with pytest.raises(ValueError, match=sentence):
        estimate_pose_and_focal(**(inputs | REFUSED[sentence]))


@pytest.mark.parametrize(
    "bad",
    [
        {"samples": 0},
        {"focals": 0},
        {"max_error_px": 0.0},
        {"min_focal_diagonals": 0.0},
        {"min_focal_diagonals": 9.0},
    ],
)
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValueError, match=f"FocalRansacConfig.*{next(iter(bad))}"):
        FocalRansacConfig(**bad)


def test_nothing_waits_for_the_device():
    """Tensors without data refuse ``item``, ``nonzero`` and boolean indexing, all that would synchronise."""
    points, pixels = torch.zeros(3, 200, 3, device="meta"), torch.zeros(200, 2, device="meta")
    result = estimate_pose_and_focal(points, pixels, torch.zeros(2, device="meta"), SMALL)
    assert result.inliers.shape == (3, 200)
    assert result.camera.focal_px.device.type == "meta"


@pytest.mark.parametrize(("batch", "n"), [(0, 50), (0, 0), (3, 0), (3, 3)])
def test_nothing_to_do(batch, n):
    result = estimate_pose_and_focal(torch.zeros(batch, n, 3), torch.zeros(n, 2), torch.ones(2))
    assert result.cam_from_world.shape == (batch, 7)
    assert result.camera.focal_px.shape == (batch, 2)
    assert result.status.tolist() == [PoseStatus.TOO_FEW_POINTS] * batch
