"""Two views of one photograph, cut out of it by random homographies."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from acezero_gpu.encoder_training.pairs import TrainingPairs
from acezero_gpu.encoder_training.pictures import Picture
from acezero_gpu.geometry import cell_centres_px


@dataclass(frozen=True, slots=True)
class HomographyConfig:
    """Ranges of the change between the two views."""

    max_scale: float = 2.0
    """One view shows the place up to this many times larger than the other."""
    max_rotation_deg: float = 30.0
    """Rotation of one view against the other lies within plus/minus this."""
    perspective: float = 0.2
    """Every corner moves by up to this share of the view's side."""
    shift: float = 0.25
    """The centres of the views lie up to this share of the view's side apart."""


def homography_pairs(
    pictures: list[Picture],
    rows: list[int],
    side: int,
    stride: int,
    config: HomographyConfig,
    generator: Generator,
) -> TrainingPairs:
    """One pair of square views of ``side`` pixels for each of the pictures in ``rows``; in colour, not yet changed.

    Views may reach beyond the photograph, where they show it mirrored; no match is sought there.
    """
    cells = cell_centres_px(side // stride, side // stride, stride)
    parts = [_pair(pictures[row], side, cells, config, generator) for row in rows]
    return TrainingPairs(*(torch.stack(column) for column in zip(*parts, strict=True)))


def _pair(
    picture: Picture, side: int, cells: Float[Tensor, "n 2"], config: HomographyConfig, generator: Generator
) -> tuple[Tensor, ...]:
    height, width = picture[0].shape[-2:]
    draw = torch.rand(6, generator=generator, dtype=torch.float64)
    # What both views show of the picture: between their own number of pixels and all that there is.
    most = max(1.0, min(height, width) / side)
    zoom = most ** float(draw[0])
    relative = config.max_scale ** float(2 * draw[1] - 1)
    turn = math.radians(config.max_rotation_deg) * float(2 * draw[2] - 1)
    reach = 0.5 * side * zoom
    centre = torch.stack(
        [reach + draw[3] * (width - 2 * reach).__abs__(), reach + draw[4] * (height - 2 * reach).__abs__()]
    )
    tilt = 2 * math.pi * float(draw[5])
    away = config.shift * side * zoom * torch.tensor([math.cos(tilt), math.sin(tilt)], dtype=torch.float64)
    picture_from_a = _view(side, centre, zoom * relative**0.5, 0.5 * turn, config.perspective, generator)
    picture_from_b = _view(
        side,
        centre + away * float(torch.rand((), generator=generator)),
        zoom / relative**0.5,
        -0.5 * turn,
        config.perspective,
        generator,
    )
    b_from_a = torch.linalg.solve(picture_from_b, picture_from_a)
    a_from_b = torch.linalg.solve(picture_from_a, picture_from_b)
    b_of_a, seen_a = _matches(cells, b_from_a, picture_from_a, side, (height, width))
    a_of_b, seen_b = _matches(cells, a_from_b, picture_from_b, side, (height, width))
    return (
        _cut(picture, picture_from_a, side),
        _cut(picture, picture_from_b, side),
        b_of_a,
        seen_a,
        a_of_b,
        seen_b,
    )


def _view(
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


def _apply(homography: Float[Tensor, "3 3"], points: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
    moved = points.double() @ homography[:, :2].T + homography[:, 2]
    return moved[:, :2] / moved[:, 2:]


def _matches(
    cells: Float[Tensor, "n 2"],
    other_from_own: Float[Tensor, "3 3"],
    picture_from_own: Float[Tensor, "3 3"],
    side: int,
    size: tuple[int, int],
) -> tuple[Float[Tensor, "n 2"], Bool[Tensor, " n"]]:
    """Where the cells lie in the other view, and whether that is in it and within the picture."""
    there, source = _apply(other_from_own, cells), _apply(picture_from_own, cells)
    extent = source.new_tensor([size[1], size[0]])
    seen = ((there > 0) & (there < side)).all(-1) & ((source > 0) & (source < extent)).all(-1)
    return there.float(), seen


def _cut(picture: Picture, picture_from_view: Float[Tensor, "3 3"], side: int) -> Float[Tensor, "3 s s"]:
    """The view in [0, 1], from the level that is just finer than its own pixels."""
    pixels = _apply(picture_from_view, cell_centres_px(side, side, 1))
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
