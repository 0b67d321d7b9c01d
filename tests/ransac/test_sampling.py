"""Random numbers and samples: distinct, uniform, and equal to drawing one at a time."""

import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.slow_absolute_pose import distinct_ranks_one
from reference.slow_draws import splitmix64, spread_rank_one, uniform_one, weighted_rank_one

from acezero_gpu.ransac.sampling import (
    ImageStreams,
    distinct_ranks,
    spread_ranks,
    usable_first,
    weighted_ranks,
)

SEEDS = st.integers(0, (1 << 62) - 1)
UNLIKELY = 1e-4
"""Chance of a wrong alarm of one test of a distribution, over all seeds; the seeds here are fixed."""


def streams(seeds: list[int], device: torch.device | str = "cpu") -> ImageStreams:
    return ImageStreams(torch.tensor(seeds, dtype=torch.int64, device=device))


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def chance_if_uniform(codes: torch.Tensor, cells: int) -> float:
    return scipy.stats.chisquare(codes.flatten().bincount(minlength=cells).numpy()).pvalue


def test_the_twin_gives_the_published_numbers():
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert [splitmix64(1234567, i) for i in range(4)] == published


@given(seeds=st.lists(SEEDS, min_size=1, max_size=4), first=st.integers(0, 1 << 40))
@settings(max_examples=40, deadline=None)
def test_streams_equal_the_twin_at_any_position(seeds, first):
    numbers = streams(seeds).uniform(first, 5)
    assert numbers.dtype == torch.float32
    assert numbers.tolist() == [[uniform_one(seed, first + i) for i in range(5)] for seed in seeds]


def test_streams_are_the_same_on_every_device_and_default_type(device, generator):
    on_cpu = ImageStreams.draw(6, generator, torch.device("cpu"))
    expected = on_cpu.uniform(3, 100)
    generator.manual_seed(0)
    default = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        drawn = ImageStreams.draw(6, generator, device)
        numbers = drawn.uniform(3, 100)
    finally:
        torch.set_default_dtype(default)
    assert drawn.seeds.device.type == device.type
    assert torch.equal(numbers.cpu(), expected)


def test_a_number_depends_on_its_seed_and_position_only(generator):
    drawn = ImageStreams.draw(7, generator, torch.device("cpu"))
    numbers = drawn.uniform(0, 200)
    assert torch.equal(drawn.uniform(40, 60), numbers[:, 40:100])
    assert torch.equal(drawn.images(slice(2, 5)).uniform(0, 200), numbers[2:5])
    assert torch.equal(drawn.images(torch.tensor([6, 0])).uniform(0, 200), numbers[[6, 0]])


