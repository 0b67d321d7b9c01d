"""Global descriptors: pictures of the same place are nearest. Look-alikes: dense among them, sparse far off."""

import itertools

import torch
from hypothesis import given
from hypothesis import strategies as st
from reference.rendered_room import walked_room
from torch import Tensor

from acezero_gpu.network import DenseSiftEncoder, encode
from acezero_gpu.network.retrieval import global_descriptors, spread_ranks


def stream(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def room_features(device: torch.device) -> Tensor:
    return encode(DenseSiftEncoder().to(device), walked_room().images.to(device).float() / 255)


def descriptors_of(features: Tensor, generator: torch.Generator) -> Tensor:
    return global_descriptors(lambda rows: features[rows.to(features.device)], len(features), generator)


def test_the_nearest_picture_is_a_neighbour_on_the_walk(device):
    descriptors = descriptors_of(room_features(device), stream())
    similarity = (descriptors @ descriptors.T).cpu()
    count = len(similarity)
    apart = (torch.arange(count)[:, None] - torch.arange(count)).abs()
    nearest = similarity.masked_fill(apart == 0, -1).argmax(1)
    assert ((nearest - torch.arange(count)).abs() <= 2).float().mean() > 0.9
    # Averages fall with the distance on the walk.
    means = [float(similarity[apart == distance].mean()) for distance in (1, 4, 8)]
    assert means[0] > means[1] > means[2]


def test_descriptors_have_unit_norm_and_follow_the_generator(device):
    features = room_features(device)[:6]
    first, again, other = (descriptors_of(features, stream(seed)) for seed in (1, 1, 2))
    torch.testing.assert_close(first.norm(dim=-1), torch.ones(6, device=device), atol=1e-4, rtol=0)
    assert torch.equal(first, again)
    assert (first - other).abs().max() > 1e-3


def test_where_in_the_picture_something_is_does_not_matter(device, generator):
    """The same cells in another order are the same picture to it."""
    features = room_features(device)[:5]
    shuffled = features.flatten(2)[..., torch.randperm(300, generator=generator)].unflatten(2, (15, 20))
    descriptors = descriptors_of(torch.cat([features, shuffled]), stream())
    torch.testing.assert_close(descriptors[:5], descriptors[5:], atol=1e-4, rtol=0)
    assert (descriptors[:5] @ descriptors[:5].T - torch.eye(5, device=device)).max() < 0.9


def test_a_picture_without_texture_is_like_no_other(device):
    features = room_features(device)[:4]
    blank = DenseSiftEncoder().to(device)(torch.full((1, 1, 120, 160), 0.5, device=device))
    descriptors = descriptors_of(torch.cat([features, blank.to(features.dtype)]), stream())
    assert descriptors.isfinite().all()
    assert (descriptors[:4] @ descriptors[4]).max() < 0.2


def test_fewer_cells_than_centres_are_enough(device, generator):
    descriptors = descriptors_of(torch.randn(2, 8, 2, 3, generator=generator).to(device), stream())
    assert descriptors.isfinite().all()


@given(count=st.integers(0, 60), available=st.integers(0, 3000))
def test_ranks_rise_within_what_is_there(count, available):
    ranks = spread_ranks(count, available)
    assert ranks == sorted(set(ranks))
    assert len(ranks) <= count
    assert all(0 <= rank < available for rank in ranks)
    assert ranks[:4] == list(range(min(4, count, available)))
    gaps = [b - a for a, b in itertools.pairwise(ranks)]
    assert all(later >= earlier - 1 for earlier, later in itertools.pairwise(gaps))


def test_ranks_reach_far():
    assert spread_ranks(12, 100)[-1] > 15
    assert spread_ranks(16, 1000)[-1] > 40
