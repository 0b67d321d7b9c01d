"""Tracks: the keypoints of several views that show one point, from matches of pairs of views."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from acezero_gpu.adjustment.observation_graph import ObservationGraph
from acezero_gpu.geometry import camera_centres

Conflicts = Literal["cut", "drop", "keep"]

THIN_EVERY = 8
"""Every so many rounds of merging, edges are dropped that join the same two components as an earlier one."""


@dataclass(frozen=True, slots=True)
class Tracks:
    """Observations ordered by point, within a point by view; points are numbered from 0 without gaps."""

    view_index: Int[Tensor, " k"]
    """The view of each observation."""
    keypoint_index: Int[Tensor, " k"]
    """Which of the view's keypoints it is."""
    point_index: Int[Tensor, " k"]
    """The point it shows."""
    num_points: int
    """Number of tracks."""

    def __len__(self) -> int:
        return len(self.view_index)

    @property
    def lengths(self) -> Int[Tensor, " points"]:
        """Observations of each point."""
        return torch.bincount(self.point_index, minlength=self.num_points)


@dataclass(frozen=True, slots=True)
class FilteredTracks:
    """What a filter left, and where it came from."""

    tracks: Tracks
    """The remaining tracks, numbered anew."""
    observations: Int[Tensor, " k"]
    """For each remaining observation, its place before."""
    points: Int[Tensor, " points"]
    """For each remaining point, its number before."""


def build_tracks(
    view_a: Int[Tensor, " m"],
    view_b: Int[Tensor, " m"],
    keypoint_a: Int[Tensor, " m"],
    keypoint_b: Int[Tensor, " m"],
    keypoints_per_view: int,
    *,
    min_length: int = 2,
    conflicts: Conflicts = "cut",
) -> Tracks:
    """Connected components of the matches ``(view_a, keypoint_a) - (view_b, keypoint_b)``.

    A point has one image per view, so a component with two keypoints of one view holds a wrong match.
    ``drop`` removes such a component, ``keep`` leaves it. ``cut`` builds it again match by match, in an order
    without meaning, and refuses every match that would put two keypoints of a view into one track; what it
    leaves has no conflict, but a wrong match may survive in place of a right one. Matches within one view do
    not count. Tracks with fewer than ``min_length`` observations are left out.
    """
    apart = view_a != view_b
    view_a, view_b = view_a.long(), view_b.long()
    ends = torch.cat(
        [(view_a * keypoints_per_view + keypoint_a)[apart], (view_b * keypoints_per_view + keypoint_b)[apart]]
    )
    node, ends = ends.unique(return_inverse=True)
    first, second = ends.view(2, -1).unbind(0)
    view = node.div(keypoints_per_view, rounding_mode="floor")
    label = connected_components(first, second, len(node))
    in_conflict = _in_conflict(label, view)
    kept = torch.ones_like(in_conflict)
    if conflicts == "drop":
        kept = ~in_conflict
    elif conflicts == "cut":
        wrong = in_conflict[first]
        rebuilt = merge_without_conflict(first[wrong], second[wrong], view)
        label = torch.where(in_conflict, rebuilt, label)
    kept &= torch.bincount(label, minlength=len(node))[label] >= min_length
    node, label, view = node[kept], label[kept], view[kept]
    order = label.argsort(stable=True)
    roots, point_index = label[order].unique(return_inverse=True)
    return Tracks(view[order], (node - view * keypoints_per_view)[order], point_index, len(roots))


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


