"""Which views hold each other's scale: the rest hang on turns of the camera on the spot."""

from itertools import combinations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from acezero_gpu.adjustment.merging import connected_components, hashed_order
from acezero_gpu.runtime import chunk_ranges

MIN_ANGLE_DEG = 1.5
"""From this angle on two views tell how far away a point is."""
MIN_POINTS = 10
"""Points that three views must see so, for two of their baselines to be of one scale."""
MOST_VIEWS = 12
"""Of the views that see a point, so many are looked at."""
MIN_BASELINE_SHARE = 0.1
"""A baseline ties a part if it is at least this share of the part's own median one."""
MIN_VIEWS = 5
"""A part of fewer views is no part: few points are seen there."""
POINTS_AT_ONCE = 16_384


def rigid_parts(
    points: Float[Tensor, "p 3"],
    centres: Float[Tensor, "v 3"],
    view_index: Int[Tensor, " k"],
    point_index: Int[Tensor, " k"],
) -> Int[Tensor, " v"]:
    """The part of each view, counted from the largest down; -1 for views that belong to none.

    Within a part points with parallax hold the scale; between parts it hangs on points without, and is a guess that
    adjustment keeps. Two baselines with a view in common are of one scale if enough points that all three views see
    show parallax along both; a baseline is also of the scale of each part that both its views belong to, unless it
    is short there: several views of a turn belong to what is before and to what is behind it. Views that see a point
    beyond those that are looked at are with the part that sees most of their points.
    """
    views, device = len(centres), points.device
    seen_by = _some_views(view_index, point_index, len(points), views)
    first, second, deep = _baselines_of_one_scale(points, centres, seen_by)
    if len(first) == 0:
        return torch.full((views,), -1, dtype=torch.long, device=device)
    baseline, ends = torch.cat([first, second]).unique(return_inverse=True)
    ends_a, ends_b = ends.tensor_split(2)
    a, b = baseline // views, baseline % views
    part = connected_components(ends_a, ends_b, len(baseline)).unique(return_inverse=True)[1]
    part = _joined(part, a, b, (centres[a] - centres[b]).norm(dim=-1), views)
    member = _members(part, a, b, views)
    # Of the parts that share a view the largest one has it; argmax takes the first of equals.
    member = member[member.sum(1).argsort(descending=True, stable=True)]
    label = torch.where(member.any(0), member.long().argmax(0), -1)
    held = deep[point_index]
    label = _with_others(label, view_index[held], point_index[held], len(points))
    size = torch.bincount(label[label >= 0], minlength=int(label.max()) + 1)
    rank = size.argsort(descending=True, stable=True).argsort()
    return torch.where(label >= 0, torch.where(size >= MIN_VIEWS, rank, -1)[label], -1)


def _baselines_of_one_scale(
    points: Float[Tensor, "p 3"], centres: Float[Tensor, "v 3"], seen_by: Int[Tensor, "p m"]
) -> tuple[Int[Tensor, " e"], Int[Tensor, " e"], Bool[Tensor, " p"]]:
    """Pairs of baselines, and which points have parallax; the baseline of views a < b is ``a * views + b``."""
    views = len(centres)
    deep = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    chord = 2 * torch.sin(torch.deg2rad(torch.tensor(MIN_ANGLE_DEG / 2)))
    found = [seen_by.new_zeros(0)]
    often = [seen_by.new_zeros(0)]
    for chunk in chunk_ranges(len(points), POINTS_AT_ONCE):
        view = seen_by[chunk]
        ray = normalize(centres[view.clamp_min(0)] - points[chunk, None], dim=-1)
        wide = (ray[:, :, None] - ray[:, None]).norm(dim=-1) >= chord
        wide &= (view >= 0)[:, :, None] & (view >= 0)[:, None]
        deep[chunk] = wide.flatten(1).any(1)
        baseline = view[:, :, None] * views + view[:, None]
        links = [seen_by.new_zeros(0)]
        for a, b, c in combinations(range(MOST_VIEWS), 3):
            for one, other in (((a, b), (b, c)), ((a, b), (a, c)), ((a, c), (b, c))):
                both = wide[:, *one] & wide[:, *other]
                links.append(baseline[:, *one][both] * views**2 + baseline[:, *other][both])
        link, times = torch.cat(links).unique(return_counts=True)
        found.append(link)
        often.append(times)
    link, which = torch.cat(found).unique(return_inverse=True)
    total = torch.zeros_like(link).index_add_(0, which, torch.cat(often))
    link = link[total >= MIN_POINTS]
    return link // views**2, link % views**2, deep


def _with_others(
    label: Int[Tensor, " v"], view_index: Int[Tensor, " k"], point_index: Int[Tensor, " k"], points: int
) -> Int[Tensor, " v"]:
    """Views without a part in the one that sees most of their points."""
    of_view = label[view_index]
    known = of_view >= 0
    votes = torch.zeros(points, int(label.max()) + 1, device=label.device)
    votes.index_put_((point_index[known], of_view[known]), votes.new_ones(()), accumulate=True)
    sees = votes.new_zeros(len(label), votes.shape[1])
    sees.index_add_(0, view_index[~known], votes.clamp_max(1)[point_index[~known]])
    most, part = sees.max(1)
    return torch.where((label < 0) & (most >= MIN_POINTS), part, label)


def _some_views(
    view_index: Int[Tensor, " k"], point_index: Int[Tensor, " k"], points: int, views: int
) -> Int[Tensor, "p m"]:
    """Up to ``MOST_VIEWS`` views of each point in ascending order, then -1.

    The same views are taken of every point, where it can be: three of them must meet at many points.
    """
    priority = torch.empty(views, dtype=torch.long, device=view_index.device)
    priority[hashed_order(views, view_index.device)] = torch.arange(views, device=view_index.device)
    key = (point_index.long() * views + priority[view_index]).unique()
    point = key // views
    count = torch.bincount(point, minlength=points)
    rank = torch.arange(len(key), device=key.device) - (count.cumsum(0) - count)[point]
    chosen = rank < MOST_VIEWS
    table = torch.full((points, MOST_VIEWS), views, dtype=torch.long, device=key.device)
    table[point[chosen], rank[chosen]] = hashed_order(views, key.device)[(key % views)[chosen]]
    table = table.sort(dim=1).values
    return torch.where(table < views, table, -1)


def _joined(
    part: Int[Tensor, " b"],
    a: Int[Tensor, " b"],
    b: Int[Tensor, " b"],
    length: Float[Tensor, " b"],
    views: int,
) -> Int[Tensor, " b"]:
    """The part of each baseline, once those that share a baseline are one."""
    parts = int(part.max()) + 1
    member = _members(part, a, b, views)
    ones, others = [part.new_zeros(0)], [part.new_zeros(0)]
    for other in range(parts):
        long_enough = length >= MIN_BASELINE_SHARE * length[part == other].median()
        shared = part[member[other, a] & member[other, b] & long_enough].unique()
        ones.append(shared)
        others.append(torch.full_like(shared, other))
    label = connected_components(torch.cat(ones), torch.cat(others), parts)
    return label[part].unique(return_inverse=True)[1]


def _members(
    part: Int[Tensor, " b"], a: Int[Tensor, " b"], b: Int[Tensor, " b"], views: int
) -> Bool[Tensor, "parts views"]:
    """Which views belong to each part."""
    member = torch.zeros(int(part.max()) + 1, views, dtype=torch.bool, device=part.device)
    member[part, a] = True
    member[part, b] = True
    return member
