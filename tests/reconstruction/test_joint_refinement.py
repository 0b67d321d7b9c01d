"""Registered images adjusted together: the rough become exact, the contradicted go."""

from dataclasses import replace

import pytest
import torch
from reference.rendered_room import Room, tiny_bank, walked_room
from refinement_cases import CONFIG, NO_GROWTH, errors, moved_as_one, refine, rough, state_of

from acezero_gpu.adjustment.joint import JointConfig
from acezero_gpu.adjustment.loose_parts import LoosePartsConfig
from acezero_gpu.geometry import (
    Similarity,
    camera_centres,
    fit_similarity,
    reproject,
    rotation_angle_deg,
    undistort_pixels,
)
from acezero_gpu.network.keypoints import KeypointConfig
from acezero_gpu.reconstruction import matching
from acezero_gpu.reconstruction.growth import GrowthConfig
from acezero_gpu.reconstruction.held_tracks import held_tracks
from acezero_gpu.reconstruction.joint_adjustment import JointRefinement
from acezero_gpu.reconstruction.matching import MatchStore


def test_its_points_are_kept_as_the_image_files_show_them(room, bank, monkeypatch):
    """In pixels of files twice as large, with the errors that their reprojection has; only by images that are held."""
    refined = refine(bank, state_of(room, bank[0], rough(room), list(range(9))), NO_GROWTH)
    images = bank[0].images
    larger = replace(images.image_set, width=2 * images.image_set.width, height=2 * images.image_set.height)
    monkeypatch.setattr(bank[0], "images", replace(images, image_set=larger))
    tracks = held_tracks(refined, bank[0])
    assert len(tracks.points) > 50
    camera, poses = refined.state.camera.to("cpu").scaled(2.0), refined.state.cam_from_world.cpu()
    seen = reproject(tracks.points[tracks.point_index][:, None], poses[tracks.view_index], camera)
    straight = undistort_pixels(tracks.pixels_px, camera, refined.state.radial.cpu())
    error = (seen.pixels[:, 0] - straight).norm(dim=-1)
    torch.testing.assert_close(error, tracks.error_px, atol=0.02, rtol=0)
    held = refined.state.held.clone()
    held[2] = False
    fewer = held_tracks(replace(refined, state=replace(refined.state, held=held)), bank[0])
    assert 2 not in fewer.view_index
    assert int(torch.bincount(fewer.point_index).min()) >= 2


def test_the_thorough_adjustment_matches_what_sees_the_same_place(room, device):
    """With one look-alike each, covisible images bring pairs that were never matched, and weak keypoints matches."""
    few = replace(CONFIG, partners=1, near=1, growth=GrowthConfig(rounds=0))
    observations, pairs = {}, {}
    for name, config in {
        "look-alikes": replace(few, covisible=0, every_keypoint=False),
        "covisible": replace(few, every_keypoint=False),
        "all keypoints": few,
    }.items():
        bank = room.bank(device, replace(tiny_bank(), keypoints=KeypointConfig(per_image=400, matched=150)))
        store = MatchStore(bank)
        state = state_of(room, bank, rough(room), list(range(9)))
        found = refine((bank, store), state, config)
        observations[name], pairs[name] = len(found.joint.view_index), len(store)
        assert errors(room, found.state, list(range(9)))[1] < errors(room, state, list(range(9)))[1]
    assert pairs["look-alikes"] < pairs["covisible"] == pairs["all keypoints"] <= 9 * 9
    assert observations["all keypoints"] > 1.2 * observations["covisible"]
    assert observations["covisible"] > observations["look-alikes"]


def test_rough_poses_become_exact_in_the_frame_they_were_in(room, bank):
    everything = list(range(9))
    state = state_of(room, bank[0], rough(room), everything, focal_factor=1.05)
    found = refine(bank, state)
    before, after = errors(room, state, everything), errors(room, found.state, everything)
    assert before[0] > 0.5
    # What remains is mostly the frame: the mean error of the start.
    assert after[0] < 0.6 * before[0]
    relative, true_relative = (
        x[1:, :, :3] @ x[:-1, :, :3].mT for x in (found.state.cam_from_world.cpu(), room.cam_from_world)
    )
    assert rotation_angle_deg(relative, true_relative).max() < 0.2
    assert abs(float(found.state.camera.focal_px[0] / room.camera.focal_px[0]) - 1) < 0.03
    assert found.state.held.all()
    assert found.state.registered.all()
    assert (found.joined, found.contradicted) == (0, 0)
    assert float(found.joint.error_px.median()) < 0.3


def test_the_world_stays_where_the_first_images_had_it(room, bank):
    """Two views alone bend when they are adjusted; the world must not turn with them while the others join."""
    found = refine(bank, state_of(room, bank[0], room.cam_from_world, [0, 2]))
    assert found.state.registered.all()
    angle_deg, distance_m = errors(room, found.state, list(range(9)))
    assert angle_deg < 0.2
    assert distance_m < 0.02


