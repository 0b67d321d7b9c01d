"""Mapping rounds of several heads, and of worlds that are not in metres."""

import copy
from dataclasses import replace

import pytest
import torch
from round_cases import CONFIG, train, with_poses

from acezero_gpu.geometry import camera_centres
from acezero_gpu.mapping import FrameTable, ScheduleConfig, TrainingConfig, view_clusters
from acezero_gpu.mapping.calibration import FocalScale
from acezero_gpu.mapping.pose_refinement import make_pose_table
from acezero_gpu.mapping.training_step import TrainingStep
from acezero_gpu.network import Head, ensemble_of


def test_the_heads_of_an_ensemble_learn_their_own_frames(world):
    result = train(world, heads=2)
    assert result.head.count == 2
    assert result.inlier_share > 0.9
    errors = (result.head.of_all(world.features) - world.points).norm(dim=-1).median(dim=1).values
    assert (errors < 0.06).all()
    clusters = view_clusters(world.cam_from_world, 2)
    centres = camera_centres(world.cam_from_world)
    for centre, rows in zip(result.head.centre, clusters, strict=True):
        torch.testing.assert_close(centre, centres[rows.to(centres.device)].mean(0))


def test_each_head_of_an_ensemble_takes_the_step_of_a_head_alone(world):
    """Of the same weights and draws, on its own cluster of frames."""
    clusters = view_clusters(world.cam_from_world, 2)
    table = FrameTable(torch.arange(len(world)).to(world.points.device), world.cam_from_world, world.camera)
    heads = [
        Head(world.features.shape[1], CONFIG.head, torch.zeros(3)).to(world.points.device) for _ in clusters
    ]

    def stepped(config: TrainingConfig, frames: FrameTable, head: Head, draws: torch.Generator) -> Head:
        poses = make_pose_table(frames.cam_from_world, config.poses)
        head = copy.deepcopy(head)
        TrainingStep(world.buffer(), frames, config, head, poses, FocalScale(frames.camera), draws)(
            0, 0.0, 0.001
        )
        return head

    def draws() -> torch.Generator:
        return torch.Generator(device=world.points.device).manual_seed(4)

    together = stepped(CONFIG, table, ensemble_of(heads), draws())
    one_after_another = draws()
    for row, (head, rows) in enumerate(zip(heads, clusters, strict=True)):
        rows = rows.to(world.points.device)
        own = FrameTable(table.frames[rows], table.cam_from_world[rows], world.camera)
        alone = stepped(CONFIG, own, head, one_after_another)
        for name, parameter in alone.named_parameters():
            gradient = together.get_parameter(name).grad[row]
            scale = float(parameter.grad.abs().max())
            torch.testing.assert_close(gradient, parameter.grad, atol=1e-4 * scale, rtol=1e-3)
            torch.testing.assert_close(together.get_parameter(name)[row], parameter, atol=5e-5, rtol=0)


def test_poses_are_not_reestimated_against_several_heads(world):
    with pytest.raises(ValueError, match="an ensemble starts afresh"):
        train(world, with_poses("lm"), heads=2)


@pytest.mark.parametrize("heads", [1, 2])
def test_a_world_in_millimetres_is_learnt_like_one_in_metres(world, heads):
    small = world.in_unit(0.001)
    result = train(small, heads=heads)
    assert result.inlier_share > 0.9
    points = result.head.of_all(world.features)[0]
    assert (points / 1000 - world.points).norm(dim=-1).median() < 0.06
    assert torch.equal(result.cam_from_world, small.cam_from_world), "poses that stay must not be rounded"
    again = replace(CONFIG, schedule=ScheduleConfig(name="constant", iterations=20, lr_max=0.0005))
    if heads == 1:
        assert train(small, again, initial_head=result.head).inlier_share > 0.9
    else:
        with pytest.raises(ValueError, match="an ensemble starts afresh"):
            train(small, again, initial_head=result.head)


def test_disturbed_poses_in_millimetres_come_closer_too(world, generator):
    small = world.in_unit(0.001)
    start = world.disturbed_poses(generator)
    start[..., 3] *= 1000
    config = replace(with_poses("naive", lr=0.006), schedule=replace(CONFIG.schedule, iterations=600))
    result = train(small, config, poses=start)
    before, after = small.pose_errors(start), small.pose_errors(result.cam_from_world)
    assert after[0] < 0.2 * before[0]
    assert after[1] < 0.8 * before[1]
