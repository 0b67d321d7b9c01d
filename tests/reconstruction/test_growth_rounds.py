"""Images that keypoints place, and which images are adjusted for them."""

from dataclasses import replace

import pytest
import torch
from reference.rendered_room import room_with_a_turn, tiny_bank
from refinement_cases import CONFIG, NO_GROWTH, errors, refine, state_of
from torch import Tensor

from acezero_gpu.network.keypoints import KeypointConfig
from acezero_gpu.reconstruction import ReconstructionState, growth_rounds, joint_refinement, matching
from acezero_gpu.reconstruction.growth import GrowthConfig
from acezero_gpu.reconstruction.joint_adjustment import JointRefinement, Refiner
from acezero_gpu.reconstruction.matching import MatchStore
from acezero_gpu.reconstruction.two_view import OverlapChecks


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


def adjustments(monkeypatch) -> list[int]:
    """How many views each adjustment of all that follows is of."""
    views: list[int] = []
    adjusted = Refiner.adjusted

    def counted(refiner: Refiner, state: ReconstructionState, *arguments) -> JointRefinement:
        views.append(int(state.registered.sum()))
        return adjusted(refiner, state, *arguments)

    monkeypatch.setattr(Refiner, "adjusted", counted)
    return views


def chain(images: int) -> Tensor:
    """Every image with the next two."""
    return torch.tensor([(a, b) for a in range(images) for b in range(a + 1, min(images, a + 3))])


@pytest.mark.parametrize(("changed_share", "quick"), [(0.1, [8, 9]), (0.5, [8])])
def test_for_a_few_new_images_not_all_are_adjusted(room, bank, monkeypatch, changed_share, quick):
    monkeypatch.setattr(matching, "look_alike_pairs", lambda similarity, count: chain(9))
    state = state_of(room, bank[0], room.cam_from_world.clone(), [0, 1, 2, 3, 5, 6, 7, 8])
    state.cam_from_world[4] = torch.eye(3, 4, device=state.cam_from_world.device)
    views = adjustments(monkeypatch)
    growth = GrowthConfig(changed_share=changed_share, until_adjusted=2.0)
    found = refine(bank, state, replace(CONFIG, growth=growth))
    assert views == [*quick, 9]
    assert found.state.registered.all()
    angle, distance = errors(room, found.state, [4])
    assert angle < 0.3
    assert distance < 0.02
    assert int(found.joint.observations_per_view[4]) > 100


@pytest.mark.parametrize("given", [[], [3]])
def test_neighbours_move_with_a_new_image_and_others_stay(room, bank, monkeypatch, given):
    monkeypatch.setattr(matching, "look_alike_pairs", lambda similarity, count: chain(9))
    state = state_of(room, bank[0], room.cam_from_world.clone(), [0, 1, 2, 3, 5, 6, 7, 8])
    config = replace(CONFIG, growth=GrowthConfig(changed_share=0.5, until_adjusted=2.0))
    fixed = torch.zeros(9, dtype=torch.bool, device=bank[0].device)
    fixed[given] = True
    refiner = Refiner(
        *bank,
        OverlapChecks(*bank, config.check.overlap),
        config,
        config.joint.quick(),
        torch.Generator().manual_seed(0),
        fixed if given else None,
    )
    before = refiner.adjusted(state)
    after = growth_rounds.grown_out(refiner, before)
    assert after.state.registered.all()
    assert after.views.tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    moved = (after.state.cam_from_world != before.state.cam_from_world).flatten(1).any(1)
    assert moved.nonzero()[:, 0].tolist() == [row for row in (2, 3, 4, 5, 6) if row not in given]
    assert errors(room, after.state, [4])[1] < 0.02
    assert len(refiner.confirmed(after).views) == 9
    assert refiner.confirmed(before) is before


def test_reaching_so_many_that_all_should_be_adjusted_counts_as_much(room, bank, monkeypatch):
    state = state_of(room, bank[0], room.cam_from_world.clone(), [2, 3, 4, 5, 6])
    views = adjustments(monkeypatch)
    refine(bank, state, replace(CONFIG, growth=GrowthConfig(changed_share=10.0, until_adjusted=1.2)))
    assert len(views) > 2
    assert views[1] > 5


@pytest.mark.parametrize("changed_share", [0.0, 10.0])
def test_weak_keypoints_around_an_image_place_it_if_the_strong_ones_do_not(
    room, device, changed_share, monkeypatch
):
    """Whether all are adjusted with the new matches, or only their points found."""
    bank = room.bank(device, replace(tiny_bank(), keypoints=KeypointConfig(per_image=400, matched=40)))
    state = state_of(room, bank, room.cam_from_world.clone(), [0, 1, 2, 3, 4, 5, 6])
    growth = GrowthConfig(changed_share=changed_share, until_adjusted=100.0, min_inliers=40)
    config = replace(CONFIG, growth=growth)
    found = refine((bank, MatchStore(bank)), state, config)
    assert found.joined == 2
    assert errors(room, found.state, [7, 8])[1] < 0.03
    monkeypatch.setattr(MatchStore, "deepen", lambda store, pairs: 0)
    assert refine((bank, MatchStore(bank)), state, config).joined == 0


@pytest.mark.parametrize("changed_share", [0.0, 10.0])
def test_a_camera_that_turns_on_the_spot_is_followed(device, changed_share):
    """Its last pictures share nothing with the walk before; ring by ring they join by points without parallax."""
    room = room_with_a_turn()
    bank = room.bank(device)
    state = state_of(room, bank, room.cam_from_world.clone(), list(range(6)))
    state.cam_from_world[6:] = torch.eye(3, 4, device=device)
    config = replace(CONFIG, growth=GrowthConfig(changed_share=changed_share, until_adjusted=100.0))
    found = refine((bank, MatchStore(bank)), state, config)
    assert found.state.registered.all()
    assert errors(room, found.state, [6, 7, 8, 9])[0] < 1.0
