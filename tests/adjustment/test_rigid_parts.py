"""Parts of one scale: what a turn of the camera on the spot separates, and what holds it together all the same."""

import pytest
import torch
from reference.turning_walk import TURN, WALK, walk_with_turn

from acezero_gpu.adjustment.rigid_parts import RigidPartsConfig, _joined, rigid_parts


def test_a_turn_on_the_spot_separates_what_is_before_from_what_is_behind(device):
    label = rigid_parts(*walk_with_turn(device)).cpu()
    before, behind = label[:WALK], label[-WALK:]
    assert len(before.unique()) == len(behind.unique()) == 1
    assert {int(before[0]), int(behind[0])} == {0, 1}
    assert set(label.tolist()) == {0, 1}  # the views of the turn are with either


@pytest.mark.parametrize(("across", "parts"), [(10, 1), (9, 2)])
def test_points_with_parallax_that_both_sides_see_make_it_one(device, across, parts):
    assert len(rigid_parts(*walk_with_turn(device, across)).unique()) == parts


LATER_WALK = {"second_scale": 20.0, "second_step": 5.0, "turn_sees_both": True}
"""Its wall shows no parallax between the views of the turn, the first one does: these are of both parts."""


@pytest.mark.parametrize(("turn_length", "parts"), [(0.6, 2), (3.0, 1)])
def test_views_of_both_parts_tie_them_if_they_stand_far_apart(device, turn_length, parts):
    """0.6 is a twenty-fifth of the second walk's median baseline, 3 a fifth."""
    walk = walk_with_turn(device, turn_length=turn_length, **LATER_WALK)
    label = rigid_parts(*walk)
    assert len(label.unique()) == parts
    # Views of several parts are with the largest: the turn's with the first, whose wall they see with parallax.
    assert (label[: WALK + TURN] == label[0]).all()
    loose = rigid_parts(*walk, RigidPartsConfig(min_baseline_share=0.0))
    assert (loose == 0).all()


def test_parts_that_were_joined_may_tie_a_further_one():
    """1-5-6 and 4-5-6 share the baseline 5-6; only then is 1-4, of the part 1-4-7, between two of their views."""
    part = torch.tensor([0, 0, 1, 1, 2, 2, 2])
    a = torch.tensor([1, 5, 4, 4, 1, 4, 1])
    b = torch.tensor([5, 6, 5, 6, 4, 7, 7])
    assert (_joined(part, a, b, torch.ones(7), 8, 0.1) == 0).all()
    assert len(_joined(part[:4], a[:4], b[:4], torch.tensor([1.0, 0.05, 1, 1]), 8, 0.1).unique()) == 2


def test_world_frame_and_scale_do_not_matter(device):
    points, centres, view, point = walk_with_turn(device)
    turned = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)))[0].to(device)
    moved = rigid_parts(30 * points @ turned + 5, 30 * centres @ turned + 5, view, point)
    assert torch.equal(moved, rigid_parts(points, centres, view, point))


def test_many_views_of_the_same_points_are_one(device):
    """More views see every point than are looked at."""
    random = torch.Generator().manual_seed(3)
    angle = torch.linspace(0, 6, 90)
    centres = torch.stack([4 * angle.cos(), 4 * angle.sin(), 0 * angle], dim=1)
    points = torch.rand(4000, 3, generator=random) - 0.5
    seen = torch.rand(len(points), 90, generator=random) < 0.5
    point, view = seen.nonzero().unbind(1)
    label = rigid_parts(*(x.to(device) for x in (points, centres, view, point)))
    assert int((label == 0).sum()) > 80
    assert set(label.tolist()) <= {0, -1}


def test_views_without_points_are_in_no_part(device):
    points, centres, view, point = walk_with_turn(device)
    centres = torch.cat([centres, centres[:2] + 1])
    label = rigid_parts(points, centres, view, point)
    assert label[-2:].tolist() == [-1, -1]
    assert rigid_parts(points, centres, view[:0], point[:0]).tolist() == [-1] * len(centres)
    assert rigid_parts(points[:0], centres, view[:0], point[:0]).tolist() == [-1] * len(centres)


def test_few_views_are_no_part(device):
    points, centres, view, point = walk_with_turn(device)
    kept = (view < WALK + TURN // 2) | (view >= 2 * WALK + TURN - 3)
    label = rigid_parts(points, centres, view[kept], point[kept])
    assert label[:WALK].tolist() == [0] * WALK
    assert label[-3:].tolist() == [-1] * 3
