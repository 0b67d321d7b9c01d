"""Views split into parts by evidence for and against pairs."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from reference.slow_agreeing_parts import slow_agreeing_parts
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from acezero_gpu.adjustment.agreeing_parts import agreeing_parts


def parts_of(
    pairs: list[tuple[int, int, float]], views: int, device: torch.device | str = "cpu"
) -> list[int]:
    a, b = (torch.tensor([pair[i] for pair in pairs], dtype=torch.long, device=device) for i in (0, 1))
    evidence = torch.tensor([pair[2] for pair in pairs], dtype=torch.float32, device=device)
    return agreeing_parts(a, b, evidence, views).tolist()


def as_sets(part: list[int]) -> set[frozenset[int]]:
    return {frozenset(i for i, p in enumerate(part) if p == number) for number in set(part)}


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[tuple[int, int, float]], int]:
    """Few views; no two sums of evidence are equal, so that the order of joining is told by them alone."""
    views = draw(st.integers(1, 7))
    ends = st.tuples(st.integers(0, views - 1), st.integers(0, views - 1)).filter(lambda e: e[0] < e[1])
    edges = draw(st.lists(ends, unique=True, max_size=15)) if views > 1 else []
    signs = draw(st.lists(st.booleans(), min_size=len(edges), max_size=len(edges)))
    return [
        (a, b, (1.0 if sign else -1.0) * (1 + 2.0 ** -(place + 1)))
        for place, ((a, b), sign) in enumerate(zip(edges, signs, strict=True))
    ], views


@given(graphs())
def test_parts_are_those_of_the_slow_twin(graph):
    pairs, views = graph
    assert as_sets(parts_of(pairs, views)) == {frozenset(part) for part in slow_agreeing_parts(pairs, views)}


@given(graphs())
def test_without_contradiction_parts_are_connected_components(graph):
    pairs = [(a, b, abs(weight)) for a, b, weight in graph[0]]
    views = graph[1]
    rows, columns = [p[0] for p in pairs], [p[1] for p in pairs]
    _, labels = connected_components(
        coo_matrix(([1.0] * len(pairs), (rows, columns)), (views, views)), directed=False
    )
    assert as_sets(parts_of(pairs, views)) == as_sets(labels.tolist())


def test_a_few_accidents_do_not_tie_a_block_that_many_pairs_contradict(device):
    """Views 0-4 and 5-7 agree among themselves; between them two pairs agree by accident and six do not."""
    inside = [(a, b, 1.0) for block in (range(5), range(5, 8)) for a in block for b in block if a < b]
    between = [(0, 5, 1.0), (1, 6, 0.5)] + [(a, b, -1.0) for a in (2, 3) for b in (5, 6, 7)]
    assert parts_of(inside + between, 8, device) == [0, 0, 0, 0, 0, 1, 1, 1]
    assert parts_of(inside + between[:2], 8, device) == [0] * 8


def test_parts_are_numbered_from_the_largest_down():
    assert parts_of([(3, 4, 1.0), (4, 2, 1.0), (0, 1, 1.0)], 6) == [1, 1, 0, 0, 0, 2]
    assert parts_of([], 3) == [0, 1, 2]
    assert parts_of([], 0) == []


def test_both_ways_round_and_twice_is_the_sum():
    assert parts_of([(0, 1, 1.0), (1, 0, -2.0)], 2) == [0, 1]
    assert parts_of([(0, 1, 1.0), (1, 0, -0.5)], 2) == [0, 0]
