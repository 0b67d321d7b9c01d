"""Which views hold each other's scale: the rest hang on turns of the camera on the spot."""

import math
from dataclasses import dataclass
from itertools import combinations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from acezero_gpu.adjustment.merging import connected_components, hashed_order
from acezero_gpu.runtime import chunk_ranges, chunk_size_for

CHUNK_BYTES = 64 * 2**20
"""Working memory of one block of points."""


@dataclass(frozen=True, slots=True)
class RigidPartsConfig:
    """When baselines are of one scale, and what is a part."""

    min_angle_deg: float = 1.5
    """From this angle on two views tell how far away a point is."""
    min_points: int = 10
    """Points that three views must see so, for two of their baselines to be of one scale."""
    most_views: int = 12
    """Of the views that see a point, so many are looked at."""
    min_baseline_share: float = 0.1
    """A baseline ties a part if it is at least this share of the part's own median one."""
    min_views: int = 5
    """A part of fewer views is none: too few points are seen there to tell."""


def rigid_parts(
    points: Float[Tensor, "p 3"],
    centres: Float[Tensor, "v 3"],
    view_index: Int[Tensor, " k"],
    point_index: Int[Tensor, " k"],
    config: RigidPartsConfig = RigidPartsConfig(),
) -> Int[Tensor, " v"]:
    """The part of each view, counted from the largest down; -1 for views that belong to none.

    Within a part points with parallax hold the scale; between parts it hangs on points without, and is a guess that
    adjustment keeps. Two baselines with a view in common are of one scale if enough points that all three views see
    show parallax along both; a baseline is also of the scale of each part that both its views belong to, unless it
    is short there: several views of a turn belong to what is before and to what is behind it. A view of several parts
    counts to the largest; views that see a point beyond those that are looked at are with the part that sees most of
    their points. For up to 50,000 views: links between baselines are numbered by four views.
    """
    views, device = len(centres), points.device
    seen_by = _some_views(view_index, point_index, len(points), views, config.most_views)
    first, second, deep = _baselines_of_one_scale(points, centres, seen_by, config)
    if len(first) == 0:
        return torch.full((views,), -1, dtype=torch.long, device=device)
    baseline, ends = torch.cat([first, second]).unique(return_inverse=True)
    a, b = baseline // views, baseline % views
    ends_a, ends_b = ends.tensor_split(2)
    part = connected_components(ends_a, ends_b, len(baseline)).unique(return_inverse=True)[1]
    part = _joined(part, a, b, (centres[a] - centres[b]).norm(dim=-1), views, config.min_baseline_share)
    member = _members(part, a, b, views)
    member = member[member.sum(1) >= config.min_views]
    if len(member) == 0:
        return torch.full((views,), -1, dtype=torch.long, device=device)
    # Of the parts that share a view the largest one has it; argmax takes the first of equals.
    member = member[member.sum(1).argsort(descending=True, stable=True)]
    label = torch.where(member.any(0), member.long().argmax(0), -1)
    held = deep[point_index]
    label = _with_others(label, view_index[held], point_index[held], len(points), config.min_points)
    size = torch.bincount(label[label >= 0], minlength=len(member))
    rank = size.argsort(descending=True, stable=True).argsort()
    return torch.where(label >= 0, torch.where(size >= config.min_views, rank, -1)[label], -1)


