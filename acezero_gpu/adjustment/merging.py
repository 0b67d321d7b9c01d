"""Which nodes belong together: components of a graph, and components that no view may enter twice."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

THIN_EVERY = 8
"""Every so many rounds of merging, edges are dropped that join the same two components as an earlier one."""
BLOCKS = 16
"""The first block of edges to be merged along is one in so many of all; each after it is as large as all before it."""


def connected_components(
    first: Int[Tensor, " m"], second: Int[Tensor, " m"], nodes: int
) -> Int[Tensor, " nodes"]:
    """The smallest node of each node's component, for edges ``first - second``.

    Each round hangs every root that has a smaller neighbour below the smallest of them, then shortens all
    paths until they are flat; the edges that still join two roots remain for the next round.
    Reference: Shiloach & Vishkin, An O(log n) parallel connectivity algorithm, 1982.
    """
    label = torch.arange(nodes, device=first.device)
    while True:
        root_a, root_b = label[first], label[second]
        open_edges = root_a != root_b
        if not bool(open_edges.any()):
            return label
        first, second, root_a, root_b = (x[open_edges] for x in (first, second, root_a, root_b))
        label = label.scatter_reduce(0, torch.maximum(root_a, root_b), torch.minimum(root_a, root_b), "amin")
        label = _flattened(label)


def _flattened(label: Int[Tensor, " nodes"]) -> Int[Tensor, " nodes"]:
    while True:
        shorter = label[label]
        if torch.equal(shorter, label):
            return label
        label = shorter


def nodes_in_conflict(label: Int[Tensor, " nodes"], view: Int[Tensor, " nodes"]) -> Bool[Tensor, " nodes"]:
    """Whether a node's component has two nodes of one view."""
    hit = torch.zeros_like(label, dtype=torch.bool)
    hit[_roots_in_conflict(label, view)] = True
    return hit[label]


def _roots_in_conflict(label: Int[Tensor, " nodes"], view: Int[Tensor, " nodes"]) -> Int[Tensor, " hits"]:
    """Labels of the components with two nodes of one view."""
    views = int(view.max()) + 1 if len(view) else 1
    member = (label * views + view).sort().values
    twice = member[1:][member[1:] == member[:-1]]
    return twice.div(views, rounding_mode="floor")


def merge_without_conflict(
    first: Int[Tensor, " m"], second: Int[Tensor, " m"], view: Int[Tensor, " nodes"]
) -> Int[Tensor, " nodes"]:
    """Labels of components grown by merging along edges, never two nodes of one view into one component.

    The result is that of taking the edges one by one in ``hashed_order``. They are taken block by block, each as large
    as all before it: most edges of a later block lie within a component by then, or beside another one.
    """
    order = hashed_order(len(first), first.device)
    merging = _Merging(view, len(first))
    low, high = 0, len(order) // BLOCKS + 1
    while low < len(order):
        block = order[low:high]
        merging.take(first[block], second[block], low)
        low, high = high, 2 * high
    return merging.label


class _Merging:
    """Components of nodes while edges are taken in the order of their rank."""

    def __init__(self, view: Int[Tensor, " nodes"], edges: int) -> None:
        nodes, device = len(view), view.device
        self._view, self._most = view, edges
        self.label = torch.arange(nodes, device=device)
        # Tables by root that are put back after use.
        self._best = torch.full((nodes,), edges, device=device)
        self._merged_into = torch.arange(nodes, device=device)
        self._marked = torch.zeros(nodes, dtype=torch.bool, device=device)

    def take(self, first: Int[Tensor, " m"], second: Int[Tensor, " m"], rank: int) -> None:
        """Decide these edges, which follow each other from ``rank`` on; all before them are decided.

        In each round every component proposes its open edge of lowest rank; an edge that both its ends propose
        merges them, so merges come in disjoint pairs and can be judged at once. Every edge of lower rank at
        either end is decided by then.
        """
        ranks = torch.arange(rank, rank + len(first), device=first.device)
        still_open = self._first_between_two(first, second)
        first, second, ranks = first[still_open], second[still_open], ranks[still_open]
        # Nodes that open edges can still reach: the last rounds of many touch a few components only.
        active = self._reached(first, second, torch.arange(len(self.label), device=first.device))
        open_before, rounds = len(first), 0
        while len(first):
            rounds += 1
            agreed = self._round(first, second, ranks, active)
            still_open = (self.label[first] != self.label[second]) & ~agreed
            if rounds % THIN_EVERY == 0:
                still_open &= self._first_between_two(first, second)
            first, second, ranks = first[still_open], second[still_open], ranks[still_open]
            if 2 * len(first) < open_before:
                open_before = len(first)
                active = self._reached(first, second, active)

    def _round(
        self,
        first: Int[Tensor, " m"],
        second: Int[Tensor, " m"],
        ranks: Int[Tensor, " m"],
        active: Int[Tensor, " a"],
    ) -> Bool[Tensor, " m"]:
        """Merge along the edges that both ends propose, unless views forbid it; which edges these were."""
        label, best, merged_into, marked = self.label, self._best, self._merged_into, self._marked
        root_a, root_b = label[first], label[second]
        best.scatter_reduce_(0, root_a, ranks, "amin").scatter_reduce_(0, root_b, ranks, "amin")
        agreed = (best[root_a] == ranks) & (best[root_b] == ranks)
        best[root_a] = best[root_b] = self._most
        into, from_ = torch.minimum(root_a, root_b)[agreed], torch.maximum(root_a, root_b)[agreed]
        marked[into] = marked[from_] = True
        touched = active[marked[label[active]]]
        marked[into] = marked[from_] = False
        merged_into[from_] = into
        marked[_roots_in_conflict(merged_into[label[touched]], self._view[touched])] = True
        refused = marked[into]
        marked[into] = False
        merged_into[from_[refused]] = from_[refused]
        label[touched] = merged_into[label[touched]]
        merged_into[from_] = from_
        return agreed

    def _reached(
        self, first: Int[Tensor, " m"], second: Int[Tensor, " m"], nodes: Int[Tensor, " n"]
    ) -> Int[Tensor, " a"]:
        """Those of the nodes whose component has an open edge."""
        ends = (self.label[first], self.label[second])
        self._marked[ends[0]] = self._marked[ends[1]] = True
        reached = nodes[self._marked[self.label[nodes]]]
        self._marked[ends[0]] = self._marked[ends[1]] = False
        return reached

    def _first_between_two(self, first: Int[Tensor, " m"], second: Int[Tensor, " m"]) -> Bool[Tensor, " m"]:
        """Edges that join two components and are the first to do so, of edges in the order in which they are taken.

        The first decides for all others: if it is taken they join nothing, and what it is refused for stands against
        them too, since components only grow.
        """
        root_a, root_b = self.label[first], self.label[second]
        pair = torch.minimum(root_a, root_b) * len(self.label) + torch.maximum(root_a, root_b)
        pair, order = pair.sort(stable=True)
        new = torch.ones_like(pair, dtype=torch.bool)
        new[1:] = pair[1:] != pair[:-1]
        earliest = torch.zeros_like(new)
        earliest[order[new]] = True
        return earliest & (root_a != root_b)


def hashed_order(count: int, device: torch.device | str = "cpu") -> Int[Tensor, " count"]:
    """The places ``0 … count - 1`` in an order without meaning, by a hash; the same on every device.

    In the order as given, a chain of matches would merge one by one instead of in halves.
    """
    place = torch.arange(1, count + 1, device=device)
    return (place * 2654435761 % (1 << 32)).argsort(stable=True)
