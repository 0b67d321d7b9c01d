"""Views of a flat picture by homographies."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor

from acezero_gpu.encoder_training.pictures import Picture
from acezero_gpu.geometry import cell_centres_px


def random_view(
    side: int, centre: Float[Tensor, "2"], zoom: float, turn: float, perspective: float, generator: Generator
) -> Float[Tensor, "3 3"]:
    """``picture_from_view``: a turned square of ``zoom * side`` around ``centre`` with moved corners."""
    corners = torch.tensor([[-0.5, -0.5], [0.5, -0.5], [0.5, 0.5], [-0.5, 0.5]], dtype=torch.float64)
    moved = corners + perspective * 0.5 * (2 * torch.rand(4, 2, generator=generator, dtype=torch.float64) - 1)
    cosine, sine = math.cos(turn), math.sin(turn)
    rotation = torch.tensor([[cosine, -sine], [sine, cosine]], dtype=torch.float64)
    return _four_points((corners + 0.5) * side, centre + zoom * side * moved @ rotation.T)


def _four_points(source: Float[Tensor, "4 2"], target: Float[Tensor, "4 2"]) -> Float[Tensor, "3 3"]:
    """The homography through four correspondences, its last entry 1 (Hartley & Zisserman, eq. 4.3)."""
    x, y = source.unbind(-1)
    u, v = target.unbind(-1)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    rows_u = torch.stack([x, y, one, zero, zero, zero, -u * x, -u * y], dim=-1)
    rows_v = torch.stack([zero, zero, zero, x, y, one, -v * x, -v * y], dim=-1)
    entries = torch.linalg.solve(torch.cat([rows_u, rows_v]), torch.cat([u, v]))
    return torch.cat([entries, entries.new_ones(1)]).view(3, 3)


def apply_homography(homography: Float[Tensor, "3 3"], points: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
    """Points of one plane in the other, in double precision."""
    moved = points.double() @ homography[:, :2].T + homography[:, 2]
    return moved[:, :2] / moved[:, 2:]


def cut(picture: Picture, picture_from_view: Float[Tensor, "3 3"], side: int) -> Float[Tensor, "3 s s"]:
    """The view in [0, 1], from the level that is just finer than its own pixels."""
    pixels = apply_homography(picture_from_view, cell_centres_px(side, side, 1))
    grid = pixels.view(side, side, 2)
    step = (grid[1:, 1:] - grid[:-1, :-1]).norm(dim=-1).median() / math.sqrt(2)
    level = min(len(picture) - 1, max(0, int(math.log2(max(float(step), 1e-6)) + 0.25)))
    source = picture[level]
    extent = pixels.new_tensor([picture[0].shape[-1], picture[0].shape[-2]])
    coordinates = (2 * grid / extent - 1).float()
    # Only the part that is looked at becomes floats.
    return F.grid_sample(
        source[None].float() / 255.0, coordinates[None], padding_mode="reflection", align_corners=False
    )[0]
