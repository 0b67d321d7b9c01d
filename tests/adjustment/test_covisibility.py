"""Which views see the same place: bounded in number, near and far alike, and none that look elsewhere."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from acezero_gpu.adjustment.covisibility import covisible_pairs
from acezero_gpu.adjustment.joint import JointResult
from acezero_gpu.geometry import PinholeCamera


def row_of_cameras(views: int, device: torch.device) -> JointResult:
    """Cameras along a wall, side by side, one unit from the first to the last of each ten; all look straight at it."""
    x = torch.arange(views) * 0.1
    poses = torch.eye(3, 4).repeat(views, 1, 1)
    poses[:, 0, 3] = -x
    camera = PinholeCamera.centred(100.0, 100, 100)
    across = torch.arange(-0.5, views * 0.1 + 0.5, 0.05)
    points = torch.stack(torch.meshgrid(across, torch.arange(-0.45, 0.5, 0.1), indexing="ij"), -1).flatten(
        0, 1
    )
    points = torch.cat([points, torch.ones(len(points), 1)], dim=1)
    # A camera sees half a unit to each side.
    seen = ((points[None, :, 0] - x[:, None]).abs() < 0.5).nonzero()
    view, point = seen.unbind(-1)
    everything = (points, view, point, point, torch.zeros(len(view)))
    return JointResult(
        poses.to(device),
        camera.to(device),
        torch.zeros(2, device=device),
        *(x.to(device) for x in everything),
    )


def partners_of(pairs: Tensor, view: int) -> list[int]:
    other = pairs[(pairs == view).any(1)].sum(1) - view
    return sorted(other.tolist())


def test_partners_share_the_place_and_are_spread_over_all_that_do(device):
    """With 0.1 between cameras and a field of one, a share of 0.2 reaches six neighbours on each side."""
    pairs = covisible_pairs(row_of_cameras(40, device), 5, 0.2)
    distance = (pairs[:, 1] - pairs[:, 0]).tolist()
    assert min(distance) == 1
    assert max(distance) == 6
    for view in range(6, 34):
        found = [abs(other - view) for other in partners_of(pairs, view)]
        assert min(found) == 1, "the nearest is among them"
        assert max(found) >= 5, "and one of the farthest"


@pytest.mark.parametrize("density", [1, 3])
def test_their_number_does_not_grow_with_density(device, density):
    joint = row_of_cameras(20, device)
    rows = torch.arange(20, device=device).repeat_interleave(density)
    dense = replace(joint, cam_from_world=joint.cam_from_world[rows], view_index=joint.view_index * density)
    pairs = covisible_pairs(dense, 4, 0.2)
    assert 20 * density < len(pairs) <= 4 * 20 * density


def test_cameras_that_look_elsewhere_have_no_partner(device):
    joint = row_of_cameras(12, device)
    turned = joint.cam_from_world.clone()
    turned[5] = torch.tensor([[-1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 0]], device=device) @ torch.cat(
        [turned[5], turned.new_tensor([[0, 0, 0, 1]])]
    )
    away = replace(joint, cam_from_world=turned)
    assert partners_of(covisible_pairs(away, 4, 0.2), 5) == []
    assert partners_of(covisible_pairs(joint, 4, 0.2), 5) != []


def test_without_points_there_are_no_pairs(device):
    joint = row_of_cameras(3, device)
    none = joint.view_index[:0]
    empty = replace(
        joint,
        points=joint.points[:0],
        view_index=none,
        point_index=none,
        keypoint_index=none,
        error_px=joint.error_px[:0],
    )
    assert covisible_pairs(empty, 4, 0.2).shape == (0, 2)
