"""Which pairs are matched, and that each pair is matched once, whichever way round it is asked for."""

from dataclasses import replace

import pytest
import torch
from reference.rendered_room import tiny_bank, walked_room

from acezero_gpu.network import retrieval
from acezero_gpu.network.keypoints import KeypointConfig, match_keypoints
from acezero_gpu.network.retrieval import look_alike_pairs
from acezero_gpu.reconstruction import matching
from acezero_gpu.reconstruction.matching import (
    MatchStore,
    all_pairs,
    neighbours,
    partner_pairs,
)


def test_neighbours_are_other_allowed_images_best_first():
    similarity = torch.tensor([[1.0, 0.5, 0.9, 0.7, 0.8]]).repeat(5, 1)
    allowed = torch.tensor([True, True, False, True, True])
    assert neighbours(similarity, 0, allowed, 10).tolist() == [4, 3, 1]
    assert neighbours(similarity, 0, allowed, 2).tolist() == [4, 3]
    assert neighbours(similarity, 4, allowed, 9).tolist() == [0, 3, 1]
    assert neighbours(similarity, 0, torch.zeros(5, dtype=torch.bool), 3).tolist() == []


def test_all_pairs_of_a_few_views():
    assert all_pairs(torch.tensor([4, 2, 7])).tolist() == [[4, 2], [4, 7], [2, 7]]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Every pair that is really matched."""
    pairs: list[tuple[int, int]] = []
    real = matching.match_pairs

    def counting(keypoints, wanted, config, **options):
        pairs.extend(map(tuple, wanted.tolist()))
        return real(keypoints, wanted, config, **options)

    monkeypatch.setattr(matching, "match_pairs", counting)
    return pairs


def test_each_pair_is_matched_once(device, counted):
    store = MatchStore(walked_room().subset([0, 1, 2]).bank(device))
    views = torch.arange(3)
    first = store.between(torch.tensor([[0, 1], [2, 1], [1, 0]]), views)
    assert sorted(counted) == [(0, 1), (1, 2)]
    again = store.between(torch.tensor([[1, 2], [0, 1]]), views)
    assert len(counted) == 2
    assert len(first) == len(again) > 60
    store.between(torch.tensor([[2, 0], [0, 1]]), views)
    assert sorted(counted) == [(0, 1), (0, 2), (1, 2)]


def test_matches_name_positions_and_slots(device):
    """``views`` gives the images' order; keypoint slots are those of the bank."""
    bank = walked_room().subset([0, 1, 2]).bank(device)
    found = MatchStore(bank).between(torch.tensor([[2, 0]]), torch.tensor([2, 1, 0]))
    keypoints = bank.keypoints(torch.arange(3))
    direct = match_keypoints(
        keypoints.select(torch.tensor([0])), keypoints.select(torch.tensor([2])), bank.config.keypoints
    )
    slots = direct.matched[0].nonzero()[:, 0]
    assert found.view_a.unique().tolist() == [2]
    assert found.view_b.unique().tolist() == [0]
    assert torch.equal(found.keypoint_a, slots)
    assert torch.equal(found.keypoint_b, direct.index_b[0, slots])


def test_no_pairs_give_no_matches(device):
    store = MatchStore(walked_room().subset([0, 1]).bank(device))
    assert len(store.between(torch.zeros(0, 2, dtype=torch.long), torch.arange(2))) == 0


def test_weaker_keypoints_are_matched_where_asked_for(device, counted):
    config = replace(tiny_bank(), keypoints=KeypointConfig(per_image=400, matched=100))
    store = MatchStore(walked_room().subset([0, 1, 2]).bank(device, config))
    first, second = store.slots(0, 1)
    assert int(first.max()) < 100
    assert int(second.max()) < 100
    pairs = torch.tensor([[1, 0], [2, 1]])
    assert store.deepen(pairs) == 2
    deep, _ = store.slots(0, 1)
    assert int(deep.max()) >= 100
    assert len(deep) > 1.5 * len(first)
    assert counted == [(0, 1), (0, 1), (1, 2)]
    store.ensure(pairs)
    assert store.deepen(torch.tensor([[1, 2]])) == 0
    assert len(counted) == 3


def test_slots_come_in_the_order_asked_for(device):
    store = MatchStore(walked_room().subset([0, 1]).bank(device))
    forth, back = store.slots(0, 1), store.slots(1, 0)
    assert torch.equal(forth[0], back[1])
    assert torch.equal(forth[1], back[0])


@pytest.mark.parametrize("at_once", [retrieval.ORDERED_AT_ONCE, 7])
def test_look_alikes_are_linear_in_the_images_and_symmetric(monkeypatch, at_once):
    monkeypatch.setattr(retrieval, "ORDERED_AT_ONCE", at_once)
    similarity = torch.rand(30, 30, generator=torch.Generator().manual_seed(0))
    similarity = similarity + similarity.T
    pairs = look_alike_pairs(similarity, 4).tolist()
    assert all(a < b for a, b in pairs)
    assert 60 <= len(pairs) <= 120
    for image in range(30):
        best = neighbours(similarity, image, torch.ones(30, dtype=torch.bool), 4).tolist()
        assert all(sorted((image, other)) in pairs for other in best)


def test_pairs_are_those_of_registered_images_each_once(device):
    bank = walked_room().subset(list(range(9))).bank(device)
    registered = torch.tensor([True, True, False, True, True, False, True, True, True], device=device)
    pairs = partner_pairs(bank, registered, 3)
    listed = [tuple(pair) for pair in pairs.tolist()]
    assert all(a < b for a, b in listed)
    assert len(set(listed)) == len(listed)
    assert {2, 5}.isdisjoint(pairs.flatten().tolist())
    everything = partner_pairs(bank, torch.ones_like(registered), 3).tolist()
    assert {tuple(pair) for pair in everything if {2, 5}.isdisjoint(pair)} == set(listed)
    for image in range(9):
        assert sum(image in pair for pair in everything) >= 3
    assert len(everything) <= 9 * 3
