"""Tracks: the keypoints of several views that show one point, from matches of pairs of views."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from acezero_gpu.adjustment.merging import connected_components, merge_without_conflict, nodes_in_conflict
from acezero_gpu.adjustment.observation_graph import ObservationGraph
from acezero_gpu.geometry import camera_centres


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


def build_tracks(
    view_a: Int[Tensor, " m"],
    view_b: Int[Tensor, " m"],
    keypoint_a: Int[Tensor, " m"],
    keypoint_b: Int[Tensor, " m"],
    keypoints_per_view: int,
    *,
    min_length: int = 2,
) -> Tracks:
    """Connected components of the matches ``(view_a, keypoint_a) - (view_b, keypoint_b)``.

    A point has one image per view, so a component with two keypoints of one view holds a wrong match. It is
    built again match by match, in an order without meaning, and every match is refused that would put two
    keypoints of a view into one track; what is left has no conflict, but a wrong match may survive in place of a
    right one. Matches within one view do not count. Tracks with fewer than ``min_length`` observations are left
    out.
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
    in_conflict = nodes_in_conflict(label, view)
    wrong = in_conflict[first]
    rebuilt = merge_without_conflict(first[wrong], second[wrong], view)
    label = torch.where(in_conflict, rebuilt, label)
    kept = torch.bincount(label, minlength=len(node))[label] >= min_length
    node, label, view = node[kept], label[kept], view[kept]
    order = label.argsort(stable=True)
    roots, point_index = label[order].unique(return_inverse=True)
    return Tracks(view[order], (node - view * keypoints_per_view)[order], point_index, len(roots))


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
