"""Where a reconstruction starts: blocks that are right up to a similarity, and none where nothing tells of depth."""

from dataclasses import replace

import pytest
import torch
from reference.rendered_room import HEIGHT, WIDTH, Room, turned_room, walked_room
from torch import Tensor

from acezero_gpu.adjustment.joint import JointResult
from acezero_gpu.geometry import (
    PinholeCamera,
    camera_centres,
    fit_similarity,
    reproject,
    rotation_angle_deg,
)
from acezero_gpu.reconstruction import LoopConfig, ReconstructionError, SeedConfig, reconstruct, seeds
from acezero_gpu.reconstruction.matching import MatchStore
from acezero_gpu.reconstruction.seeds import SeedBlock, depth_targets, propose_blocks

CONFIG = SeedConfig(tries=2, partners=6, block_views=4)


@pytest.fixture(scope="module")
def room() -> Room:
    return walked_room().subset(list(range(10)))


def blocks_of(
    room: Room, device: torch.device, config: SeedConfig = CONFIG, seed: int = 0
) -> list[SeedBlock]:
    bank = room.bank(device)
    guess = bank.camera(float(PinholeCamera.guess(WIDTH, HEIGHT).focal_px[0]))
    return propose_blocks(bank, MatchStore(bank), guess, config, torch.Generator().manual_seed(seed))


def pose_errors(room: Room, block: SeedBlock) -> tuple[Tensor, Tensor]:
    """Degrees, and distance of centres in metres, after the best similarity of the centres."""
    truth = room.cam_from_world[block.views.cpu()]
    poses = block.joint.cam_from_world.cpu()
    similarity = fit_similarity(camera_centres(poses), camera_centres(truth))
    aligned = similarity.apply_to_cameras(poses)
    distance = (camera_centres(aligned) - camera_centres(truth)).norm(dim=-1)
    relative, true_relative = (x[:, :, :3] @ x[:1, :, :3].transpose(1, 2) for x in (poses, truth))
    return rotation_angle_deg(relative, true_relative), distance


def test_blocks_are_right_up_to_a_similarity(device, room):
    blocks = blocks_of(room, device)
    assert len(blocks) == 2
    for block in blocks:
        rotation, distance = pose_errors(room, block)
        assert len(block.views) == len(block.views.unique()) == 4
        assert rotation.max() < 0.5
        assert distance.max() < 0.02  # of cameras that are up to half a metre apart
        assert abs(float(block.joint.camera.focal_px[0] / room.camera.focal_px[0]) - 1) < 0.04
        assert float(block.joint.depth().median()) == pytest.approx(CONFIG.median_depth, rel=1e-4)
        assert (block.joint.observations_per_view >= CONFIG.min_inliers).all()
    assert (blocks[0].reach, blocks[0].score(8.0)) >= (blocks[1].reach, blocks[1].score(8.0))
    # Further views are left to be seen from either block.
    assert blocks[0].reach > 0
    # The later one of the two did not start within the earlier one.
    first, second = ((int(block.views[0]), block.views.tolist()) for block in blocks)
    assert second[0] not in first[1] or first[0] not in second[1]


def test_a_block_that_others_can_be_placed_from_comes_first(device, room, monkeypatch):
    """Each further block is told to reach farther than the one before: the last one found is tried first."""
    found: list[tuple[int, ...]] = []

    def farther(bank, matches, block, around, config, generator) -> int:
        found.append(tuple(block.views.tolist()))
        return len(found)

    monkeypatch.setattr(seeds, "_reach", farther)
    assert [tuple(block.views.tolist()) for block in blocks_of(room, device)] == found[::-1]


def test_doubtful_blocks_come_last_and_further_ones_are_sought(room, monkeypatch):
    doubted: list[int] = []

    def doubt_the_first(bank, block, config, generator) -> bool:
        doubted.append(int(block.views[0]))
        return len(doubted) > 1

    monkeypatch.setattr(seeds, "_has_sure_depths", doubt_the_first)
    monkeypatch.setattr(seeds, "_reach", lambda *_: 100 - len(doubted))  # the doubtful one reaches farthest
    blocks = blocks_of(room, torch.device("cpu"))
    assert len(blocks) == 3
    assert [block.trusted for block in blocks] == [True, True, False]
    assert int(blocks[-1].views[0]) == doubted[0]
    doubted.clear()
    monkeypatch.setattr(seeds, "_has_sure_depths", lambda *_: False)
    assert len(blocks_of(room, torch.device("cpu"))) == 2 * CONFIG.tries


@pytest.mark.parametrize(
    "change", [{"min_reversal_ratio": 1e6}, {"max_focal_factor": 1.0001, "focal_agreement": 0.0}]
)
def test_what_makes_a_block_doubtful(room, change):
    config = replace(CONFIG, tries=1, **change)
    assert all(block.trusted for block in blocks_of(room, torch.device("cpu"), replace(CONFIG, tries=1)))
    assert not any(block.trusted for block in blocks_of(room, torch.device("cpu"), config))


