"""Tracks against a union-find that takes the matches one by one."""

import pytest
import torch
from reference.track_components import components, has_conflict

from acezero_gpu.adjustment import Tracks, build_tracks, merging, widest_angle_deg
from acezero_gpu.adjustment.merging import connected_components, hashed_order, merge_without_conflict

KEYPOINTS = 40


def random_matches(seed: int, *, views: int = 9, points: int = 30, wrong: float = 0.05):
    """Matches between the views of ``points`` points (keypoint = point), some of them wrong."""
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.triu_indices(views, views, 1)
    view_a, view_b = a.repeat(points), b.repeat(points)
    keypoint_a = torch.arange(points).repeat_interleave(len(a))
    keypoint_b = keypoint_a.clone()
    bad = torch.rand(len(view_a), generator=generator) < wrong
    keypoint_b[bad] = torch.randint(KEYPOINTS, (int(bad.sum()),), generator=generator)
    flip = torch.rand(len(view_a), generator=generator) < 0.5
    view_a, view_b = torch.where(flip, view_b, view_a), torch.where(flip, view_a, view_b)
    keypoint_a, keypoint_b = (
        torch.where(flip, keypoint_b, keypoint_a),
        torch.where(flip, keypoint_a, keypoint_b),
    )
    kept = torch.randperm(len(view_a), generator=generator)[: len(view_a) // 6]
    return view_a[kept], view_b[kept], keypoint_a[kept], keypoint_b[kept]


def as_nodes(view_a, view_b, keypoint_a, keypoint_b):
    rows = torch.stack([view_a, keypoint_a, view_b, keypoint_b], dim=1).tolist()
    return [((va, ka), (vb, kb)) for va, ka, vb, kb in rows]


def as_sets(tracks: Tracks):
    found = [set() for _ in range(tracks.num_points)]
    for view, keypoint, point in zip(
        tracks.view_index.tolist(), tracks.keypoint_index.tolist(), tracks.point_index.tolist(), strict=True
    ):
        found[point].add((view, keypoint))
    return {frozenset(track) for track in found}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("min_length", [2, 4])
def test_tracks_are_components_or_those_of_greedy_merging(device, seed, min_length):
    matches = random_matches(seed, wrong=0.1)
    nodes = as_nodes(*matches)
    tracks = build_tracks(*(x.to(device) for x in matches), KEYPOINTS, min_length=min_length)
    whole = components(nodes)
    in_conflict = set().union(*filter(has_conflict, whole))
    wrong = [match for match in nodes if match[0] in in_conflict]
    wrong = [wrong[i] for i in hashed_order(len(wrong)).tolist()]
    rebuilt = components(wrong, refuse_conflicts=True)
    expected = [track for track in whole if not has_conflict(track)] + list(rebuilt)
    assert as_sets(tracks) == {track for track in expected if len(track) >= min_length}
    assert 0 < len(wrong) < len(nodes), "some tracks must hold wrong matches, and some none"
    assert not any(map(has_conflict, as_sets(tracks)))


@pytest.mark.parametrize("blocks", [1, 4, 10**6])
@pytest.mark.parametrize("thin_every", [1, 3, 10**6])
@pytest.mark.parametrize("seed", range(3))
def test_many_edges_between_components_end_as_one_by_one(device, monkeypatch, seed, thin_every, blocks):
    """Whatever the blocks, and however often edges are dropped that another one decides for."""
    monkeypatch.setattr(merging, "THIN_EVERY", thin_every)
    monkeypatch.setattr(merging, "BLOCKS", blocks)
    generator = torch.Generator().manual_seed(seed)
    view = torch.arange(60) % 12
    first, second = torch.randint(60, (2, 600), generator=generator)
    nodes = list(zip(view.tolist(), range(60), strict=True))
    order = hashed_order(600).tolist()
    edges = [(nodes[first[i]], nodes[second[i]]) for i in order if view[first[i]] != view[second[i]]]
    apart = view[first] != view[second]
    # Edges within a view are refused anyway; left in, they keep the order of the others as it is above.
    assert 300 < int(apart.sum()) < 600
    label = merge_without_conflict(first.to(device), second.to(device), view.to(device)).tolist()
    found = {
        frozenset(n for n, other in zip(nodes, label, strict=True) if other == one) for one in set(label)
    }
    expected = components(edges, refuse_conflicts=True)
    assert {track for track in found if len(track) > 1} == {track for track in expected if len(track) > 1}


def test_observations_are_ordered_by_point_then_view():
    tracks = build_tracks(*random_matches(0), KEYPOINTS)
    order = tracks.point_index * 100 + tracks.view_index
    assert (order.diff() > 0).all()
    assert torch.equal(tracks.lengths, torch.bincount(tracks.point_index))
    assert tracks.point_index.unique().tolist() == list(range(tracks.num_points))


def test_a_long_chain_is_one_component(device):
    """The worst case of label propagation without shortcuts: the smallest label must travel it all."""
    length = 3000
    place = torch.randperm(length, generator=torch.Generator().manual_seed(1)).to(device)
    label = connected_components(place[:-1], place[1:], length)
    assert (label == 0).all()
    view = torch.arange(length, device=device)
    merged = merge_without_conflict(view[:-1], view[1:], view)
    assert (merged == merged[0]).all()


def test_matches_within_a_view_do_not_count():
    one = torch.tensor([0, 0, 1])
    tracks = build_tracks(one, torch.tensor([0, 1, 1]), torch.tensor([3, 3, 5]), torch.tensor([4, 5, 6]), 10)
    assert as_sets(tracks) == {frozenset({(0, 3), (1, 5)})}


def test_no_matches_give_no_tracks(device):
    none = torch.zeros(0, dtype=torch.long, device=device)
    tracks = build_tracks(none, none, none, none, 10)
    assert len(tracks) == 0
    assert tracks.num_points == 0


def small_tracks(device) -> Tracks:
    """Three points, seen by views 0 1 2, by 0 1, and by 1 2."""
    view = torch.tensor([0, 1, 2, 0, 1, 1, 2], device=device)
    return Tracks(view, 10 + view, torch.tensor([0, 0, 0, 1, 1, 2, 2], device=device), 3)


def test_widest_angle_is_that_of_a_known_triangle(device):
    """Views at 0, 1 and 3 along x, points 1 away from the first: angles are arc tangents."""
    cam_from_world = torch.eye(3, 4, dtype=torch.float64).repeat(3, 1, 1)
    cam_from_world[:, 0, 3] = -torch.tensor([0.0, 1.0, 3.0])
    points = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 0.0, 1e4]], dtype=torch.float64)
    angle = widest_angle_deg(small_tracks(device), points.to(device), cam_from_world.to(device))
    expected = torch.rad2deg(torch.atan(torch.tensor([3.0, 1.0, 2e-4], dtype=torch.float64)))
    torch.testing.assert_close(angle.cpu(), expected, rtol=1e-9, atol=0)
