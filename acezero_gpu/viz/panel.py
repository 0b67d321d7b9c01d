"""A small rasteriser: coloured points with a depth test, and camera pyramids drawn over them."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from acezero_gpu.data.camera_frusta import FRUSTUM_EDGES

OVERSAMPLING = 2
"""Everything is drawn this many times as large and then reduced: smooth lines without a drawing library."""
BACKGROUND, FAINT = (246, 247, 249), (120, 126, 134)
FADE = 0.3
"""How far the most distant points fade into the background."""
LABEL_PX = 16
"""Height that a panel's label takes."""
EYE_DISTANCE = 2.6
"""Distance of the perspective eye from the middle, in radii of the scene."""
CUT_RADIUS = 2.5
"""Points further out than this many radii are outliers and are not drawn."""

Box = tuple[int, int, int, int]
"""Left, top, right and bottom, in pixels of the finished picture."""


@dataclass(frozen=True, slots=True)
class View:
    """A direction to look from."""

    title: str
    """Written into the corner of the panel."""
    rotation: Float[Tensor, "3 3"]
    """Rows are right, down and forward in the world, as of a camera."""
    perspective: bool = False
    """Whether near things look larger."""


def draw_panel(
    view: View,
    size_px: tuple[int, int],
    points: Float[Tensor, "n 3"],
    colours: UInt8[Tensor, "n 3"],
    frusta: Float[Tensor, "v 5 3"],
    camera_colours: UInt8[Tensor, "v 3"],
) -> Image.Image:
    """The scene from one direction; world coordinates are centred and scaled to radius 1.

    Points nearer to the viewer than all but a few cameras are left out, because they would hide the rest.
    """
    scene, cameras = points @ view.rotation.T, frusta @ view.rotation.T
    kept = scene.norm(dim=-1) < CUT_RADIUS
    if len(cameras):
        kept &= scene[:, 2] > cameras[:, 0, 2].quantile(0.05)
    scene, colours = scene[kept], colours[kept]
    middle, scale = _fit([_flatten(view, _thinned(scene)), _flatten(view, cameras.flatten(0, 1))], size_px)
    half = torch.tensor([size_px[0], size_px[1] + LABEL_PX * OVERSAMPLING]) / 2
    pixels = (_flatten(view, scene) - middle) * scale + half
    panel = Image.fromarray(_splat(pixels, scene[:, 2], colours, size_px))
    corners = (_flatten(view, cameras.flatten(0, 1)) - middle) * scale + half
    _draw_frusta(panel, corners.unflatten(0, (-1, 5)), cameras[:, 0, 2], camera_colours)
    font = ImageFont.load_default(13 * OVERSAMPLING)
    ImageDraw.Draw(panel).text((8 * OVERSAMPLING, 6 * OVERSAMPLING), view.title, fill=FAINT, font=font)
    return panel


def _flatten(view: View, points: Float[Tensor, "n 3"]) -> Float[Tensor, "n 2"]:
    """Viewer coordinates to the image plane, in units of the scene's radius."""
    if not view.perspective:
        return points[:, :2]
    return points[:, :2] * EYE_DISTANCE / (points[:, 2:] + EYE_DISTANCE).clamp_min(0.2)


def _fit(parts: list[Float[Tensor, "_ 2"]], size_px: tuple[int, int]) -> tuple[Float[Tensor, "2"], float]:
    """The middle and the scale that bring nearly all of each part into the panel."""
    parts = [part for part in parts if len(part) > 0]
    if not parts:
        return torch.zeros(2), 1.0
    low = torch.stack([part.quantile(0.01, dim=0) for part in parts]).amin(0)
    high = torch.stack([part.quantile(0.99, dim=0) for part in parts]).amax(0)
    span = (high - low).clamp_min(1e-3)
    return (low + high) / 2, min(0.9 * size_px[0] / float(span[0]), 0.85 * size_px[1] / float(span[1]))


def _splat(
    pixels: Float[Tensor, "n 2"],
    depth: Float[Tensor, "n"],
    colours: UInt8[Tensor, "n 3"],
    size_px: tuple[int, int],
) -> NDArray[np.uint8]:
    """Small squares from far to near, so that the nearest point of a pixel is what stays."""
    width, height = size_px
    canvas = torch.tensor(BACKGROUND, dtype=torch.float32).repeat(height * width, 1)
    if len(pixels) == 0:
        return canvas.reshape(height, width, 3).byte().numpy()
    low, high = _thinned(depth).quantile(0.02), depth.max()
    distance = ((depth - low) / (high - low).clamp_min(1e-6)).clamp(0, 1)[:, None]
    faded = colours.float() * (1 - FADE * distance) + FADE * distance * torch.tensor(BACKGROUND)
    dot = min(max(round((width * height / len(pixels)) ** 0.5), 2), 5)
    column, row = (pixels - dot / 2).round().long().unbind(-1)
    inside = (column >= 0) & (row >= 0) & (column < width - dot) & (row < height - dot)
    first = (row * width + column)[inside]
    step = torch.arange(dot)
    target = (first[:, None, None] + step[:, None] * width + step).flatten()
    squares = dot * dot
    nearest = torch.full((height * width,), torch.inf)
    values = depth[inside].repeat_interleave(squares)
    nearest.scatter_reduce_(0, target, values, "amin")
    wins = values == nearest[target]
    canvas[target[wins]] = faded[inside].repeat_interleave(squares, 0)[wins]
    return canvas.reshape(height, width, 3).round().byte().numpy()


def _draw_frusta(
    image: Image.Image,
    corners: Float[Tensor, "v 5 2"],
    depth: Float[Tensor, " v"],
    colours: UInt8[Tensor, "v 3"],
) -> None:
    """Pyramids from far to near, the image plane tinted."""
    draw = ImageDraw.Draw(image, "RGBA")
    width = OVERSAMPLING if len(corners) > 150 else OVERSAMPLING + 1
    for camera in depth.argsort(descending=True).tolist():
        colour = tuple(colours[camera].tolist())
        spots = [tuple(corner) for corner in corners[camera].tolist()]
        draw.polygon(spots[1:], fill=(*colour, 50))
        for start, end in FRUSTUM_EDGES:
            draw.line([spots[start], spots[end]], fill=(*colour, 235), width=width)


def _thinned(values: Float[Tensor, "n *rest"], most: int = 50_000) -> Float[Tensor, "m *rest"]:
    """Every k-th row: ``torch.quantile`` refuses large inputs, and limits need no more."""
    return values[:: max(1, len(values) // most)]
