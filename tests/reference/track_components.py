"""Tracks by a plain union-find, one match after the other."""

from collections.abc import Iterable

Node = tuple[int, int]


class UnionFind:
    def __init__(self) -> None:
        self.parent: dict[Node, Node] = {}

    def find(self, node: Node) -> Node:
        self.parent.setdefault(node, node)
        while self.parent[node] != node:
            node = self.parent[node]
        return node

    def members(self, root: Node) -> set[Node]:
        return {node for node in self.parent if self.find(node) == root}


def components(
    matches: Iterable[tuple[Node, Node]], *, refuse_conflicts: bool = False
) -> set[frozenset[Node]]:
    """Sets of ``(view, keypoint)``; ``refuse_conflicts``: no match may join two keypoints of one view."""
    sets = UnionFind()
    for a, b in matches:
        root_a, root_b = sets.find(a), sets.find(b)
        if root_a == root_b:
            continue
        views = [view for root in (root_a, root_b) for view, _ in sets.members(root)]
        if refuse_conflicts and len(set(views)) < len(views):
            continue
        sets.parent[root_b] = root_a
    return {frozenset(sets.members(root)) for root in map(sets.find, list(sets.parent))}


def has_conflict(track: frozenset[Node]) -> bool:
    views = [view for view, _ in track]
    return len(set(views)) < len(views)
