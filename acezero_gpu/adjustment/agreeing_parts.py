"""Splits views into parts that agree within themselves, by evidence for and against every pair."""

import heapq

import torch
from jaxtyping import Float, Int
from torch import Tensor


def agreeing_parts(
    view_a: Int[Tensor, " p"], view_b: Int[Tensor, " p"], evidence: Float[Tensor, " p"], views: int
) -> Int[Tensor, " v"]:
    """The part of each view, numbered from the largest part down; views without evidence are alone.

    ``evidence`` is positive where two views agree and negative where they contradict each other. Parts are
    joined in the order of their total evidence for each other, as long as that is positive: a few accidental
    agreements do not tie a part to others that many of its pairs contradict. Greedy additive edge contraction
    (Keuper et al., Efficient Decomposition of Image and Mesh Graphs by Lifted Multicuts, ICCV 2015); on the host,
    since it goes from pair to pair and there are only a few per view.
    """
    links: list[dict[int, float]] = [{} for _ in range(views)]
    for a, b, weight in zip(view_a.tolist(), view_b.tolist(), evidence.tolist(), strict=True):
        if a != b:
            links[a][b] = links[b][a] = links[a].get(b, 0.0) + weight
    queue = [(-weight, a, b) for a in range(views) for b, weight in links[a].items() if a < b and weight > 0]
    heapq.heapify(queue)
    part_of = list(range(views))
    members: list[list[int]] = [[view] for view in range(views)]
    while queue:
        weight, a, b = heapq.heappop(queue)
        if not members[a] or not members[b] or links[a].get(b) != -weight:
            continue  # outdated: one of the two has been joined to a third since
        if len(links[a]) < len(links[b]):
            a, b = b, a
        _contract(links, a, b, queue)
        members[a] += members[b]
        members[b] = []
    for part, (_, found) in enumerate(sorted((-len(m), m) for m in members if m)):
        for view in found:
            part_of[view] = part
    return torch.tensor(part_of, dtype=torch.long, device=view_a.device)


def _contract(links: list[dict[int, float]], a: int, b: int, queue: list[tuple[float, int, int]]) -> None:
    """Joins b to a: evidence that both have for or against a third adds up."""
    del links[a][b]
    for other, weight in links[b].items():
        if other == a:
            continue
        total = links[a].get(other, 0.0) + weight
        links[a][other] = links[other][a] = total
        del links[other][b]
        if total > 0:
            heapq.heappush(queue, (-total, min(a, other), max(a, other)))
    links[b] = {}
