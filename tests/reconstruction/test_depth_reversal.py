"""A block whose depths could as well be the other way round is told from one whose could not."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from acezero_gpu.adjustment.bundle_adjustment import BundleAdjustmentConfig
from acezero_gpu.adjustment.joint import JointResult
from acezero_gpu.geometry import PinholeCamera, reproject, rotation_angle_deg
from acezero_gpu.geometry.pose import retract
from acezero_gpu.reconstruction.depth_reversal import reversal_cost_ratio, reversed_points

CAMERA = PinholeCamera.centred(400.0, 640, 480)
BUNDLE = BundleAdjustmentConfig(loss="cauchy", loss_scale_px=1.0, max_iterations=60)


def photographed(baseline: float, relief: float, noise_px: float = 0.3) -> tuple[JointResult, Tensor]:
    """Six cameras in a row of this length, 10 away from a relief of this depth, and what they see of it."""
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(250, 3, generator=generator) * 2 - 1
    points = points * torch.tensor([6.0, 4.0, 0.5 * relief]) + torch.tensor([0.0, 0.0, 10.0])
    poses = torch.eye(3, 4).repeat(6, 1, 1)
    poses[:, 0, 3] = torch.linspace(0.0, -baseline, 6)
    poses[:, 1, 3] = 0.3 * baseline * torch.tensor([0.0, 1.0, 0.0, -1.0, 0.5, 0.0])
    view, point = (
        part.flatten() for part in torch.meshgrid(torch.arange(6), torch.arange(250), indexing="ij")
    )
    pixels = reproject(points[point][:, None], poses[view], CAMERA).pixels[:, 0]
    pixels = pixels + noise_px * torch.randn(pixels.shape, generator=generator)
    nothing = torch.zeros(len(view))
    joint = JointResult(poses, CAMERA, torch.zeros(2), points, view, point, point, nothing)
    return joint, pixels


def ratio(joint: JointResult, pixels: Tensor) -> float:
    generator = torch.Generator().manual_seed(1)
    return reversal_cost_ratio(joint, pixels, BUNDLE, max_error_px=24.0, generator=generator)


def test_near_and_far_change_places_on_their_rays():
    joint, _ = photographed(1.0, 4.0)
    points = reversed_points(joint)
    torch.testing.assert_close(points / points[:, 2:], joint.points / joint.points[:, 2:])
    median = (1 / joint.points[:, 2]).median()
    torch.testing.assert_close(1 / points[:, 2] - median, median - 1 / joint.points[:, 2], atol=1e-5, rtol=0)
    moved = replace(joint, cam_from_world=retract(joint.cam_from_world, torch.full((6, 6), 0.1)))
    # In the world of the first camera, wherever that stands.
    again = reversed_points(moved)
    pose = moved.cam_from_world[0]
    seen, before = again @ pose[:, :3].T + pose[:, 3], moved.points @ pose[:, :3].T + pose[:, 3]
    torch.testing.assert_close(seen[:, :2] / seen[:, 2:], before[:, :2] / before[:, 2:], atol=1e-4, rtol=1e-4)


def test_much_parallax_leaves_no_doubt():
    assert ratio(*photographed(3.0, 6.0)) > 10


def test_hardly_any_parallax_leaves_both():
    assert ratio(*photographed(0.05, 1.0)) < 1.5


@pytest.mark.parametrize("baseline", [1.0, 3.0])
def test_the_wrong_way_round_loses_to_the_right_one(baseline):
    joint, pixels = photographed(baseline, 4.0)
    wrong = replace(joint, points=reversed_points(joint))
    assert ratio(wrong, pixels) < 1 < ratio(joint, pixels)


def test_without_noise_nothing_comes_near():
    joint, pixels = photographed(1.0, 4.0, noise_px=0.0)
    assert ratio(joint, pixels) > 100
    assert rotation_angle_deg(joint.cam_from_world[:, :, :3], torch.eye(3)).max() < 1e-3