def test_an_image_that_its_matches_contradict_is_no_longer_registered(room, bank):
    poses = moved_as_one(room.cam_from_world, [4])
    state = state_of(room, bank[0], poses, list(range(9)))
    config = replace(CONFIG, growth=GrowthConfig(min_inliers=10_000))
    found = refine(bank, state, config)
    assert found.contradicted == 1
    assert found.state.registered.tolist() == [row != 4 for row in range(9)]
    assert not found.state.held[4]
    assert errors(room, found.state, [row for row in range(9) if row != 4])[0] < 0.3
    # Where it may join again, it comes back at the right place.
    mended = refine(bank, state)
    assert mended.state.registered.all()
    assert errors(room, mended.state, [4])[0] < 0.3


def test_a_known_focal_length_stays(room, bank):
    state = state_of(room, bank[0], rough(room), list(range(9)))
    found = refine(bank, state, refine_focal=False)
    assert torch.equal(found.state.camera.focal_px, state.camera.focal_px)
    assert found.state.radial.tolist() == [0, 0], "nine views are too few"
    found = refine(bank, state, replace(CONFIG, radial_views=9), refine_focal=False)
    assert torch.equal(found.state.camera.focal_px, state.camera.focal_px)
    assert 0 < found.state.radial.abs().max() < 0.05, "the pictures have no distortion"


def test_a_block_that_agrees_in_itself_but_contradicts_the_others_is_placed_anew(room, bank):
    """Three neighbours are moved as one: among themselves they fit as well as before."""
    poses = moved_as_one(room.cam_from_world, [0, 1, 2])
    state = state_of(room, bank[0], poses, list(range(9)))
    alone = refine(bank, state, replace(CONFIG, growth=GrowthConfig(min_inliers=10_000)))
    assert alone.state.registered.tolist() == [row >= 3 for row in range(9)]
    assert alone.contradicted == 3
    mended = refine(bank, state)
    assert mended.state.registered.all()
    angle, distance = errors(room, mended.state, list(range(3)))
    assert angle < 0.3
    assert distance < 0.05


def test_a_block_at_the_wrong_scale_is_put_in_place(device):
    """Adjustment alone leaves it where it is: matches with the others fit no pose near its own, and count as wrong."""
    room = walked_room()
    bank = room.bank(device)
    store, block = MatchStore(bank), list(range(11, 18))
    poses = room.cam_from_world.clone()
    wrong = Similarity(torch.tensor(0.3), torch.eye(3), torch.tensor([2.0, 1.0, -0.8]))
    poses[block] = wrong.apply_to_cameras(poses[block])
    state = state_of(room, bank, poses, list(range(18)))
    found = refine((bank, store), state, NO_GROWTH)
    assert found.contradicted == 0
    assert found.state.held.all()
    assert off_by(room, found) < 0.02
    # The world is where the others were, and as large.
    assert errors(room, found.state, list(range(11)))[1] < 0.02
    without = replace(NO_GROWTH, loose=LoosePartsConfig(min_inliers=10_000))
    assert off_by(room, refine((bank, store), state, without)) > 0.5


def off_by(room: Room, found: JointRefinement) -> float:
    """The largest distance of a camera from the truth, after the best similarity."""
    centres, truth = (camera_centres(x) for x in (found.state.cam_from_world.cpu(), room.cam_from_world))
    return float((fit_similarity(centres, truth).apply(centres) - truth).norm(dim=-1).max())


@pytest.mark.parametrize("registered", [[], [3]])
def test_too_few_registered_images_stay_as_they_are(room, bank, registered):
    state = state_of(room, bank[0], rough(room), registered)
    found = refine(bank, state)
    assert torch.equal(found.state.registered, state.registered)
    assert torch.equal(found.state.cam_from_world, state.cam_from_world)
    assert len(found.joint.points) == 0


def test_the_same_picture_twice_stays_at_one_place_and_disturbs_nobody(room, device):
    doubled = room.subset([0, 1, 2, 3, 4, 2, 3])
    bank = doubled.bank(device)
    state = state_of(doubled, bank, rough(doubled, 0.005), list(range(7)))
    found = refine((bank, MatchStore(bank)), state)
    assert found.state.registered.all()
    assert found.state.cam_from_world.isfinite().all()
    poses = found.state.cam_from_world.cpu()
    for first, second in ((2, 5), (3, 6)):
        assert rotation_angle_deg(poses[first, :, :3], poses[second, :, :3]) < 0.1
        assert (camera_centres(poses[first]) - camera_centres(poses[second])).norm() < 0.01
    assert errors(doubled, found.state, list(range(7)))[0] < 0.5


def test_views_that_share_nothing_with_the_rest_are_named(room, bank, monkeypatch):
    """Two groups without a pair between them: both are adjusted, and it is told which is which."""
    apart = torch.tensor([[0, 1], [0, 2], [1, 2], [4, 5], [4, 6], [5, 6], [5, 7], [6, 7], [6, 8], [7, 8]])
    monkeypatch.setattr(matching, "look_alike_pairs", lambda similarity, count: apart)
    rows = [0, 1, 2, 4, 5, 6, 7, 8]
    state = state_of(room, bank[0], rough(room, 0.005), rows)
    found = refine(bank, state, replace(NO_GROWTH, joint=JointConfig(min_angle_deg=0.5)))
    assert found.views.tolist() == rows
    assert found.part.tolist() == [1, 1, 1, 0, 0, 0, 0, 0]
    assert found.contradicted == 0
    assert found.state.held[rows].all()
