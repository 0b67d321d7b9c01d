"""An adjusted world goes back to where it was: its place, its rotation and, where cameras stand apart, its scale."""

import torch
from torch import Tensor

from acezero_gpu.adjustment.joint import JointResult
from acezero_gpu.geometry import PinholeCamera, camera_centres, retract, rotation_angle_deg
from acezero_gpu.reconstruction.world_frame import in_frame_of, in_scale_of


def adjusted(poses: Tensor) -> JointResult:
    """These views with a point straight ahead of each, five away."""
    ahead = camera_centres(poses) + 5.0 * poses[:, 2, :3]
    rows = torch.arange(len(poses))
    camera = PinholeCamera.centred(100.0, 160, 120)
    return JointResult(poses, camera, torch.zeros(2), ahead, rows, rows, rows, torch.zeros(len(rows)))


def cameras(spread: float) -> Tensor:
    step = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    return retract(torch.eye(3, 4).repeat(8, 1, 1), step * torch.tensor([spread] * 3 + [0.2] * 3))


def test_a_world_that_grew_and_turned_comes_back():
    """By the views that are held: the last one is anywhere."""
    before = cameras(1.0)
    turn = retract(torch.eye(3, 4), torch.tensor([0.5, -0.2, 0.1, 0.1, 0.3, -0.2]))
    rotation, shift = turn[:, :3], turn[:, 3]
    moved = torch.cat([before[..., :3] @ rotation, before[..., 3:] + before[..., :3] @ shift[:, None]], -1)
    moved[..., 3] *= 1.3
    held = torch.ones(8, dtype=torch.bool)
    held[7], before[7, :, 3] = False, 100.0
    found = in_frame_of(in_scale_of(adjusted(moved), before, held), before, held)
    assert rotation_angle_deg(found.cam_from_world[:7, :, :3], before[:7, :, :3]).max() < 0.05
    torch.testing.assert_close(found.cam_from_world[:7], before[:7], atol=1e-4, rtol=0)
    torch.testing.assert_close(found.depth(), torch.full((8,), 5.0 / 1.3), atol=1e-4, rtol=0)


def test_cameras_in_one_place_say_nothing_of_the_scale():
    before = cameras(1e-4)
    joint = adjusted(before)
    torch.testing.assert_close(
        in_scale_of(joint, cameras(1.0), torch.ones(8, dtype=torch.bool)).cam_from_world, before
    )