def _baselines_of_one_scale(
    points: Float[Tensor, "p 3"],
    centres: Float[Tensor, "v 3"],
    seen_by: Int[Tensor, "p m"],
    config: RigidPartsConfig,
) -> tuple[Int[Tensor, " e"], Int[Tensor, " e"], Bool[Tensor, " p"]]:
    """Pairs of baselines, and which points have parallax; the baseline of views a < b is ``a * views + b``."""
    views, most = len(centres), seen_by.shape[1]
    deep = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    chord = 2 * math.sin(math.radians(config.min_angle_deg) / 2)
    found, often = [seen_by.new_zeros(0)], [seen_by.new_zeros(0)]
    links_per_point = 3 * math.comb(most, 3)
    for chunk in chunk_ranges(len(points), chunk_size_for(8 * 4 * links_per_point, CHUNK_BYTES)):
        view = seen_by[chunk]
        ray = normalize(centres[view.clamp_min(0)] - points[chunk, None], dim=-1)
        wide = (ray[:, :, None] - ray[:, None]).norm(dim=-1) >= chord
        wide &= (view >= 0)[:, :, None] & (view >= 0)[:, None]
        deep[chunk] = wide.flatten(1).any(1)
        baseline = view[:, :, None] * views + view[:, None]
        links = [seen_by.new_zeros(0)]
        for a, b, c in combinations(range(most), 3):
            for one, other in (((a, b), (b, c)), ((a, b), (a, c)), ((a, c), (b, c))):
                both = wide[:, *one] & wide[:, *other]
                links.append(baseline[:, *one][both] * views**2 + baseline[:, *other][both])
        link, times = torch.cat(links).unique(return_counts=True)
        found.append(link)
        often.append(times)
    link, which = torch.cat(found).unique(return_inverse=True)
    total = torch.zeros_like(link).index_add_(0, which, torch.cat(often))
    link = link[total >= config.min_points]
    return link // views**2, link % views**2, deep


def _with_others(
    label: Int[Tensor, " v"],
    view_index: Int[Tensor, " k"],
    point_index: Int[Tensor, " k"],
    points: int,
    min_points: int,
) -> Int[Tensor, " v"]:
    """Views without a part in the one that sees most of their points, if it sees enough."""
    of_view = label[view_index]
    alone = of_view < 0
    theirs, at = view_index[alone], point_index[alone]
    best, most = label, torch.full_like(label, min_points - 1)
    # One by one: there are few, and a table of all parts with all points would be large.
    for part in range(int(label.max()) + 1):
        seen = torch.zeros(points, dtype=torch.long, device=label.device)
        seen[point_index[of_view == part]] = 1
        count = torch.zeros_like(label).index_add_(0, theirs, seen[at])
        best = torch.where((label < 0) & (count > most), part, best)
        most = torch.maximum(most, count)
    return best


def _some_views(
    view_index: Int[Tensor, " k"], point_index: Int[Tensor, " k"], points: int, views: int, most: int
) -> Int[Tensor, "p m"]:
    """Up to ``most`` views of each point in ascending order, then -1.

    The same views are taken of every point, where it can be: three of them must meet at many points.
    """
    order = hashed_order(views, view_index.device)
    priority = torch.empty_like(order)
    priority[order] = torch.arange(views, device=order.device)
    key = (point_index.long() * views + priority[view_index]).unique()
    point = key // views
    count = torch.bincount(point, minlength=points)
    rank = torch.arange(len(key), device=key.device) - (count.cumsum(0) - count)[point]
    chosen = rank < most
    table = torch.full((points, most), views, dtype=torch.long, device=key.device)
    table[point[chosen], rank[chosen]] = order[(key % views)[chosen]]
    table = table.sort(dim=1).values
    return torch.where(table < views, table, -1)


def _joined(
    part: Int[Tensor, " b"],
    a: Int[Tensor, " b"],
    b: Int[Tensor, " b"],
    length: Float[Tensor, " b"],
    views: int,
    min_share: float,
) -> Int[Tensor, " b"]:
    """The part of each baseline, once those that share a baseline are one: joined parts may share further ones."""
    while True:
        parts = int(part.max()) + 1
        member = _members(part, a, b, views)
        ones, others = [part.new_zeros(0)], [part.new_zeros(0)]
        for other in range(parts):
            long_enough = length >= min_share * length[part == other].median()
            shared = part[member[other, a] & member[other, b] & long_enough].unique()
            ones.append(shared)
            others.append(torch.full_like(shared, other))
        label = connected_components(torch.cat(ones), torch.cat(others), parts)
        part = label[part].unique(return_inverse=True)[1]
        if int(part.max()) + 1 == parts:
            return part


def _members(
    part: Int[Tensor, " b"], a: Int[Tensor, " b"], b: Int[Tensor, " b"], views: int
) -> Bool[Tensor, "parts views"]:
    """Which views belong to each part."""
    member = torch.zeros(int(part.max()) + 1, views, dtype=torch.bool, device=part.device)
    member[part, a] = True
    member[part, b] = True
    return member
