"""How cameras are drawn: small pyramids, coloured by the confidence of their pose."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from acezero_gpu.geometry import invert, transform_points

FRUSTUM_EDGES = ((0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (2, 3), (3, 4), (4, 1))
"""Corner pairs: from the centre to the four corners, and around the image."""

_CONFIDENCE_COLOURS = torch.tensor(
    [[0.76, 0.25, 0.00], [0.96, 0.65, 0.22], [0.40, 0.66, 0.84], [0.05, 0.33, 0.62]]
)
"""Told apart by all kinds of colour vision: hue between orange and blue, dark at both ends."""


def frustum_corners(
    cam_from_world: Float[Tensor, "n 3 4"], size: float, aspect: float = 4 / 3, opening: float = 0.6
) -> Float[Tensor, "n 5 3"]:
    """Centre, then top-left, top-right, bottom-right and bottom-left corner, in world coordinates.

    ``size`` is the depth of the image plane in world units, ``opening`` half its height per depth.
    """
    x, y = aspect * opening, opening
    corners = size * cam_from_world.new_tensor([[0, 0, 0], [-x, -y, 1], [x, -y, 1], [x, y, 1], [-x, y, 1]])
    return transform_points(invert(cam_from_world), corners.expand(len(cam_from_world), 5, 3))


def confidence_colours(confidence: Float[Tensor, " n"], reliable: float = 1000.0) -> UInt8[Tensor, "n 3"]:
    """Rust at 0 over orange and light blue to blue at twice ``reliable`` and above (inf too), linear in between."""
    position = 3.0 * (confidence.float() / (2.0 * reliable)).clamp(0.0, 1.0)
    palette = _CONFIDENCE_COLOURS.to(position.device)
    lower = position.floor().clamp(0, 2)
    fraction = (position - lower)[:, None]
    colours = palette[lower.long()] * (1 - fraction) + palette[lower.long() + 1] * fraction
    return (colours * 255.0).round().to(torch.uint8)


def scene_extent(points: Float[Tensor, "n 3"]) -> float:
    """Half the diagonal of the box of the middle 80 % of the points along each axis; 1 for no points."""
    if len(points) == 0:
        return 1.0
    limits = torch.quantile(_thinned(points).float(), points.new_tensor([0.1, 0.9]).float(), dim=0)
    return max(float((limits[1] - limits[0]).norm()) / 2.0, 1e-6)


def _thinned(points: Float[Tensor, "n 3"], most: int = 100_000) -> Float[Tensor, "m 3"]:
    """Every k-th point: ``torch.quantile`` refuses large inputs, and limits need no more."""
    return points[:: max(1, len(points) // most)]
