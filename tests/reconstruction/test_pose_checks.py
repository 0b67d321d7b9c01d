"""What matches say about poses: single images and whole blocks that contradict the others, and what is left alone."""

import pytest
import torch
from reference.rendered_room import Room, turned_room, walked_room
from torch import Tensor

from acezero_gpu.geometry import compose
from acezero_gpu.reconstruction import ImageBank
from acezero_gpu.reconstruction.matching import MatchStore, all_pairs
from acezero_gpu.reconstruction.pose_checks import PoseCheck, PoseCheckConfig, check_poses
from acezero_gpu.reconstruction.two_view import OverlapChecks, OverlapConfig

OVERLAP = OverlapConfig(min_inliers=30)


@pytest.fixture(scope="module")
def room() -> Room:
    return walked_room().subset([0, 1, 2, 3, 4, 5, 6])


@pytest.fixture(scope="module")
def found(room: Room) -> tuple[ImageBank, MatchStore]:
    bank = room.bank(torch.device("cpu"))
    return bank, MatchStore(bank)


def check(
    room: Room, found: tuple[ImageBank, MatchStore], poses: Tensor, pairs: Tensor | None = None
) -> tuple[PoseCheck, OverlapChecks]:
    bank, matches = found
    views = torch.arange(len(room))
    overlaps = OverlapChecks(bank, matches, OVERLAP)
    result = check_poses(
        matches.between(all_pairs(views) if pairs is None else pairs, views),
        bank.keypoints(views).pixels[views],
        poses,
        room.camera,
        torch.zeros(2),
        views,
        overlaps,
        PoseCheckConfig(overlap=OVERLAP),
        pixel_scale=bank.pixel_scale,
        generator=torch.Generator().manual_seed(0),
    )
    return result, overlaps


def turned(cam_from_world: Tensor, rows: list[int]) -> Tensor:
    """These cameras moved as one: turned by 90 degrees about the world's z axis, and shifted."""
    motion = torch.tensor([[0.0, -1.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.5], [0.0, 0.0, 1.0, 0.2]])
    poses = cam_from_world.clone()
    poses[rows] = compose(poses[rows], motion)
    return poses


def test_true_poses_agree_and_no_pair_is_judged_by_itself_where_they_explain_it(room, found):
    result, _ = check(room, found, room.cam_from_world)
    assert result.part.tolist() == [0] * 7
    assert not result.contradicted.any()
    near = torch.tensor([[i, i + 1] for i in range(6)])
    _, overlaps = check(room, found, room.cam_from_world, near)
    assert overlaps._inliers == {}


@pytest.mark.parametrize("rows", [[3], [0, 1], [4, 5, 6]])
def test_what_was_moved_is_contradicted_and_nothing_else(room, found, rows):
    result, _ = check(room, found, turned(room.cam_from_world, rows))
    assert result.contradicted.nonzero()[:, 0].tolist() == rows
    assert (result.part[rows] == result.part[rows[0]]).all()
    assert int(result.part[rows[0]]) != 0


def test_views_without_a_pair_to_the_others_are_a_part_of_their_own_but_not_contradicted(room, found):
    inside = torch.tensor([[0, 1], [1, 2], [0, 2], [3, 4], [4, 5], [5, 6]])
    result, _ = check(room, found, turned(room.cam_from_world, [0, 1, 2]), inside)
    assert result.part.tolist() == [1, 1, 1, 0, 0, 0, 0]
    assert not result.contradicted.any()


def test_pairs_that_do_not_overlap_say_nothing(room, found):
    """Matches between unlike pictures are few and random; wrong poses cannot be told from them."""
    bank, matches = found
    overlaps = OverlapChecks(bank, matches, OverlapConfig(min_inliers=10_000))
    pairs = torch.tensor([[0, 1], [2, 6]])
    inliers = overlaps.inliers(pairs, room.camera, torch.zeros(2), torch.Generator().manual_seed(0))
    assert [int(x.sum()) for x in inliers] == [0, 0]
    assert [len(x) for x in inliers] == [len(matches.slots(*pair)[0]) for pair in pairs.tolist()]


def test_overlap_is_told_by_the_pairs_own_relative_pose_once(room, found):
    bank, matches = found
    overlaps = OverlapChecks(bank, matches, OVERLAP)
    generator = torch.Generator().manual_seed(0)
    pairs = torch.tensor([[1, 2], [0, 1]])
    first = overlaps.inliers(pairs, room.camera, torch.zeros(2), generator)
    assert all(float(x.float().mean()) > 0.6 for x in first)
    state = generator.get_state()
    again = overlaps.inliers(pairs, room.camera, torch.zeros(2), generator)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(generator.get_state(), state)


def test_a_camera_that_only_turns_agrees_with_itself():
    """Without a baseline there is no epipolar line to be far from."""
    room = turned_room(4)
    bank = room.bank(torch.device("cpu"))
    result, _ = check(room, (bank, MatchStore(bank)), room.cam_from_world)
    assert not result.contradicted.any()
