"""P3P against exact poses, PoseLib and degenerate samples."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.posed_scene import random_poses
from reference.slow_absolute_pose import p3p_one

from acezero_gpu.geometry import PinholeCamera, invert, reproject, transform_points
from acezero_gpu.pnp import P3PSolutions, p3p
from acezero_gpu.pnp.conics import isolated_cubic_root

CAMERA = PinholeCamera(torch.tensor([525.0, 525.0]).double(), torch.tensor([320.0, 240.0]).double())


def random_problems(count: int, seed: int = 0, window_px: float = 640.0, depth_range: float = 9.0):
    """Bearings, points, poses and pixels in float64; a small window makes a narrow field of view."""
    g = torch.Generator().manual_seed(seed)
    pixels = 100 + window_px * torch.rand(count, 3, 2, generator=g, dtype=torch.float64)
    bearings = CAMERA.bearings(pixels)
    depth = 1 + depth_range * torch.rand(count, 3, 1, generator=g, dtype=torch.float64)
    pose = random_poses(count, g)
    return bearings, transform_points(invert(pose), bearings * depth), pose, pixels


def best_slot_error(solutions: P3PSolutions, pose: torch.Tensor) -> torch.Tensor:
    """Distance of the closest valid slot to the true pose; infinite if none is valid."""
    difference = solutions.cam_from_world.double() - pose[:, None]
    error = difference.flatten(-2).norm(dim=-1)
    return torch.where(solutions.valid, error, math.inf).amin(1)


@pytest.mark.parametrize(
    ("precision", "count", "window_px", "depth_range", "bound", "share"),
    [
        (torch.float64, 100_000, 500.0, 9.0, 1e-6, 0.99999),
        (torch.float32, 100_000, 500.0, 9.0, 1e-2, 0.999),
        (torch.float64, 10_000, 20.0, 0.2, 1e-6, 0.9999),
        (torch.float32, 10_000, 20.0, 0.2, 1e-2, 0.999),
    ],
)
def test_finds_the_true_pose(device, precision, count, window_px, depth_range, bound, share):
    bearings, points, pose, _ = random_problems(count, 1, window_px, depth_range)
    solutions = p3p(bearings.to(device, precision), points.to(device, precision))
    error = best_slot_error(solutions, pose.to(device))
    assert (error < bound).double().mean() > share


def test_valid_slots_reproject_and_are_rotations(device, dtype):
    bearings, points, _, pixels = random_problems(5000, 2)
    solutions = p3p(bearings.to(device, dtype), points.to(device, dtype))
    pose = solutions.cam_from_world.double().cpu()
    valid = solutions.valid.cpu()
    seen = reproject(points[:, None].expand(-1, 4, -1, -1), pose, CAMERA)
    error = (seen.pixels - pixels[:, None]).norm(dim=-1).amax(-1)[valid]
    assert (seen.depth[valid] > 0).all()
    assert error.quantile(0.99) < (0.05 if dtype == torch.float32 else 1e-8)
    rotation = pose[..., :3][valid]
    identity = torch.eye(3, dtype=torch.float64)
    assert (rotation @ rotation.mT - identity).abs().max() < 1e3 * torch.finfo(dtype).eps
    assert (torch.linalg.det(rotation) > 0).all()


def test_same_solutions_as_poselib():
    """Every pose that PoseLib finds is in a valid slot, and nothing else is."""
    bearings, points, _, _ = random_problems(1000, 3)
    solutions = p3p(bearings, points)
    missing = extra = total = 0
    for i in range(len(points)):
        theirs = p3p_one(bearings[i].numpy(), points[i].numpy())
        ours = solutions.cam_from_world[i][solutions.valid[i]].numpy()
        total += len(theirs)
        missing += sum(not any(np.abs(a - b).max() < 1e-4 for b in ours) for a in theirs)
        extra += sum(not any(np.abs(a - b).max() < 1e-4 for b in theirs) for a in ours)
    assert total > 1500
    assert missing <= 2
    assert extra <= 2


def test_outlier_samples_agree_with_poselib_on_solvability():
    """Points that fit no pose often have no solution: both solvers must find as many."""
    bearings, points, _, _ = random_problems(500, 4)
    points = points.roll(1, 0)
    solutions = p3p(bearings, points)
    theirs = torch.tensor([len(p3p_one(b.numpy(), x.numpy())) for b, x in zip(bearings, points, strict=True)])
    assert (theirs == solutions.valid.sum(1)).double().mean() > 0.99


@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_symmetric_triangles(dtype, offset):
    """Equal sides and equal bearing angles make coefficients of the cubic vanish."""
    angle = torch.tensor([0.0, 2.0, 4.0], dtype=torch.float64) * math.pi / 3
    points = torch.stack([angle.cos(), angle.sin(), torch.zeros_like(angle)], dim=-1)
    cam = points + torch.tensor([0.0, 0.0, 4.0 + offset], dtype=torch.float64)
    bearings = torch.nn.functional.normalize(cam, dim=-1)
    solutions = p3p(bearings[None].to(dtype), points[None].to(dtype))
    truth = torch.eye(3, 4, dtype=torch.float64)
    truth[2, 3] = 4.0 + offset
    assert best_slot_error(solutions, truth[None]) < (2e-2 if dtype == torch.float32 else 1e-6)


DEGENERATE = {
    "collinear": lambda b, x: (b, torch.stack([x[:, 0], x[:, 1], 2 * x[:, 1] - x[:, 0]], dim=1)),
    "repeated point": lambda b, x: (b, x[:, [0, 0, 2]]),
    "all points equal": lambda b, x: (b, x[:, [1, 1, 1]]),
    "equal bearings": lambda b, x: (b[:, [0, 0, 2]], x),
    "zeros": lambda b, x: (torch.zeros_like(b), torch.zeros_like(x)),
    "nan point": lambda b, x: (b, x.index_fill(1, torch.tensor([1]), math.nan)),
    "infinite point": lambda b, x: (b, x.index_fill(1, torch.tensor([1]), math.inf)),
    "nan bearing": lambda b, x: (b.index_fill(1, torch.tensor([1]), math.nan), x),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_samples_have_no_valid_slot(name, dtype):
    bearings, points, _, _ = random_problems(200, 5)
    solutions = p3p(*(t.to(dtype) for t in DEGENERATE[name](bearings, points)))
    assert not solutions.valid.any()
    assert solutions.cam_from_world.isfinite().all()


@given(seed=st.integers(0, 10_000), scale=st.floats(1e-3, 1e3), shift=st.floats(-100, 100))
@settings(max_examples=20, deadline=None)
def test_scale_and_origin_do_not_matter(seed, scale, shift):
    """A world scaled and moved gives the same rotations and scaled translations."""
    bearings, points, _, _ = random_problems(50, seed)
    moved = p3p(bearings, points * scale + shift)
    plain = p3p(bearings, points)
    same = (plain.valid == moved.valid).all(1)
    assert same.double().mean() > 0.95
    both = plain.valid & moved.valid
    difference = (plain.cam_from_world - moved.cam_from_world)[..., :3].flatten(-2).norm(dim=-1)[both]
    assert difference.median() < 1e-6


def test_batch_dimensions_and_loop(dtype):
    bearings, points, _, _ = random_problems(24, 6)
    bearings, points = bearings.to(dtype), points.to(dtype)
    whole = p3p(bearings.reshape(2, 3, 4, 3, 3), points.reshape(2, 3, 4, 3, 3))
    assert whole.cam_from_world.shape == (2, 3, 4, 4, 3, 4)
    for i in range(24):
        one = p3p(bearings[i], points[i])
        assert torch.equal(one.valid, whole.valid.flatten(0, 2)[i])
        there = whole.cam_from_world.flatten(0, 2)[i][one.valid]
        assert torch.allclose(
            one.cam_from_world[one.valid], there, atol=1e-3 if dtype == torch.float32 else 1e-9
        )


def test_a_bad_sample_leaves_the_others_bit_identical(dtype):
    bearings, points, _, _ = random_problems(64, 7)
    bearings, points = bearings.to(dtype), points.to(dtype)
    clean = p3p(bearings, points)
    spoilt = points.clone()
    spoilt[10], spoilt[20] = math.nan, 0
    result = p3p(bearings, spoilt)
    others = [i for i in range(64) if i not in (10, 20)]
    assert torch.equal(clean.cam_from_world[others], result.cam_from_world[others])
    assert torch.equal(clean.valid[others], result.valid[others])


def test_empty_batch():
    assert p3p(torch.zeros(0, 3, 3), torch.zeros(0, 3, 3)).cam_from_world.shape == (0, 4, 3, 4)


def test_cubic_root_is_a_root(dtype):
    """Also for triple roots, vanishing coefficients and three real roots; numpy gives the reference."""
    g = torch.Generator().manual_seed(0)
    coefficients = torch.randn(2000, 4, generator=g, dtype=torch.float64)
    coefficients[:100, 0] = 0
    coefficients[100:200, :3] = 0
    coefficients[200:300] = torch.tensor([-1.0, 3, -3, 1])
    coefficients[300:400] = torch.tensor([0.0, -1, 0, 1])
    root = isolated_cubic_root(*coefficients.to(dtype).unbind(-1)).double()
    for c, ours in zip(coefficients.numpy(), root.tolist(), strict=True):
        nearest = np.abs(np.roots(c[::-1]) - ours).min()
        accuracy = 2e-2 if dtype == torch.float32 else 1e-4  # the triple root loses two thirds of the digits
        assert nearest < accuracy * max(1.0, abs(ours))