def test_a_focal_length_far_from_the_guess_is_believed_if_two_blocks_have_it(room):
    config = replace(CONFIG, max_focal_factor=1.0001)
    blocks = blocks_of(room, torch.device("cpu"), config)
    assert len(blocks) >= 2 and all(block.trusted for block in blocks)
    pairs = replace(config, block_views=2)
    assert not any(block.trusted for block in blocks_of(room, torch.device("cpu"), pairs)), (
        "two views tell little"
    )


@pytest.mark.parametrize("share, tried", [(0.9, 2), (0.7, 4)])
def test_no_further_start_is_tried_once_one_leads_on_nearly_everywhere(room, monkeypatch, share, tried):
    monkeypatch.setattr(seeds, "_has_sure_depths", lambda *_: True)
    monkeypatch.setattr(seeds, "_reach", lambda bank, matches, block, around, *_: round(share * len(around)))
    monkeypatch.setattr(seeds, "_look_alikes_around", lambda *_: {image: [0] for image in range(100)})
    config = replace(CONFIG, tries=4, block_views=2, mapped_tries=2, max_focal_factor=100.0)
    assert len(blocks_of(room, torch.device("cpu"), config)) == tried


def test_reach_is_no_more_than_what_is_left(device, room):
    (block,) = blocks_of(room, device, replace(CONFIG, tries=1, neighbours=2))
    assert block.reach <= 4 * 2
    (block,) = blocks_of(room, device, replace(CONFIG, tries=1, block_views=len(room)))
    assert block.reach <= len(room) - len(block.views)
    (block,) = blocks_of(room, device, replace(CONFIG, tries=1, neighbours=0))
    assert block.reach == 0


def test_observations_count_by_their_parallax(device, room):
    """Points four times as far away, cameras where they were: as many observations, smaller angles, a lower score."""
    block = blocks_of(room, device)[0]
    joint = block.joint
    centre = camera_centres(joint.cam_from_world).mean(0)
    far = replace(block, joint=replace(joint, points=centre + 4 * (joint.points - centre)))
    observations = len(joint.view_index)
    assert 0 < far.score(60.0) < 0.5 * block.score(60.0) < 0.5 * observations
    assert block.score(1e-3) == pytest.approx(observations)


def test_a_known_focal_length_stays(device, room):
    bundle = replace(CONFIG.joint.bundle, refine_focal=False)
    config = replace(CONFIG, tries=1, joint=replace(CONFIG.joint, bundle=bundle))
    bank = room.bank(device)
    camera = bank.camera(float(room.camera.focal_px[0]))
    (block,) = propose_blocks(bank, MatchStore(bank), camera, config, torch.Generator().manual_seed(0))
    assert torch.equal(block.joint.camera.focal_px, camera.focal_px)
    assert pose_errors(room, block)[0].max() < 0.3


def test_the_same_draws_give_the_same_blocks(device, room):
    config = replace(CONFIG, tries=1, block_views=2)
    first, again = (blocks_of(room, device, config, seed=4)[0] for _ in range(2))
    assert torch.equal(first.views, again.views)
    torch.testing.assert_close(first.joint.cam_from_world, again.joint.cam_from_world, atol=1e-5, rtol=0)


def test_a_camera_that_only_turns_gives_no_block(device):
    assert blocks_of(turned_room(), device) == []


def test_pictures_without_texture_give_no_block(device, room):
    blank = replace(room.subset([0, 1, 2]), images=torch.full((3, 1, HEIGHT, WIDTH), 128, dtype=torch.uint8))
    assert blocks_of(blank, device) == []


def test_the_loop_says_so_in_a_sentence(device):
    bank = turned_room().bank(device)
    with pytest.raises(
        ReconstructionError, match=r"No two images .* add images taken from neighbouring positions"
    ):
        next(reconstruct(bank, bank.camera(140.0), LoopConfig(seeds=CONFIG)))


def test_depth_targets_hold_the_depths_of_the_points(device, generator):
    """Every point of a wall at depth 4 to 6 gives the cell that it falls in its depth, and its neighbours too."""
    camera = PinholeCamera.centred(100.0, 160, 120, device=device)
    pose = torch.eye(3, 4, device=device).repeat(2, 1, 1)
    pose[1, 2, 3] = 1.0
    place = torch.tensor([[0.0, 0.0, 4.0], [2.0, 1.0, 5.0], [-2.0, -1.5, 6.0]], device=device)
    index = torch.arange(3, device=device)
    joint = JointResult(
        pose,
        camera,
        torch.zeros(2, device=device),
        place,
        torch.cat([index * 0, index * 0 + 1]),
        index.repeat(2),
        index.repeat(2),
        torch.zeros(6, device=device),
    )
    targets = depth_targets(joint, 120, 160)
    assert targets.shape == (2, 30, 40)
    for view in range(2):
        seen = reproject(place, pose[view], camera)
        for pixel, depth in zip(seen.pixels.tolist(), seen.depth.tolist(), strict=True):
            u, v = int(pixel[0] // 4), int(pixel[1] // 4)
            assert targets[view, v, u].item() == pytest.approx(depth)
            assert targets[view, v - 1, u + 1].item() == pytest.approx(depth)
            assert targets[view, v, u - 2].item() == 0
    assert (targets > 0).sum(dim=(1, 2)).tolist() == [27, 27]
