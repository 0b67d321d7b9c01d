"""Chunks cover everything once, in order, within the budget."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acezero_gpu.runtime import chunk_ranges, chunk_size_for


@given(total=st.integers(0, 500), chunk=st.integers(1, 600))
def test_chunks_cover_the_range_once_and_in_order(total, chunk):
    parts = [list(range(total))[part] for part in chunk_ranges(total, chunk)]
    assert [item for part in parts for item in part] == list(range(total))
    assert all(0 < len(part) <= chunk for part in parts)


@given(item=st.integers(1, 10**6), budget=st.integers(1, 10**9))
def test_a_chunk_is_the_most_that_fits(item, budget):
    chunk = chunk_size_for(item, budget)
    assert chunk * item <= budget or chunk == 1
    assert (chunk + 1) * item > budget


def test_a_chunk_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 1"):
        list(chunk_ranges(3, 0))
