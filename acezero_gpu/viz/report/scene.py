"""The 3D view's data: points and cameras in a frame that stands upright, packed for the page."""

import base64
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from acezero_gpu.data.camera_frusta import frustum_corners
from acezero_gpu.geometry import camera_centres
from acezero_gpu.viz.framing import frustum_size, middle_and_radius, up_and_ahead
from acezero_gpu.viz.report.content import ReportContent

MAX_POINTS = 60_000
"""More would show no more detail at the size of a page; nine bytes each."""
CUT_RADIUS = 3.0
"""Points further out than this many radii are outliers and are left out."""
COLOUR_MAP, COLOUR_FROM = "viridis", 0.25
"""The darkest quarter would vanish against the dark background of the view."""
LEGEND_STEPS = 9


def scene_of(content: ReportContent) -> dict[str, Any]:
    """Points, cameras and the frame's size as JSON: x to the right, y up, z towards the viewer, radius about 1."""
    finite = content.points.isfinite().all(-1)
    points, colours = content.points[finite].cpu().float(), content.colours[finite].cpu()
    shown = torch.tensor([image.registered for image in content.images], dtype=torch.bool)
    poses = content.cam_from_world.cpu().float()
    rows = (shown & poses.isfinite().flatten(1).all(-1)).nonzero()[:, 0]
    poses = poses[rows]
    middle, radius = middle_and_radius(points, camera_centres(poses))
    up, ahead = up_and_ahead(points - middle, poses)
    turn = torch.stack([torch.linalg.cross(ahead, up), up, -ahead])
    placed = (points - middle) @ turn.T / radius
    near = placed.norm(dim=-1) < CUT_RADIUS
    placed, colours = placed[near], colours[near]
    if len(placed) > MAX_POINTS:
        some = torch.randperm(len(placed), generator=torch.Generator().manual_seed(0))[:MAX_POINTS]
        placed, colours = placed[some], colours[some]
    corners = (frustum_corners(poses, frustum_size(poses, radius), content.aspect) - middle) @ turn.T / radius
    top = colour_range(content)[1]
    return {
        "points": _packed_points(placed),
        "colours": base64.b64encode(colours.numpy().tobytes()).decode(),
        "span": 2 * CUT_RADIUS,
        "cameras": [
            {
                "image": row,
                "corners": [round(value, 4) for value in corner.flatten().tolist()],
                "colour": _colour(content.images[row].confidence / top),
            }
            for row, corner in zip(rows.tolist(), corners, strict=True)
        ],
    }


def colour_range(content: ReportContent) -> tuple[float, float]:
    """Confidences between which the cameras' colours change."""
    if content.confidence_unit == "% of cells":
        return 0.0, 100.0
    finite = [image.confidence for image in content.images if np.isfinite(image.confidence)]
    return 0.0, max([*finite, content.min_confidence, 1.0])


def legend_colours() -> list[str]:
    """Of the whole range, evenly spaced."""
    return [_colour(place) for place in np.linspace(0, 1, LEGEND_STEPS)]


def _colour(place: float) -> str:
    """``#rrggbb`` for a place between 0 and 1 on the scale."""
    place = min(max(place, 0.0), 1.0)
    return mpl.colors.to_hex(mpl.colormaps[COLOUR_MAP](COLOUR_FROM + (1 - COLOUR_FROM) * place))


def _packed_points(points: Float[Tensor, "p 3"]) -> str:
    """Sixteen bits for each coordinate over the cube of side ``2 CUT_RADIUS``, little-endian."""
    steps = ((points / (2 * CUT_RADIUS) + 0.5).clamp(0, 1) * 65535).round().numpy().astype("<u2")
    return base64.b64encode(steps.tobytes()).decode()
