"""Pose tables: where they start, that they stay rotations, and who moves whom."""

import pytest
import torch
from reference.posed_scene import random_poses

from acezero_gpu.geometry import compose, invert, rotation_angle_deg
from acezero_gpu.mapping import PoseRefinementConfig
from acezero_gpu.mapping.pose_refinement import PoseTable, make_pose_table


def table_of(name: str, device: torch.device, generator: torch.Generator, **changes: object) -> PoseTable:
    poses = random_poses(6, generator).float().to(device)
    torch.manual_seed(1)
    return make_pose_table(poses, PoseRefinementConfig(name=name, **changes))


def moved(table: PoseTable, steps: int = 8, lr: float = 0.05, row: int | None = None) -> torch.Tensor:
    """The poses after some descent towards arbitrary translations and rotations."""
    optimiser = torch.optim.AdamW(table.parameters(), lr=lr)
    target = torch.linspace(-2, 2, 12, device=table.initial.device).view(3, 4)
    for _ in range(steps):
        rows = slice(None) if row is None else slice(row, row + 1)
        loss = (table()[rows] - target).square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return table().detach()


@pytest.mark.parametrize("name", ["none", "naive", "mlp", "lm", "mlp+lm"])
def test_it_starts_at_the_given_poses(device, generator, name):
    table = table_of(name, device, generator)
    torch.testing.assert_close(table(), table.initial, atol=2e-6, rtol=0)


def test_aces_random_start_is_off_the_given_poses(device, generator):
    table = table_of("mlp", device, generator, zero_initialised=False)
    offset = (table() - table.initial).abs()
    assert 1e-4 < offset.max() < 0.1


def test_the_network_has_the_size_of_ace0s(device, generator):
    table = table_of("mlp", device, generator)
    assert sum(parameter.numel() for parameter in table.parameters()) == 70_924
    for name in ("none", "lm"):
        assert list(table_of(name, device, generator).parameters()) == []


@pytest.mark.parametrize("name", ["naive", "mlp"])
def test_poses_move_and_stay_rigid(device, generator, name):
    table = table_of(name, device, generator)
    poses = moved(table)
    rotation = poses[..., :3]
    identity = torch.eye(3, device=device).expand_as(rotation)
    torch.testing.assert_close(rotation @ rotation.transpose(1, 2), identity, atol=1e-5, rtol=0)
    assert (torch.linalg.det(rotation) > 0.99).all()
    assert (rotation_angle_deg(rotation, table.initial[..., :3]) > 1).all()
    assert ((poses - table.initial)[..., 3].norm(dim=-1) > 0.05).all()


@pytest.mark.parametrize("name", ["naive", "mlp"])
def test_a_small_step_lowers_the_loss(device, generator, name):
    """The gradient is that of the poses which ``forward`` gives."""
    table = table_of(name, device, generator)
    target = table.initial + 0.1 * torch.randn(6, 3, 4, generator=generator).to(device)

    def loss() -> torch.Tensor:
        return (table() - target).square().sum()

    before = loss()
    before.backward()
    before = before.detach()
    slope = sum(float(p.grad.square().sum()) for p in table.parameters() if p.grad is not None)
    step = 1e-2 / max(slope, 1.0)
    with torch.no_grad():
        for parameter in table.parameters():
            if parameter.grad is not None:
                parameter -= step * parameter.grad
    assert float(before - loss().detach()) == pytest.approx(step * slope, rel=0.1)


def test_free_poses_move_alone(device, generator):
    table = table_of("naive", device, generator)
    poses = moved(table, row=2)
    still = torch.tensor([row for row in range(6) if row != 2], device=device)
    torch.testing.assert_close(poses[still], table.initial[still], atol=1e-6, rtol=0)
    assert (poses[2] - table.initial[2]).abs().max() > 0.05


def test_the_given_poses_are_copied(device, generator):
    poses = random_poses(3, generator).float().to(device)
    table = make_pose_table(poses, PoseRefinementConfig(name="none"))
    before = table().clone()
    poses.zero_()
    assert torch.equal(table(), before)


@pytest.mark.parametrize("name", ["lm", "mlp+lm", "naive"])
def test_a_table_goes_where_it_is_moved_to_and_goes_on_from_there(device, generator, name):
    """Without a jump: what was learnt before is neither lost nor added once more."""
    table = table_of(name, device, generator)
    if name != "lm":
        assert (moved(table) - table.initial).abs().max() > 0.05
    learnt = table.learnt().detach().clone()
    target = random_poses(6, torch.Generator().manual_seed(5)).float().to(device)
    for _ in range(2):
        table.move_to(target)
        torch.testing.assert_close(table().detach(), target, atol=3e-6, rtol=0)
    torch.testing.assert_close(table.learnt().detach(), learnt, atol=0, rtol=0)
    table.move_to(learnt)
    torch.testing.assert_close(table().detach(), learnt, atol=3e-6, rtol=0)


def test_corrections_go_on_learning_on_top_of_a_move(device, generator):
    """The gradient passes the move, and what is learnt acts in the frame that it moved to."""
    table = table_of("mlp+lm", device, generator)
    moved(table)
    start = random_poses(6, torch.Generator().manual_seed(5)).float().to(device)
    table.move_to(start)
    before = table.learnt().detach().clone()
    after = moved(table, steps=20, lr=1e-3)
    target = torch.linspace(-2, 2, 12, device=device).view(3, 4)
    assert (after - target).square().sum() < 0.9 * (start - target).square().sum()
    expected = compose(compose(start, invert(before)), table.learnt().detach())
    torch.testing.assert_close(after, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["naive", "mlp", "mlp+lm"])
def test_fixed_frames_stay_where_they_are_to_the_last_bit(device, generator, name):
    poses = random_poses(6, generator).float().to(device)
    fixed = torch.tensor([True, False, False, True, False, False], device=device)
    table = make_pose_table(poses, PoseRefinementConfig(name=name), fixed)
    if name == "mlp+lm":
        table.move_to(random_poses(6, generator).float().to(device))
    after = moved(table)
    assert torch.equal(after[fixed], poses[fixed])
    assert (after[~fixed] - poses[~fixed]).abs().amax((1, 2)).min() > 1e-3