def test_seeds_of_images_differ_and_follow_the_generator():
    def seeds(seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        return ImageStreams.draw(1000, generator, torch.device("cpu")).seeds.tolist()

    assert len(set(seeds(0))) == 1000
    assert seeds(0) == seeds(0)
    assert not set(seeds(0)) & set(seeds(1))


def test_streams_are_uniform(device):
    numbers = streams([0, 1, 1 << 61], device).uniform(0, 100_000).cpu()
    assert numbers.min() >= 0
    assert numbers.max() < 1
    scaled = (numbers.double() * 2**24).long()
    for row in scaled:
        assert chance_if_uniform(row >> 14, 1024) > UNLIKELY  # the leading bits
        assert chance_if_uniform(row & 1023, 1024) > UNLIKELY  # the last ones


def test_neighbours_in_a_stream_and_of_consecutive_seeds_are_independent():
    """Consecutive seeds are the hardest case: those of images are random."""
    numbers = (streams(list(range(500))).uniform(0, 400) * 32).long()
    assert chance_if_uniform(32 * numbers[:, :-1] + numbers[:, 1:], 1024) > UNLIKELY
    assert chance_if_uniform(32 * numbers[:-1] + numbers[1:], 1024) > UNLIKELY


@given(seed=st.integers(0, 10_000), count=st.integers(4, 40), k=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_distinct_ranks_equal_removing_from_a_list(seed, count, k):
    uniform = rand(20, k, seed=seed)
    ranks = distinct_ranks(uniform, torch.tensor([count]))
    assert ranks.tolist() == [distinct_ranks_one(row.tolist(), count) for row in uniform]


def test_every_ordered_choice_is_equally_likely(device, generator):
    uniform = ImageStreams.draw(1, generator, device).uniform(0, 360_000).unflatten(1, (120_000, 3))[0]
    ranks = distinct_ranks(uniform, torch.tensor([5], device=device))
    frequency = (ranks.cpu() * torch.tensor([25, 5, 1])).sum(-1).bincount(minlength=125)
    assert (frequency > 0).sum() == 5 * 4 * 3
    assert scipy.stats.chisquare(frequency[frequency > 0].numpy()).pvalue > UNLIKELY


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_items_give_indices_in_range(count):
    ranks = distinct_ranks(torch.rand(50, 4), torch.tensor([count]))
    assert ranks.min() >= 0
    assert ranks.max() <= max(count - 1, 0)


def test_numbers_close_to_one_stay_in_range():
    almost_one = torch.full((1, 4), 1 - 2.0**-24)
    assert distinct_ranks(almost_one, torch.tensor([4800])).tolist() == [[4799, 4798, 4797, 4796]]
    for count in range(1, 300):
        assert spread_ranks(almost_one, torch.tensor([count]))[0, -1] == count - 1


@given(usable=st.lists(st.lists(st.booleans(), min_size=9, max_size=9), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_usable_items_come_first_in_their_order(usable):
    order = usable_first(torch.tensor(usable)).tolist()
    for row, flags in zip(order, usable, strict=True):
        expected = [i for i, flag in enumerate(flags) if flag]
        assert row[: len(expected)] == expected
        assert all(0 <= i < 9 for i in row)


@given(seed=st.integers(0, 10_000), k=st.integers(1, 40), counts=st.lists(st.integers(0, 200), min_size=1))
@settings(max_examples=60, deadline=None)
def test_spread_ranks_come_from_every_part(seed, k, counts):
    uniform = rand(len(counts), k, seed=seed)
    ranks = spread_ranks(uniform, torch.tensor(counts))
    for row, numbers, count in zip(ranks.tolist(), uniform.tolist(), counts, strict=True):
        assert row == [spread_rank_one(u, i, k, count) for i, u in enumerate(numbers)]
        assert row == sorted(row)
        assert row[0] >= 0
        assert row[-1] < max(count, 1)
        if count >= k:
            assert len(set(row)) == k
        elif count:
            frequency = torch.tensor(row).bincount(minlength=count)
            assert frequency.max() - frequency.min() <= 1


def test_spread_ranks_reach_every_item_of_a_part_alike():
    ranks = spread_ranks(rand(40_000, 4), torch.tensor(28).expand(40_000))
    for part in range(4):
        frequency = ranks[:, part].bincount(minlength=28)
        assert (frequency > 0).nonzero().flatten().tolist() == list(range(7 * part, 7 * part + 7))
        assert chance_if_uniform(ranks[:, part] - 7 * part, 7) > UNLIKELY


@given(seed=st.integers(0, 10_000), weights=st.lists(st.integers(0, 5), min_size=2, max_size=30).filter(sum))
@settings(max_examples=60, deadline=None)
def test_weighted_ranks_equal_exact_arithmetic(seed, weights):
    uniform = rand(1, 10, 3, seed=seed)
    ranks = weighted_ranks(uniform, torch.tensor([weights], dtype=torch.float32))
    assert ranks[0].tolist() == [[weighted_rank_one(u, weights) for u in row] for row in uniform[0].tolist()]
    assert (torch.tensor(weights)[ranks] > 0).all()


def test_weighted_ranks_follow_the_weights_of_each_image(device):
    weights = torch.tensor([[1.0, 0.0, 2.0, 5.0], [300.0, 100.0, 0.0, 0.0]], device=device)
    uniform = streams([3, 4], device).uniform(0, 80_000).unflatten(1, (40_000, 2))
    ranks = weighted_ranks(uniform, weights).cpu()
    for row, given_weights in zip(ranks, weights.cpu().double(), strict=True):
        frequency, some = row.flatten().bincount(minlength=4), given_weights > 0
        assert frequency[~some].sum() == 0
        expected = 80_000 * given_weights / given_weights.sum()
        assert scipy.stats.chisquare(frequency[some].numpy(), expected[some].numpy()).pvalue > UNLIKELY


def test_a_number_on_the_border_of_two_items_belongs_to_the_second():
    weights = torch.tensor([[0.0, 1.0, 0.0, 1.0]])
    assert weighted_ranks(torch.tensor([[[0.0, 0.5, 1 - 2.0**-24]]]), weights).tolist() == [[[1, 3, 3]]]


def test_weighted_ranks_without_any_weight_stay_in_range():
    ranks = weighted_ranks(rand(2, 50, 3), torch.tensor([[0.0, 0.0], [0.0, 1.0]]))
    assert ((ranks >= 0) & (ranks < 2)).all()
    assert (ranks[1] == 1).all()