def _in_conflict(label: Int[Tensor, " nodes"], view: Int[Tensor, " nodes"]) -> Bool[Tensor, " nodes"]:
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

    In each round every component proposes its open edge of lowest rank; an edge that both its ends propose
    merges them, so merges come in disjoint pairs and can be judged at once. Every edge of lower rank at
    either end is decided by then: the result is that of taking the edges one by one in ``hashed_order``.
    """
    nodes, device = len(view), view.device
    label = torch.arange(nodes, device=device)
    # Edges stay in the order in which they are taken.
    order = hashed_order(len(first), device)
    first, second, rank = first[order], second[order], torch.arange(len(first), device=device)
    # Tables by root that are put back after use, and nodes that open edges can still reach: the last rounds of many
    # touch a few components only.
    most = len(first)
    best = torch.full((nodes,), most, device=device)
    merged_into = torch.arange(nodes, device=device)
    marked = torch.zeros(nodes, dtype=torch.bool, device=device)
    active, open_before, rounds = label.clone(), len(first), 0
    while len(first):
        rounds += 1
        root_a, root_b = label[first], label[second]
        best.scatter_reduce_(0, root_a, rank, "amin").scatter_reduce_(0, root_b, rank, "amin")
        agreed = (best[root_a] == rank) & (best[root_b] == rank)
        best[root_a] = best[root_b] = most
        into, from_ = torch.minimum(root_a, root_b)[agreed], torch.maximum(root_a, root_b)[agreed]
        marked[into] = marked[from_] = True
        touched = active[marked[label[active]]]
        marked[into] = marked[from_] = False
        merged_into[from_] = into
        marked[_roots_in_conflict(merged_into[label[touched]], view[touched])] = True
        refused = marked[into]
        marked[into] = False
        merged_into[from_[refused]] = from_[refused]
        label[touched] = merged_into[label[touched]]
        merged_into[from_] = from_
        root_a, root_b = label[first], label[second]
        still_open = (root_a != root_b) & ~agreed
        if rounds % THIN_EVERY == 0:
            still_open &= _first_of_each_pair(root_a, root_b, nodes)
        first, second, rank = first[still_open], second[still_open], rank[still_open]
        if 2 * len(first) < open_before:
            open_before = len(first)
            marked[label[first]] = marked[label[second]] = True
            active = active[marked[label[active]]]
            marked[label[first]] = marked[label[second]] = False
    return label


def _first_of_each_pair(
    root_a: Int[Tensor, " m"], root_b: Int[Tensor, " m"], nodes: int
) -> Bool[Tensor, " m"]:
    """The first edge between each two components, of edges in the order in which they are taken.

    It decides for all others: if it is taken they join nothing, and what it is refused for stands against them too,
    since components only grow.
    """
    pair = torch.minimum(root_a, root_b) * nodes + torch.maximum(root_a, root_b)
    pair, order = pair.sort(stable=True)
    new = torch.ones_like(pair, dtype=torch.bool)
    new[1:] = pair[1:] != pair[:-1]
    first = torch.zeros_like(new)
    first[order[new]] = True
    return first


def hashed_order(count: int, device: torch.device | str = "cpu") -> Int[Tensor, " count"]:
    """The places ``0 … count - 1`` in an order without meaning, by a hash; the same on every device.

    In the order as given, a chain of matches would merge one by one instead of in halves.
    """
    place = torch.arange(1, count + 1, device=device)
    return (place * 2654435761 % (1 << 32)).argsort(stable=True)


def filter_tracks(
    tracks: Tracks,
    residuals_px: Float[Tensor, "k 2"],
    depth: Float[Tensor, " k"],
    angle_deg: Float[Tensor, " points"],
    *,
    max_error_px: float,
    min_angle_deg: float,
    min_length: int = 2,
) -> FilteredTracks:
    """Drop observations with an error above ``max_error_px`` or not in front of their view, then tracks.

    A track goes when fewer than ``min_length`` observations of it remain or its ``angle_deg`` is below
    ``min_angle_deg``. What is not finite is dropped. ``angle_deg`` is of all observations; where only the
    remaining ones are to count, filter, compute ``widest_angle_deg`` again, and filter again.
    """
    good = (
        (residuals_px.norm(dim=-1) <= max_error_px)
        & (depth > 0)
        & (angle_deg >= min_angle_deg)[tracks.point_index]
    )
    left = torch.bincount(tracks.point_index[good], minlength=tracks.num_points)
    observations = (good & (left >= min_length)[tracks.point_index]).nonzero()[:, 0]
    points, point_index = tracks.point_index[observations].unique(return_inverse=True)
    return FilteredTracks(
        Tracks(
            tracks.view_index[observations], tracks.keypoint_index[observations], point_index, len(points)
        ),
        observations,
        points,
    )


def widest_angle_deg(
    tracks: Tracks, points: Float[Tensor, "points 3"], cam_from_world: Float[Tensor, "views 3 4"]
) -> Float[Tensor, " points"]:
    """The largest angle under which a point sees two of its views; 0 for a single view.

    ``angle = 2 asin(|d_a - d_b| / 2)`` with unit directions, over all pairs of the track.
    """
    directions = camera_centres(cam_from_world)[tracks.view_index] - points[tracks.point_index]
    directions = torch.nn.functional.normalize(directions, dim=-1)
    every = torch.ones(len(cam_from_world), dtype=torch.bool, device=points.device)
    widest = points.new_zeros(tracks.num_points)
    for first, second, _ in ObservationGraph(
        tracks.view_index, tracks.point_index, every, tracks.num_points
    ).pairs():
        chord = (directions[first] - directions[second]).square().sum(-1)
        widest = widest.scatter_reduce(0, tracks.point_index[first], chord, "amax")
    return torch.rad2deg(2 * (0.5 * widest.sqrt()).clamp_max(1.0).asin())
