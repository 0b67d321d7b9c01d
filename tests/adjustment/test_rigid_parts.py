"""Parts of one scale: what a turn of the camera on the spot separates, and what holds it together all the same."""

import pytest
import torch
from reference.turning_walk import TURN, WALK, walk_with_turn

from acezero_gpu.adjustment.rigid_parts import MIN_POINTS, rigid_parts


def test_a_turn_on_the_spot_separates_what_is_before_from_what_is_behind(device):
    label = rigid_parts(*walk_with_turn(device)).cpu()
    before, behind = label[:WALK], label[-WALK:]
    assert len(before.unique()) == len(behind.unique()) == 1
    assert {int(before[0]), int(behind[0])} == {0, 1}
    assert set(label.tolist()) == {0, 1}  # the views of the turn are with either


@pytest.mark.parametrize(("across", "parts"), [(MIN_POINTS, 1), (MIN_POINTS - 1, 2)])
def test_points_with_parallax_that_both_sides_see_make_it_one(device, across, parts):
    assert len(rigid_parts(*walk_with_turn(device, across)).unique()) == parts


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
