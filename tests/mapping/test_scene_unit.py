"""Worlds in millimetres or kilometres are trained on in a unit that suits, and come back in theirs."""

import pytest
import torch
from reference.analytic_world import make_world

from acezero_gpu.mapping import FrameTable
from acezero_gpu.mapping.scene_unit import scale_head_, scaled_table, scene_unit
from acezero_gpu.network import Head, HeadConfig, SceneMap, ensemble_of


@pytest.mark.parametrize("factor", [1e3, 1e6])
def test_the_unit_follows_the_world(device, factor):
    """Twelve cameras six away from a ball of radius two."""
    poses = make_world().cam_from_world.to(device)
    assert scene_unit(poses) == 1.0
    scaled = poses.clone()
    scaled[..., 3] *= factor
    assert 0.2 * factor < scene_unit(scaled) < 5 * factor


def test_worlds_of_human_size_are_left_as_they_are(generator):
    """Neighbours from 5 mm to 2 m apart on walks of 500 steps, two cameras, and one that turns on a tripod."""
    poses = torch.eye(3, 4).repeat(500, 1, 1)
    for step in (0.005, 0.05, 0.5, 2.0):
        poses[:, 0, 3] = step * torch.arange(500)
        assert scene_unit(poses) == 1.0, step
    assert scene_unit(poses[:2]) == 1.0
    poses[:, :, 3] = 0.001 * torch.randn(500, 3, generator=generator)
    assert scene_unit(poses) == 1.0


def test_cameras_in_one_place_and_lost_ones_say_nothing():
    assert scene_unit(torch.eye(3, 4).repeat(5, 1, 1)) == 1.0
    assert scene_unit(torch.eye(3, 4)[None]) == 1.0
    assert scene_unit(torch.full((3, 3, 4), torch.nan)) == 1.0


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


@pytest.mark.parametrize("factor", [1e-5, 1e3, 1e6])
def test_a_map_in_any_unit_survives_half_precision(device, generator, tmp_path, factor):
    """In its file, and where a GPU multiplies in it."""
    head = Head(8, HeadConfig(width=16), torch.randn(3, generator=generator)).requires_grad_(False).to(device)
    features = torch.randn(1, 8, 4, 5, generator=generator).to(device)
    before = SceneMap(head, "e", 240, 1.0).scene_coordinates(features)
    SceneMap(scale_head_(head, factor), "e", 240, 1.0).save(tmp_path / "map.safetensors")
    after = SceneMap.load(tmp_path / "map.safetensors", device).scene_coordinates(features)
    torch.testing.assert_close(after / factor, before, rtol=2e-2, atol=2e-2)


def test_a_scaled_table_leaves_the_one_that_it_came_from():
    table = FrameTable(
        torch.arange(2), torch.ones(2, 3, 4), make_world().camera, depth_targets=torch.ones(2, 3, 4)
    )
    larger = scaled_table(table, 10.0)
    assert torch.equal(larger.cam_from_world[..., 3], torch.full((2, 3), 10.0))
    assert torch.equal(larger.cam_from_world[..., :3], table.cam_from_world[..., :3])
    assert torch.equal(larger.depth_targets, torch.full((2, 3, 4), 10.0))
    assert torch.equal(table.cam_from_world, torch.ones(2, 3, 4))
