"""Worlds in millimetres or kilometres are trained on in a unit that suits, and come back in theirs."""

import pytest
import torch
from reference.analytic_world import make_world

from acezero_gpu.mapping import FrameTable
from acezero_gpu.mapping.scene_unit import SANE_DEPTHS, scale_head_, scaled_table, scene_unit
from acezero_gpu.network import Head, HeadConfig, ensemble_of


@pytest.mark.parametrize("factor", [1e-5, 1e-3, 1e3, 1e6])
def test_the_unit_follows_the_world(device, factor):
    """Twelve cameras six away from a ball of radius two."""
    poses = make_world().cam_from_world.to(device)
    assert scene_unit(poses) == 1.0
    scaled = poses.clone()
    scaled[..., 3] *= factor
    assert 0.2 * factor < scene_unit(scaled) < 5 * factor


def test_worlds_of_human_size_are_left_as_they_are(generator):
    """Neighbours from 5 mm to 2 m apart on walks of 500 steps, and two cameras."""
    poses = torch.eye(3, 4).repeat(500, 1, 1)
    for step in (0.005, 0.05, 0.5, 2.0):
        poses[:, 0, 3] = step * torch.arange(500)
        assert scene_unit(poses) == 1.0, step
    assert scene_unit(poses[:2]) == 1.0


def test_cameras_in_one_place_and_lost_ones_say_nothing():
    assert scene_unit(torch.eye(3, 4).repeat(5, 1, 1)) == 1.0
    assert scene_unit(torch.eye(3, 4)[None]) == 1.0
    assert scene_unit(torch.full((3, 3, 4), torch.nan)) == 1.0
    assert SANE_DEPTHS[0] < 1.0 < SANE_DEPTHS[1]


@pytest.mark.parametrize("count", [1, 2])
def test_a_scaled_head_predicts_scaled_points(device, generator, count):
    head = ensemble_of(
        [Head(8, HeadConfig(width=16), torch.randn(3, generator=generator)) for _ in range(count)]
    )
    head = head.to(device)
    features = torch.randn(20, 8, generator=generator).to(device)
    before = head.of_all(features).detach()
    after = scale_head_(head, 250.0).of_all(features).detach()
    torch.testing.assert_close(after, 250.0 * before, rtol=1e-4, atol=1e-3)


def test_a_scaled_table_leaves_the_one_that_it_came_from():
    table = FrameTable(
        torch.arange(2), torch.ones(2, 3, 4), make_world().camera, depth_targets=torch.ones(2, 3, 4)
    )
    larger = scaled_table(table, 10.0)
    assert torch.equal(larger.cam_from_world[..., 3], torch.full((2, 3), 10.0))
    assert torch.equal(larger.cam_from_world[..., :3], table.cam_from_world[..., :3])
    assert torch.equal(larger.depth_targets, torch.full((2, 3, 4), 10.0))
    assert torch.equal(table.cam_from_world, torch.ones(2, 3, 4))
