"""Minimal samples: distinct, uniform, and equal to drawing from a list."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.slow_absolute_pose import distinct_ranks_one

from acezero_gpu.ransac.sampling import distinct_ranks, draw_uniform, usable_first


@given(seed=st.integers(0, 10_000), count=st.integers(4, 40), k=st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_equals_removing_from_a_list(seed, count, k):
    uniform = torch.rand(20, k, generator=torch.Generator().manual_seed(seed))
    ranks = distinct_ranks(uniform, torch.tensor([count]))
    assert ranks.tolist() == [distinct_ranks_one(row.tolist(), count) for row in uniform]


def test_every_ordered_choice_is_equally_likely(device, generator):
    uniform = draw_uniform((120_000, 3), generator, device)
    ranks = distinct_ranks(uniform, torch.tensor([5], device=device))
    code = (ranks * torch.tensor([25, 5, 1], device=device)).sum(-1)
    frequency = code.bincount(minlength=125)
    assert (frequency > 0).sum() == 5 * 4 * 3
    expected = 120_000 / 60
    chi_squared = ((frequency[frequency > 0] - expected) ** 2 / expected).sum()
    assert chi_squared < 110  # 59 degrees of freedom: exceeded once in ten thousand seeds


@pytest.mark.parametrize("count", [0, 1, 3])
def test_too_few_items_give_indices_in_range(count):
    ranks = distinct_ranks(torch.rand(50, 4), torch.tensor([count]))
    assert ranks.min() >= 0
    assert ranks.max() <= max(count - 1, 0)


def test_numbers_close_to_one_stay_in_range():
    almost_one = torch.full((1, 4), 1 - 2.0**-24)
    assert distinct_ranks(almost_one, torch.tensor([4800])).tolist() == [[4799, 4798, 4797, 4796]]


def test_usable_items_come_first_in_their_order():
    usable = torch.tensor([[False, True, False, True, True], [True, True, False, False, False]])
    assert usable_first(usable).tolist() == [[1, 3, 4, 0, 2], [0, 1, 2, 3, 4]]
