"""Images that keypoints place, by whatever points it takes."""

from dataclasses import replace

import torch
from reference.rendered_room import room_with_a_turn, tiny_bank
from refinement_cases import CONFIG, NO_GROWTH, errors, refine, state_of

from acezero_gpu.network.keypoints import KeypointConfig
from acezero_gpu.reconstruction import joint_refinement
from acezero_gpu.reconstruction.growth import GrowthConfig
from acezero_gpu.reconstruction.joint_adjustment import JointRefinement, Refiner
from acezero_gpu.reconstruction.matching import MatchStore


def test_unregistered_images_join_by_their_keypoints(room, bank):
    state = state_of(room, bank[0], room.cam_from_world.clone(), [2, 3, 4, 5, 6])
    state.cam_from_world[[0, 1, 7, 8]] = torch.eye(3, 4, device=state.cam_from_world.device)
    found = refine(bank, state)
    assert found.joined >= 3
    joined = [row for row in (0, 1, 7, 8) if found.state.registered[row]]
    assert len(joined) == found.joined
    angle, distance = errors(room, found.state, joined)
    assert angle < 0.3
    assert distance < 0.02
    assert found.views.tolist() == found.state.registered.nonzero()[:, 0].tolist()
    alone = refine(bank, state, NO_GROWTH)
    assert alone.joined == 0
    assert torch.equal(alone.state.registered, state.registered)


def test_what_the_first_growth_missed_has_another_chance_among_the_adjusted(room, bank, monkeypatch):
    state = state_of(room, bank[0], room.cam_from_world.clone(), [2, 3, 4, 5, 6])
    grown_out, starts = joint_refinement.grown_out, []

    def missing_at_first(refiner: Refiner, refined: JointRefinement) -> JointRefinement:
        starts.append(int(refined.state.registered.sum()))
        return refined if len(starts) == 1 else grown_out(refiner, refined)

    monkeypatch.setattr(joint_refinement, "grown_out", missing_at_first)
    found = refine(bank, state)
    assert starts == [5, 5]
    assert found.joined >= 3
    assert found.views.tolist() == found.state.registered.nonzero()[:, 0].tolist()
    # Nobody is sought where nobody is missing.
    starts.clear()
    refine(bank, state_of(room, bank[0], room.cam_from_world.clone(), list(range(9))))
    assert starts == [9]


def test_weak_keypoints_around_an_image_place_it_if_the_strong_ones_do_not(room, device, monkeypatch):
    bank = room.bank(device, replace(tiny_bank(), keypoints=KeypointConfig(per_image=400, matched=40)))
    state = state_of(room, bank, room.cam_from_world.clone(), [0, 1, 2, 3, 4, 5, 6])
    config = replace(CONFIG, growth=GrowthConfig(until_adjusted=100.0, min_inliers=40))
    found = refine((bank, MatchStore(bank)), state, config)
    assert found.joined == 2
    assert errors(room, found.state, [7, 8])[1] < 0.03
    monkeypatch.setattr(MatchStore, "deepen", lambda store, pairs: 0)
    assert refine((bank, MatchStore(bank)), state, config).joined == 0


def test_a_camera_that_turns_on_the_spot_is_followed(device):
    """Its last pictures share nothing with the walk before; ring by ring they join by points without parallax."""
    room = room_with_a_turn()
    bank = room.bank(device)
    state = state_of(room, bank, room.cam_from_world.clone(), list(range(6)))
    state.cam_from_world[6:] = torch.eye(3, 4, device=device)
    found = refine((bank, MatchStore(bank)), state)
    assert found.state.registered.all()
    assert errors(room, found.state, [6, 7, 8, 9])[0] < 1.0
