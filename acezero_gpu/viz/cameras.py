"""One picture of a reconstruction: coloured points and cameras, in perspective, from above and aside."""

import math
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from acezero_gpu.data.camera_frusta import confidence_colours, frustum_corners
from acezero_gpu.geometry import camera_centres
from acezero_gpu.viz.framing import frustum_size, middle_and_radius, up_and_ahead
from acezero_gpu.viz.panel import OVERSAMPLING, Box, View, draw_panel

SIZE_PX = (1200, 700)
MARGIN_PX, TITLE_PX, LEGEND_PX, LEGEND_BAR_PX = 10, 46, 24, 160
BACKGROUND, INK = (255, 255, 255), (38, 42, 48)
LEFT_SHARE = 0.66
"""Share of the width that the perspective view takes."""
ELEVATION_DEG, AZIMUTH_DEG = 32.0, 24.0
"""The perspective view looks down by the one and is turned sideways by the other."""


def plot_reconstruction(
    path: str | Path,
    points: Float[Tensor, "n 3"],
    colours: UInt8[Tensor, "n 3"],
    cam_from_world: Float[Tensor, "v 3 4"],
    confidence: Float[Tensor, " v"],
    *,
    title: str = "",
    aspect: float = 4 / 3,
) -> None:
    """Write a PNG of the points and the cameras; cameras of confidence 0 have no pose and are not drawn.

    The vertical is the mean of the cameras' own. Far outliers are cut off rather than shrinking the rest,
    and what lies nearer than the cameras (a ceiling seen from above, the near wall of a room) is left out.
    """
    points, cam_from_world = points.detach().cpu().float(), cam_from_world.detach().cpu().float()
    finite = points.isfinite().all(-1)
    points, colours = points[finite], colours.detach().cpu()[finite]
    posed = (confidence.detach().cpu() > 0) & cam_from_world.isfinite().all(-1).all(-1)
    cam_from_world, confidence = cam_from_world[posed], confidence.detach().cpu().float()[posed]
    middle, radius = middle_and_radius(points, camera_centres(cam_from_world))
    frusta = frustum_corners(cam_from_world, frustum_size(cam_from_world, radius), aspect)
    image = Image.new("RGB", (SIZE_PX[0] * OVERSAMPLING, SIZE_PX[1] * OVERSAMPLING), BACKGROUND)
    camera_colours = confidence_colours(confidence)
    for view, (left, top, right, bottom) in _panels(points - middle, cam_from_world):
        size = ((right - left) * OVERSAMPLING, (bottom - top) * OVERSAMPLING)
        panel = draw_panel(
            view, size, (points - middle) / radius, colours, (frusta - middle) / radius, camera_colours
        )
        image.paste(panel, (left * OVERSAMPLING, top * OVERSAMPLING))
    caption = f"{len(cam_from_world)} of {len(posed)} cameras, {len(points):,} points"
    _write_words(image, title, caption)
    iio.imwrite(path, np.asarray(image.resize(SIZE_PX, Image.Resampling.LANCZOS)), plugin="pillow")


def _panels(points: Float[Tensor, "n 3"], cam_from_world: Float[Tensor, "v 3 4"]) -> list[tuple[View, Box]]:
    """Perspective on the left, the views from above and from the side on the right."""
    up, ahead = up_and_ahead(points, cam_from_world)
    right = torch.linalg.cross(ahead, up)
    elevation, azimuth = math.radians(ELEVATION_DEG), math.radians(AZIMUTH_DEG)
    level = math.cos(azimuth) * ahead + math.sin(azimuth) * right
    sideways = torch.linalg.cross(level, up)
    forward = math.cos(elevation) * level - math.sin(elevation) * up
    width, bottom = SIZE_PX[0] - MARGIN_PX, SIZE_PX[1] - MARGIN_PX - LEGEND_PX
    x, y = int(LEFT_SHARE * SIZE_PX[0]), (TITLE_PX + bottom) // 2
    return [
        (
            View(
                "", torch.stack([sideways, torch.linalg.cross(forward, sideways), forward]), perspective=True
            ),
            (MARGIN_PX, TITLE_PX, x - MARGIN_PX, bottom),
        ),
        (View("from above", torch.stack([right, -ahead, -up])), (x, TITLE_PX, width, y - MARGIN_PX // 2)),
        (View("from the side", torch.stack([right, -up, ahead])), (x, y + MARGIN_PX // 2, width, bottom)),
    ]


def _write_words(image: Image.Image, title: str, caption: str) -> None:
    """Title and counts above the panels, the scale of the camera colours below."""
    draw = ImageDraw.Draw(image)
    scale = OVERSAMPLING
    middle_y = scale * TITLE_PX // 2
    draw.text((scale * 2 * MARGIN_PX, middle_y), title, fill=INK, font=_font(22), anchor="lm")
    draw.text(
        (scale * (SIZE_PX[0] - 2 * MARGIN_PX), middle_y), caption, fill=INK, font=_font(15), anchor="rm"
    )
    left, top = scale * 2 * MARGIN_PX, scale * (SIZE_PX[1] - LEGEND_PX)
    confidence = torch.linspace(0, 2000, LEGEND_BAR_PX * scale)
    bar = confidence_colours(confidence)[None].expand(10 * scale, -1, -1).numpy()
    draw.text((left, top + 5 * scale), "confidence  0", fill=INK, font=_font(13), anchor="lm")
    left += int(draw.textlength("confidence  0 ", font=_font(13)))
    image.paste(Image.fromarray(np.ascontiguousarray(bar)), (left, top))
    right = left + bar.shape[1] + 6 * scale
    draw.text((right, top + 5 * scale), "2000 and more", fill=INK, font=_font(13), anchor="lm")


def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px * OVERSAMPLING)
