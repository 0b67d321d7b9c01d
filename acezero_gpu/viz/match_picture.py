"""Matches of a query against a map, as lines between two pictures."""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from torch import Tensor

from acezero_gpu.geometry import PinholeCamera, reproject

WIDTH_IN = 4.2
"""Of one picture, in inches of 100 pixels."""
GAP_PX = 8
"""Space between the pictures."""
COLOURS = "cividis"
LEGEND_IN = 0.75


def plot_map_matches(
    query: UInt8[Tensor, "h w 3"],
    mapped: UInt8[Tensor, "h w 3"],
    query_px: Float[Tensor, "n 2"],
    points: Float[Tensor, "n 3"],
    mapped_cam_from_world: Float[Tensor, "3 4"],
    camera: PinholeCamera,
    *,
    error_px: Float[Tensor, "n"] | None = None,
    max_px: float = 10.0,
    most: int = 60,
    stacked: bool = False,
    generator: torch.Generator | None = None,
) -> Figure:
    """Lines from pixels of the query to where the map's points for them lie in a mapped image.

    A map has no keypoints to match: it predicts a world point for each cell of the query, and ``points`` are these.
    They are projected into ``mapped``, an image whose pose is known, in pixels of ``camera``. Where the map is right,
    both ends of a line show the same thing. Lines are coloured by ``error_px``, the reprojection error in the query,
    if it is given. At most ``most`` are drawn, chosen at random; points outside the mapped image are left out.
    The query stands on the left, or above where ``stacked``.
    """
    height, width = query.shape[:2]
    seen = reproject(
        points.detach().cpu().float()[None], mapped_cam_from_world.detach().cpu()[None].float(), camera
    )
    ends, depth = seen.pixels[0], seen.depth[0]
    inside = (depth > 0) & (ends >= 0).all(-1) & (ends[:, 0] < width) & (ends[:, 1] < height)
    rows = inside.nonzero()[:, 0]
    generator = generator or torch.Generator().manual_seed(0)
    rows = rows[torch.randperm(len(rows), generator=generator)[:most]]
    right, down = (0, height + GAP_PX) if stacked else (width + GAP_PX, 0)
    figure, axes = _side_by_side(query, mapped, right, down)
    segments = torch.stack(
        [query_px.detach().cpu().float()[rows], ends[rows] + torch.tensor([right, down])], 1
    )
    lines = LineCollection(list(segments.numpy()), linewidths=1.1, cmap=COLOURS)
    lines.set_clim(0, max_px)
    lines.set_array(np.zeros(len(rows)) if error_px is None else error_px.detach().cpu()[rows].numpy())
    axes.add_collection(lines)
    flat = segments.flatten(0, 1).numpy()
    axes.scatter(flat[:, 0], flat[:, 1], s=9, facecolor="none", edgecolor="white", linewidth=0.8)
    axes.set_axis_off()
    if error_px is not None:
        bar = figure.colorbar(
            lines, ax=axes, orientation="horizontal", extend="max", fraction=0.045, pad=0.03
        )
        bar.set_label(f"reprojection error in the {'upper' if stacked else 'left'} picture (px)")
    return figure


def _side_by_side(
    query: UInt8[Tensor, "h w 3"], mapped: UInt8[Tensor, "h w 3"], right: int, down: int
) -> tuple[Figure, Axes]:
    """Both pictures in one pair of axes, the second moved to the right or down, in pixels."""
    height, width = query.shape[:2]
    whole_width, whole_height = right + width, down + height
    figure_width = WIDTH_IN * (2 if right else 1)
    figure_height = figure_width * whole_height / whole_width + LEGEND_IN
    figure = Figure(figsize=(figure_width, figure_height), layout="constrained")
    axes = figure.subplots()
    for left, top, picture in ((0, 0, query), (right, down, mapped)):
        extent = (left, left + width, top + height, top)
        axes.imshow(picture.cpu().numpy(), extent=extent, interpolation="none")
    axes.set_xlim(0, whole_width)
    axes.set_ylim(whole_height, 0)
    return figure, axes
