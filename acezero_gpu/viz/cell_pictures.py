"""What a map says about one image, cell by cell: errors, inliers and scene coordinates as pictures."""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

WIDTH_IN = 4.2
"""Width of a figure, in inches of 100 pixels."""
LEGEND_IN = 0.55
"""Height of what stands below the picture."""
ERROR_COLOURS = "cividis"
"""Of one hue family and of even lightness steps: readable without colour vision."""
SPREAD = (0.02, 0.98)
"""Quantiles of the scene coordinates between which their colours change."""


def plot_reprojection_error(
    image: UInt8[Tensor, "h w 3"], error_px: Float[Tensor, "rows cols"], *, max_px: float = 10.0
) -> Figure:
    """Reprojection error of every cell over the image: dark blue is exact, yellow ``max_px`` and more.

    ``error_px`` is in any pixels, which its scale is then in; cells that are not finite (behind the camera) count as
    beyond ``max_px``.
    """
    figure, axes = _figure(image)
    _show_image(axes, image, 0.7)
    errors = error_px.detach().cpu().float().clamp(0, max_px).nan_to_num(max_px)
    height, width = image.shape[:2]
    extent = (0, width, height, 0)
    scale = Normalize(0, max_px)
    axes.imshow(
        errors.numpy(), cmap=ERROR_COLOURS, norm=scale, alpha=0.6, extent=extent, interpolation="nearest"
    )
    # Not of the image itself: its colours are mixed with the photograph's.
    colours = ScalarMappable(scale, ERROR_COLOURS)
    bar = figure.colorbar(colours, ax=axes, orientation="horizontal", extend="max", fraction=0.05, pad=0.03)
    bar.set_label("reprojection error (px)")
    return figure


def plot_inliers(
    image: UInt8[Tensor, "h w 3"], error_px: Float[Tensor, "rows cols"], threshold_px: float = 10.0
) -> Figure:
    """The image where its cells agree with the pose to within ``threshold_px``, and dark elsewhere."""
    figure, axes = _figure(image)
    _show_image(axes, image, 1.0)
    inlier = (error_px.detach().cpu() < threshold_px).numpy()
    height, width = image.shape[:2]
    shade = np.zeros((*inlier.shape, 4), dtype=np.float32)
    shade[~inlier] = (0.05, 0.07, 0.1, 0.78)
    axes.imshow(shade, extent=(0, width, height, 0), interpolation="nearest")
    share = 100 * float(inlier.mean()) if inlier.size else 0.0
    axes.set_xlabel(f"bright: {share:.0f} % of the cells agree to {threshold_px:g} px", labelpad=8)
    return figure


def plot_scene_coordinates(
    points: Float[Tensor, "rows cols 3"],
    *,
    image: UInt8[Tensor, "h w 3"] | None = None,
    bounds: Float[Tensor, "2 3"] | None = None,
) -> Figure:
    """Predicted world points as colours: x is red, y green, z blue.

    ``bounds`` (lowest and highest of each axis) make the colours of several images comparable; otherwise they are
    those of nearly all points here. ``image`` is only asked for its size. Points that are not finite are grey.
    """
    height, width = points.shape[:2] if image is None else image.shape[:2]
    figure, axes = _figure(torch.zeros(height, width, 3, dtype=torch.uint8))
    colours, bounds = scene_colours(points, bounds)
    axes.imshow(colours, extent=(0, width, height, 0), interpolation="nearest")
    ranges = [
        f"{axis} {low:.2g} … {high:.2g}" for axis, low, high in zip("xyz", *bounds.tolist(), strict=True)
    ]
    axes.set_xlabel(
        "red, green, blue: " + ", ".join(ranges) + "\n(world units)", labelpad=8, fontsize="small"
    )
    return figure


def scene_colours(
    points: Float[Tensor, "rows cols 3"], bounds: Float[Tensor, "2 3"] | None = None
) -> tuple[NDArray[np.float32], Float[Tensor, "2 3"]]:
    """Colours between 0 and 1, and the bounds that they stand for."""
    points = points.detach().cpu().float()
    finite = points.isfinite().all(-1)
    if bounds is None:
        some = points[finite]
        some = some[:: max(1, len(some) // 50_000)]
        bounds = (
            torch.quantile(some, torch.tensor(SPREAD), dim=0)
            if len(some)
            else torch.stack([torch.zeros(3), torch.ones(3)])
        )
    low, high = bounds
    colours = ((points - low) / (high - low).clamp_min(1e-9)).clamp(0, 1)
    colours[~finite] = 0.5
    return colours.numpy(), bounds


def _figure(image: UInt8[Tensor, "h w 3"]) -> tuple[Figure, Axes]:
    height, width = image.shape[:2]
    figure = Figure(figsize=(WIDTH_IN, WIDTH_IN * height / width + LEGEND_IN), layout="constrained")
    axes = figure.subplots()
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    return figure, axes


def _show_image(axes: Axes, image: UInt8[Tensor, "h w 3"], brightness: float) -> None:
    height, width = image.shape[:2]
    shown = (image.detach().cpu().float() * brightness).byte().numpy()
    # Not resampled: a page shows the photograph's own pixels.
    axes.imshow(shown, extent=(0, width, height, 0), interpolation="none")
