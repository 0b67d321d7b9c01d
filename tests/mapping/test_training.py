"""Mapping rounds on a world with exact truth: maps, poses and focal length that get better, and what stays."""

import math
from dataclasses import replace

import pytest
import torch
from round_cases import CONFIG, map_error, train, with_poses

from acezero_gpu.geometry import camera_centres, rotation_angle_deg
from acezero_gpu.mapping import (
    CalibrationConfig,
    LossConfig,
    PoseRefinementConfig,
    ReestimationConfig,
    ScheduleConfig,
    TrainingConfig,
)


def test_a_round_learns_the_world(world):
    result = train(world)
    assert result.log[0].inlier_share < 0.3
    assert result.inlier_share > 0.9
    assert result.log[-1].loss < 0.2 * result.log[0].loss
    assert map_error(world, result) < 0.05
    assert torch.equal(result.cam_from_world, world.cam_from_world)
    assert torch.equal(result.camera.focal_px, world.camera.focal_px)  # held
    assert not any(parameter.requires_grad for parameter in result.head.parameters())


def test_the_same_seed_gives_the_same_map(world):
    """Whatever was drawn elsewhere, and without a trace in PyTorch's own generator."""
    short = replace(CONFIG, schedule=replace(CONFIG.schedule, iterations=30, cooldown_iterations=5))
    first = train(world, short, seed=3)
    torch.rand(17)
    before = torch.get_rng_state()
    again, other = (train(world, short, seed=seed) for seed in (3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    states = [result.head.state_dict() for result in (first, again, other)]
    for name in states[0]:
        torch.testing.assert_close(states[0][name], states[1][name], atol=1e-6, rtol=1e-5)
    assert (states[0]["output.weight"] - states[2]["output.weight"]).abs().max() > 1e-3


def test_a_round_of_few_patches_takes_fewer_steps(world):
    schedule = replace(CONFIG.schedule, iterations=200, max_epochs=2, min_iterations=10)
    patches = len(world.cam_from_world) * world.buffer().patches_per_frame
    result = train(world, replace(CONFIG, schedule=schedule))
    assert result.iterations == math.ceil(2 * patches / CONFIG.batch_size) < 200


def test_a_round_goes_on_from_a_given_head_and_leaves_it_as_it_was(world):
    short = replace(CONFIG, schedule=ScheduleConfig(name="constant", iterations=40, lr_max=0.0005))
    first = train(world)
    before = {name: value.clone() for name, value in first.head.state_dict().items()}
    warm, fresh = train(world, short, initial_head=first.head), train(world, short)
    assert warm.log[0].loss < 0.3 * fresh.log[0].loss
    assert warm.inlier_share > 0.9
    assert all(torch.equal(value, before[name]) for name, value in first.head.state_dict().items())


@pytest.mark.parametrize("name, lr", [("naive", 0.02), ("mlp", 0.002)])
def test_disturbed_poses_come_closer_to_the_truth(world, generator, name, lr):
    start = world.disturbed_poses(generator)
    config = replace(with_poses(name, lr=lr), schedule=replace(CONFIG.schedule, iterations=600))
    result = train(world, config, poses=start)
    before, after = world.pose_errors(start), world.pose_errors(result.cam_from_world)
    assert after[0] < 0.2 * before[0]
    assert after[1] < 0.7 * before[1]
    assert result.inlier_share > 0.9


@pytest.mark.parametrize("name", ["naive", "mlp"])
def test_poses_stay_while_they_wait(world, generator, name):
    start = world.disturbed_poses(generator)
    short = ScheduleConfig(name="constant", iterations=20)
    config = replace(with_poses(name, wait=20), schedule=short)
    torch.testing.assert_close(train(world, config, poses=start).cam_from_world, start, atol=2e-6, rtol=0)
    moving = replace(config, poses=replace(config.poses, wait=15))
    assert (train(world, moving, poses=start).cam_from_world - start).abs().max() > 1e-4


OFTEN = ReestimationConfig(start=60, interval=10, trust=0.1, sample=100)


@pytest.mark.parametrize("name", ["lm", "mlp+lm"])
def test_reestimated_poses_come_closer_to_the_truth(world, generator, name):
    """Map and poses start wrong together; the block keeps its size, though nothing but the map holds it."""
    start = world.disturbed_poses(generator)
    config = with_poses(name, lr=0.002, reestimation=OFTEN)
    result = train(world, config, poses=start)
    before, after = world.pose_errors(start), world.pose_errors(result.cam_from_world)
    assert after[0] < 0.15 * before[0]
    assert after[1] < 0.8 * before[1]
    assert result.inlier_share > 0.9
    spread, true_spread = (
        camera_centres(poses).std(dim=0).norm() for poses in (result.cam_from_world, start)
    )
    assert float(spread / true_spread) == pytest.approx(1, abs=0.1)


def test_a_block_that_is_right_does_not_walk_away(world):
    """In the frame of the truth, without any alignment. With a trust of 1 it does walk: by a tenth of the distance."""
    result = train(world, with_poses("lm", reestimation=OFTEN))
    shift = (camera_centres(result.cam_from_world) - camera_centres(world.cam_from_world)).norm(dim=-1)
    turn = rotation_angle_deg(result.cam_from_world[..., :3], world.cam_from_world[..., :3])
    assert shift.mean() < 0.2 and turn.mean() < 2
    assert result.inlier_share > 0.9


@pytest.mark.parametrize(
    "changes",
    [{"trust": 0.0, "start": 5}, {"start": 30}, {"start": 5, "min_inlier_share": 1.1}],
    ids=["no trust", "too late", "no inliers"],
)
def test_a_round_whose_frames_all_stay_is_the_same(world, generator, changes):
    """Re-estimation has draws of its own, so that even the batches stay."""
    start = world.disturbed_poses(generator)
    short = replace(CONFIG, schedule=ScheduleConfig(name="constant", iterations=30))
    still = train(world, short, poses=start)
    poses = PoseRefinementConfig(name="lm", reestimation=replace(OFTEN, **changes))
    result = train(world, replace(short, poses=poses), poses=start)
    torch.testing.assert_close(result.cam_from_world, start, atol=1e-5, rtol=0)
    assert result.log[-1].loss == pytest.approx(still.log[-1].loss, rel=1e-3)


def test_no_frame_is_located_while_poses_wait(world, generator):
    start = world.disturbed_poses(generator)
    poses = PoseRefinementConfig(name="lm", wait=30, reestimation=replace(OFTEN, start=5))
    short = replace(CONFIG, schedule=ScheduleConfig(name="constant", iterations=30), poses=poses)
    assert torch.equal(train(world, short, poses=start).cam_from_world, start)


@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_a_wrong_focal_length_moves_towards_the_truth(world, factor):
    short = replace(CONFIG.schedule, iterations=300)
    config = replace(CONFIG, schedule=short, calibration=CalibrationConfig(refine=True, lr=0.002))
    result = train(world, config, focal_factor=factor)
    ratio = float(result.camera.focal_px[0] / world.camera.focal_px[0])
    assert abs(ratio - 1) < 0.3 * abs(factor - 1)
    assert result.log[-1].focal_px == pytest.approx(float(result.camera.focal_px[0]), rel=1e-3)
    assert torch.equal(result.camera.principal_point_px, world.camera.principal_point_px)


def test_a_distorting_lens_is_taken_into_account(world):
    radial = torch.tensor([-0.3, 0.05], device=world.points.device)
    buffer = world.buffer()
    plane = world.camera.normalised(buffer.pixels)
    r2 = plane.square().sum(-1, keepdim=True)
    plane = plane * (1 + radial[0] * r2 + radial[1] * r2**2)
    buffer.pixels = plane * world.camera.focal_px + world.camera.principal_point_px
    told = train(world, buffer=buffer, table_changes={"radial": radial})
    untold = train(world, buffer=buffer)
    assert map_error(world, told) < 0.05
    assert map_error(world, told) < 0.6 * map_error(world, untold)


def test_known_depths_tell_how_far_a_single_view_sees(world):
    """One view says nothing about depth; a coarse grid of depths does."""
    depth = world.cam_from_world[0, 2, :3] @ world.points.T + world.cam_from_world[0, 2, 3]
    u, v = (world.pixels()[0] / 4).long().unbind(-1)
    inside = (u >= 0) & (u < 160) & (v >= 0) & (v < 120)
    grid = torch.zeros(1, 120, 160, device=world.points.device)
    grid[0, v[inside], u[inside]] = depth[inside]
    told = train(world, frames=[0], table_changes={"depth_targets": grid, "image_size": (480, 640)})
    untold = train(world, frames=[0])
    assert map_error(world, told) < 0.35
    assert map_error(world, told) < 0.3 * map_error(world, untold)


def test_only_the_frames_of_the_table_take_part(world):
    """Patches of other images may not even be there yet."""
    buffer = world.buffer()
    others = [row for row in range(len(world)) if row not in (3, 5, 7, 10)]
    buffer.features[others] = math.nan
    buffer.pixels[others] = math.nan
    result = train(world, buffer=buffer, frames=[7, 3, 10, 5])
    assert result.inlier_share > 0.9
    assert map_error(world, result) < 0.05


def test_a_good_map_ends_the_round_early(world):
    config = replace(
        CONFIG,
        schedule=replace(CONFIG.schedule, iterations=2000, cooldown_iterations=50, cooldown_inlier_share=0.6),
    )
    heard = []
    result = train(world, config, progress=heard.append)
    assert result.iterations < 1000
    assert result.iterations == result.log[-1].iteration == result.log[-1].total_iterations
    assert tuple(heard) == result.log
    started = next(entry for entry in result.log if entry.total_iterations < 2000)
    assert started.inlier_share > 0.6
    assert started.total_iterations == started.iteration + 50


def test_numbers_that_are_no_numbers_stop_the_round(world):
    buffer = world.buffer()
    buffer.features[3] = math.nan
    config = replace(CONFIG, report_every=10)
    with pytest.raises(FloatingPointError, match="not finite after 10 steps"):
        train(world, config, buffer=buffer)


def test_pixels_in_a_configuration_scale_with_the_resolution():
    config = TrainingConfig(loss=LossConfig(soft_clamp_px=50.0, hard_clamp_px=1000.0), inlier_px=10.0).scaled(
        0.25
    )
    assert (config.inlier_px, config.loss.soft_clamp_px, config.loss.hard_clamp_px) == (2.5, 12.5, 250)
    assert (config.loss.wide_clamp_px, config.loss.narrow_clamp_px) == (75.0, 6.25)
    assert config.loss.soft_clamp_min_px == 0.25
    assert config.loss.min_depth == LossConfig().min_depth
