"""Two views of photographs, cut out of them by random homographies; some with other photographs in the foreground."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from acezero_gpu.encoder_training.homographies import apply_homography, cut, random_view
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
    min_zoom: float = 0.6
    """A view has at least this many pixels of the photograph to one of its own: below 1 it is soft."""
    layered_share: float = 0.5
    """Share of the pairs with something in the foreground, which moves differently and hides what is behind it."""
    ellipses: int = 5
    """The foreground is the union of this many at most."""
    parallax: float = 0.2
    """Foreground moves by up to this share of the view's side against what is behind it."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """A flat picture in both views."""

    picture: Picture
    picture_from_a: Float[Tensor, "3 3"]
    picture_from_b: Float[Tensor, "3 3"]

    @property
    def b_from_a(self) -> Float[Tensor, "3 3"]:
        return torch.linalg.solve(self.picture_from_b, self.picture_from_a)

    @property
    def a_from_b(self) -> Float[Tensor, "3 3"]:
        return torch.linalg.solve(self.picture_from_a, self.picture_from_b)


def homography_pairs(
    pictures: list[Picture],
    rows: list[int],
    side: int,
    stride: int,
    config: HomographyConfig,
    generator: Generator,
) -> TrainingPairs:
    """One pair of square views of ``side`` pixels for each of the pictures in ``rows``; in colour, not yet changed.

    Views may reach beyond the photograph, where they show it mirrored; no match is sought there. What a foreground
    covers in either view has no match, and the foreground matches itself.
    """
    cells = cell_centres_px(side // stride, side // stride, stride)
    parts = [_pair(pictures, row, side, cells, config, generator) for row in rows]
    return TrainingPairs(*(torch.stack(column) for column in zip(*parts, strict=True)))


def _pair(
    pictures: list[Picture],
    row: int,
    side: int,
    cells: Float[Tensor, "n 2"],
    config: HomographyConfig,
    generator: Generator,
) -> tuple[Tensor, ...]:
    back = _background(pictures[row], side, config, generator)
    a, b = cut(back.picture, back.picture_from_a, side), cut(back.picture, back.picture_from_b, side)
    b_of_a, seen_a = _matches(cells, back.b_from_a, back.picture_from_a, side, back.picture)
    a_of_b, seen_b = _matches(cells, back.a_from_b, back.picture_from_b, side, back.picture)
    if float(torch.rand((), generator=generator)) >= config.layered_share:
        return a, b, b_of_a, seen_a, a_of_b, seen_b
    other = int(torch.randint(len(pictures), (), generator=generator))
    front = _foreground(pictures[other], back, side, config, generator)
    ellipses = _ellipses(side, config, generator)
    grid = cell_centres_px(side, side, 1)
    in_a, in_b = (_covered(points, ellipses) for points in (grid, apply_homography(front.a_from_b, grid)))
    a = torch.where(in_a.view(side, side), cut(front.picture, front.picture_from_a, side), a)
    b = torch.where(in_b.view(side, side), cut(front.picture, front.picture_from_b, side), b)
    # Of a cell's centre and of its match: on the foreground both or neither.
    front_b_of_a, front_seen_a = _matches(cells, front.b_from_a, front.picture_from_a, side, front.picture)
    front_a_of_b, front_seen_b = _matches(cells, front.a_from_b, front.picture_from_b, side, front.picture)
    cell_in_a, cell_in_b = (
        _covered(points, ellipses) for points in (cells, apply_homography(front.a_from_b, cells))
    )
    hidden_in_b = _covered(apply_homography(front.a_from_b, b_of_a), ellipses)
    hidden_in_a = _covered(a_of_b, ellipses)
    return (
        a,
        b,
        torch.where(cell_in_a[:, None], front_b_of_a, b_of_a),
        torch.where(cell_in_a, front_seen_a, seen_a & ~hidden_in_b),
        torch.where(cell_in_b[:, None], front_a_of_b, a_of_b),
        torch.where(cell_in_b, front_seen_b, seen_b & ~hidden_in_a),
    )


def _zoom(picture: Picture, side: int, config: HomographyConfig, draw: Tensor) -> float:
    """Pixels of the photograph to one of the view: from soft to all that there is."""
    most = max(1.0, min(picture[0].shape[-2:]) / side)
    return config.min_zoom * (most / config.min_zoom) ** float(draw)


def _background(picture: Picture, side: int, config: HomographyConfig, generator: Generator) -> _Layer:
    draw = torch.rand(6, generator=generator, dtype=torch.float64)
    zoom = _zoom(picture, side, config, draw[0])
    relative = config.max_scale ** float(2 * draw[1] - 1)
    turn = math.radians(config.max_rotation_deg) * float(2 * draw[2] - 1)
    centre = _centre(picture, 0.5 * side * zoom, draw[3:5])
    tilt = 2 * math.pi * float(draw[5])
    away = config.shift * side * zoom * torch.tensor([math.cos(tilt), math.sin(tilt)], dtype=torch.float64)
    return _Layer(
        picture,
        random_view(side, centre, zoom * relative**0.5, 0.5 * turn, config.perspective, generator),
        random_view(
            side,
            centre + away * float(torch.rand((), generator=generator)),
            zoom / relative**0.5,
            -0.5 * turn,
            config.perspective,
            generator,
        ),
    )


def _centre(picture: Picture, reach: float, draw: Float[Tensor, "2"]) -> Float[Tensor, "2"]:
    """A place in the picture from which a view that reaches so far stays within it, if there is one."""
    height, width = picture[0].shape[-2:]
    return torch.stack([reach + draw[0] * abs(width - 2 * reach), reach + draw[1] * abs(height - 2 * reach)])


def _foreground(
    picture: Picture, back: _Layer, side: int, config: HomographyConfig, generator: Generator
) -> _Layer:
    """Something nearer: it follows the camera's motion, but moves and grows by more."""
    draw = torch.rand(6, generator=generator, dtype=torch.float64)
    zoom = _zoom(picture, side, config, draw[0])
    centre = _centre(picture, 0.5 * side * zoom, draw[1:3])
    from_a = random_view(side, centre, zoom, 0.0, config.perspective, generator)
    tilt = 2 * math.pi * float(draw[3])
    away = config.parallax * side * float(draw[4])
    growth = 1 + config.parallax * float(2 * draw[5] - 1)
    middle = 0.5 * side * (1 - growth)
    nearer = torch.tensor(
        [[growth, 0, middle + away * math.cos(tilt)], [0, growth, middle + away * math.sin(tilt)], [0, 0, 1]],
        dtype=torch.float64,
    )
    return _Layer(picture, from_a, from_a @ torch.linalg.inv(nearer @ back.b_from_a))


def _ellipses(side: int, config: HomographyConfig, generator: Generator) -> Float[Tensor, "m 5"]:
    """Centre, half axes (pixels of the first view) and direction of each."""
    count = int(torch.randint(1, config.ellipses + 1, (), generator=generator))
    draw = torch.rand(count, 5, generator=generator, dtype=torch.float64)
    scale = draw.new_tensor([side, side, 0.2 * side, 0.2 * side, math.pi])
    return draw * scale + draw.new_tensor([0, 0, 0.04 * side, 0.04 * side, 0])


def _covered(points: Float[Tensor, "n 2"], ellipses: Float[Tensor, "m 5"]) -> Bool[Tensor, " n"]:
    """Which points of the first view's plane lie in one of them."""
    away = points.double()[:, None] - ellipses[:, :2]
    cosine, sine = ellipses[:, 4].cos(), ellipses[:, 4].sin()
    along = away[..., 0] * cosine + away[..., 1] * sine
    across = away[..., 1] * cosine - away[..., 0] * sine
    return ((along / ellipses[:, 2]).square() + (across / ellipses[:, 3]).square() < 1).any(-1)


def _matches(
    cells: Float[Tensor, "n 2"],
    other_from_own: Float[Tensor, "3 3"],
    picture_from_own: Float[Tensor, "3 3"],
    side: int,
    picture: Picture,
) -> tuple[Float[Tensor, "n 2"], Bool[Tensor, " n"]]:
    """Where the cells lie in the other view, and whether that is in it and within the picture."""
    there, source = apply_homography(other_from_own, cells), apply_homography(picture_from_own, cells)
    extent = source.new_tensor([picture[0].shape[-1], picture[0].shape[-2]])
    seen = ((there > 0) & (there < side)).all(-1) & ((source > 0) & (source < extent)).all(-1)
    return there.float(), seen
