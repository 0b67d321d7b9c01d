"""Which views hang together by points, and what fixes the frame and the scale of each such part."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from acezero_gpu.adjustment.merging import connected_components
from acezero_gpu.adjustment.observation_model import Estimate
from acezero_gpu.geometry import camera_centres


@dataclass(frozen=True, slots=True)
class Gauge:
    """What moves, and the parts of the graph of views and points."""

    moving: Bool[Tensor, " views"]
    """Views whose pose is adjusted."""
    component_of_view: Int[Tensor, " views"]
    """Numbered from 0 in the order of each part's first view; -1 for a view that nothing observed counts in."""
    component_of_point: Int[Tensor, " points"]
    """The same for points."""
    pivot: Int[Tensor, " components"]
    """The only held view of a part whose scale is free, about which it is restored; -1 where it is not free."""


def components(
    view_index: Int[Tensor, " k"], point_index: Int[Tensor, " k"], views: int, points: int
) -> tuple[Int[Tensor, " views"], Int[Tensor, " points"]]:
    """The connected part of each view and each point; -1 for those that no observation mentions."""
    label = connected_components(view_index, views + point_index, views + points)
    observed = torch.zeros(views + points, dtype=torch.bool, device=label.device)
    observed[view_index] = True
    observed[views + point_index] = True
    roots = torch.where(observed, label, views + points).unique()
    number = torch.where(observed, torch.searchsorted(roots, label), -1)
    return number[:views], number[views:]


def make_gauge(
    of_view: Int[Tensor, " views"],
    of_point: Int[Tensor, " points"],
    fixed_views: Bool[Tensor, " views"] | None,
    *,
    poses_move: bool,
    points_move: bool,
) -> Gauge:
    """Holds the first view of every part without a held one, unless held points fix the frame already."""
    observed = of_view >= 0
    parts = int(of_view.max()) + 1 if len(of_view) else 0
    fixed = torch.zeros_like(observed) if fixed_views is None else fixed_views.clone()
    pivot = torch.full((parts,), -1, dtype=torch.long, device=of_view.device)
    if poses_move and points_move:
        held = torch.zeros_like(pivot).index_add_(0, of_view[observed], fixed[observed].long())
        index = torch.arange(len(of_view), device=of_view.device)
        none = torch.full_like(pivot, len(of_view))
        first = none.scatter_reduce(0, of_view[observed], index[observed], "amin")
        fixed[first[held == 0]] = True
        chosen = observed & fixed
        pivot = none.scatter_reduce(0, of_view[chosen], index[chosen], "amin")
        pivot = torch.where(held <= 1, pivot, -1)
    moving = observed & ~fixed if poses_move else torch.zeros_like(observed)
    return Gauge(moving, of_view, of_point, pivot)


def restore_scale(
    estimate: Estimate, start: Estimate, gauge: Gauge, deep: Bool[Tensor, " points"]
) -> Estimate:
    """Each part of free scale, scaled about its pivot so that its views spread about their centroid as before.

    The ``deep`` points, which move and are seen with parallax, go with it. Unchanged where a part has none: the
    spread of views in one place is nothing but rounding.
    """
    parts = len(gauge.pivot)
    if parts == 0:
        return estimate
    seen = gauge.component_of_view >= 0
    part = gauge.component_of_view[seen]
    centres = camera_centres(estimate.cam_from_world)

    def mean(values: Float[Tensor, "v n"]) -> Float[Tensor, "parts n"]:
        count = torch.bincount(part, minlength=parts)[:, None]
        return values.new_zeros(parts, values.shape[1]).index_add_(0, part, values) / count

    def spread(at: Float[Tensor, "views 3"]) -> Float[Tensor, "parts 1"]:
        return mean((at[seen] - mean(at[seen])[part]).norm(dim=-1, keepdim=True))

    scale = spread(camera_centres(start.cam_from_world)) / spread(centres)
    of_point = gauge.component_of_point.clamp_min(0)
    moves = deep & (gauge.component_of_point >= 0)
    has_depth = torch.zeros_like(gauge.pivot).index_add_(0, of_point, moves.long()) > 0
    usable = scale.isfinite() & (scale > 0) & ((gauge.pivot >= 0) & has_depth)[:, None]
    scale = torch.where(usable, scale, 1.0)
    pivot = centres[gauge.pivot.clamp_min(0)]
    poses = estimate.cam_from_world.clone()
    scaled = pivot[part] + scale[part] * (centres[seen] - pivot[part])
    changed = (seen & gauge.moving).nonzero()[:, 0]
    scaled = centres.index_put((seen.nonzero()[:, 0],), scaled)[changed]
    poses[changed, :, 3:] = -poses[changed][..., :3] @ scaled[..., None]
    points = pivot[of_point] + scale[of_point] * (estimate.points - pivot[of_point])
    return replace(
        estimate, cam_from_world=poses, points=torch.where(moves[:, None], points, estimate.points)
    )
