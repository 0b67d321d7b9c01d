"""Procedural textures: noise at many scales, posters, glyphs, planks, books. Nothing repeats.

A texture is ``(3, rows, columns)`` with colours in [0, 1]; helpers paint into it in place. Sizes are in
texels, and all draws come from the generator that is passed in, on the CPU.
"""

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Generator, Tensor
from torch.nn.functional import interpolate

Texture = Float[Tensor, "3 rows columns"]


def uniform(generator: Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def integer(generator: Generator, low: int, high: int) -> int:
    """One of ``low … high - 1``; ``low`` if the range is empty."""
    return int(torch.randint(low, max(high, low + 1), (), generator=generator))


def random_colour(
    generator: Generator, lightness: tuple[float, float] = (0.15, 0.9)
) -> Float[Tensor, "3 1 1"]:
    """A colour whose brightest channel is in the range; warm hues and blues come most often."""
    ranges = ((0.0, 0.16), (0.0, 0.16), (0.52, 0.66), (0.0, 1.0))
    hue = uniform(generator, *ranges[integer(generator, 0, len(ranges))])
    value = uniform(generator, *lightness)
    saturation = uniform(generator, 0.05, 0.8)
    sector = (6 * hue - torch.tensor([0.0, 2.0, 4.0]) + 3.0) % 6.0 - 3.0
    fullness = (2.0 - sector.abs()).clamp(0.0, 1.0)
    return (value * (1 - saturation * (1 - fullness)))[:, None, None]


def noise(
    generator: Generator,
    rows: int,
    columns: int,
    coarsest: float | int,
    *,
    octaves: int = 6,
    persistence: float = 0.65,
    stretch: float = 1.0,
) -> Float[Tensor, "rows columns"]:
    """Value noise of zero mean and unit deviation: grids with cells of ``coarsest`` texels, then halved.

    ``stretch`` > 1 makes the grain longer along the columns.
    """
    total = torch.zeros(rows, columns)
    for octave in range(octaves):
        cell = coarsest / 2**octave
        if cell < 1.0:
            break
        size = (max(2, math.ceil(rows / cell) + 1), max(2, math.ceil(columns / (cell * stretch)) + 1))
        grid = torch.rand((1, 1, *size), generator=generator) - 0.5
        total += persistence**octave * interpolate(grid, (rows, columns), mode="bilinear")[0, 0]
    return (total - total.mean()) / total.std().clamp_min(1e-6)


def glyphs(
    generator: Generator, rows: int, columns: int, pixel: int, density: float = 0.55
) -> Float[Tensor, "rows columns"]:
    """Lines of text-like marks, 1 where ink is: random 5 x 4 letters, with gaps and ragged line ends."""
    lines, letters = max(1, rows // (8 * pixel)), max(1, columns // (5 * pixel))
    ink = torch.zeros(lines, 8, letters, 5)
    shapes = (torch.rand((lines, 5, letters, 4), generator=generator) < density).float()
    written = torch.rand((lines, 1, letters, 1), generator=generator) < 0.85
    line_ends = torch.randint(letters // 2, letters + 1, (lines, 1, 1, 1), generator=generator)
    written &= torch.arange(letters)[None, None, :, None] < line_ends
    ink[:, 1:6, :, :4] = shapes * written
    ink = ink.reshape(lines * 8, letters * 5)
    page = torch.zeros(rows, columns)
    big = ink.repeat_interleave(pixel, 0).repeat_interleave(pixel, 1)[:rows, :columns]
    page[: big.shape[0], : big.shape[1]] = big
    return page


def poster(generator: Generator, rows: int, columns: int) -> Texture:
    """A framed picture: a noisy gradient, a few discs and bars, and some writing."""
    start, end = random_colour(generator, (0.3, 1.0)), random_colour(generator, (0.05, 0.7))
    v = torch.linspace(0, 1, rows)[:, None]
    u = torch.linspace(0, 1, columns)[None, :]
    angle = uniform(generator, 0.0, 2 * math.pi)
    blend = 0.5 + 0.5 * (math.cos(angle) * (2 * u - 1) + math.sin(angle) * (2 * v - 1))
    blend = (blend + 0.25 * noise(generator, rows, columns, max(rows, columns) / 3)).clamp(0, 1)
    picture = start * (1 - blend) + end * blend
    for _ in range(integer(generator, 3, 9)):
        colour = random_colour(generator, (0.05, 1.0))
        cu, cv = uniform(generator, 0.0, 1.0), uniform(generator, 0.0, 1.0)
        radius = uniform(generator, 0.03, 0.25)
        if uniform(generator, 0.0, 1.0) < 0.5:
            inside = ((u - cu) * columns).square() + ((v - cv) * rows).square() < (
                radius * min(rows, columns)
            ) ** 2
        else:
            inside = ((u - cu).abs() < radius) & ((v - cv).abs() < uniform(generator, 0.02, 0.2))
        picture = torch.where(inside, colour, picture)
    height = integer(generator, rows // 6, rows // 2)
    top = integer(generator, 0, rows - height)
    ink = glyphs(generator, height, columns, pixel=max(1, integer(generator, rows // 100, rows // 40 + 1)))
    picture[:, top : top + height] += (
        random_colour(generator, (0.0, 1.0)) - picture[:, top : top + height]
    ) * ink
    frame = max(1, min(rows, columns) // 24)
    border = random_colour(generator, (0.05, 0.95))
    picture[:, :frame], picture[:, -frame:] = border, border
    picture[:, :, :frame], picture[:, :, -frame:] = border, border
    return picture.clamp(0, 1)


def wall(generator: Generator, rows: int, columns: int, posters: int) -> Texture:
    """Uneven plaster with stains, hung with posters."""
    base = random_colour(generator, (0.6, 0.85)) * 0.5 + 0.35
    plaster = noise(generator, rows, columns, rows / 2, octaves=9, persistence=0.8)
    speckle = noise(generator, rows, columns, 6, octaves=3, persistence=1.0)
    texture = base * (1 + 0.09 * plaster + 0.06 * speckle)
    for _ in range(posters):
        height = integer(generator, rows // 6, rows // 2)
        width = min(columns - 2, int(height * uniform(generator, 0.6, 1.6)))
        top, left = integer(generator, rows // 20, rows - height), integer(generator, 0, columns - width)
        texture[:, top : top + height, left : left + width] = poster(generator, height, width)
    return texture.clamp(0, 1)


def planks(generator: Generator, rows: int, columns: int, plank: int) -> Texture:
    """Wooden boards along the columns, each row of them cut at its own places, each board of its own tone."""
    texture = torch.empty(3, rows, columns)
    grain = noise(generator, rows, columns, plank, octaves=6, persistence=0.8, stretch=8.0)
    fine = noise(generator, rows, columns, 5, octaves=2, stretch=3.0)
    wood = torch.tensor([0.62, 0.44, 0.28])[:, None, None]
    for top in range(0, rows, plank):
        left = -integer(generator, 0, 6 * plank)
        while left < columns:
            length = integer(generator, 4 * plank, 9 * plank)
            board = (slice(None), slice(top, top + plank), slice(max(left, 0), left + length))
            tone = wood * uniform(generator, 0.65, 1.25) + 0.06 * (random_colour(generator) - 0.5)
            texture[board] = tone * (1 + 0.16 * grain[board[1:]] + 0.08 * fine[board[1:]])
            if left > 0:
                texture[:, top : top + plank, left : left + 2] *= 0.45
            left += length
        texture[:, top : top + max(1, plank // 16)] *= 0.5
    return texture.clamp(0, 1)


def rug(generator: Generator, rows: int, columns: int) -> Texture:
    """Woven patches of random colours under a blotchy pattern, with a border."""
    patches = torch.rand((1, 3, 9, 13), generator=generator)
    colours = interpolate(patches, (rows, columns), mode="nearest")[0] * 0.6 + 0.15
    blotches = noise(generator, rows, columns, rows / 6, octaves=6, persistence=0.8)
    texture = torch.where(blotches > 0.6, random_colour(generator, (0.6, 0.9)), colours)
    texture = texture * (1 + 0.12 * noise(generator, rows, columns, 4, octaves=2, persistence=1.0))
    border = max(2, rows // 20)
    edge = torch.ones(rows, columns, dtype=torch.bool)
    edge[border:-border, border:-border] = False
    return torch.where(edge, random_colour(generator, (0.2, 0.5)), texture).clamp(0, 1)


def tiles(generator: Generator, rows: int, columns: int, tile: int) -> Texture:
    """Ceiling panels, each of its own tone and stains, with joints between them and a few lamps."""
    across, down = math.ceil(columns / tile), math.ceil(rows / tile)
    tones = 0.72 + 0.12 * torch.rand((1, 3, down, across), generator=generator)
    lamps = torch.rand((1, 1, down, across), generator=generator) < 0.08
    tones = torch.where(lamps, 0.98, tones)
    texture = tones[0].repeat_interleave(tile, 1).repeat_interleave(tile, 2)[:, :rows, :columns]
    stains = noise(generator, rows, columns, tile * 1.5, octaves=8, persistence=0.85)
    holes = torch.rand((rows, columns), generator=generator) < 0.02
    texture = texture * (1 + 0.10 * stains) - 0.25 * holes
    joint = max(1, tile // 40)
    for offset in range(joint):
        texture[:, offset::tile] *= 0.6
        texture[:, :, offset::tile] *= 0.6
    return texture.clamp(0, 1)


def carton(generator: Generator, rows: int, columns: int) -> Texture:
    """A box side: coloured board with tape, print and a label."""
    base = random_colour(generator, (0.35, 0.8))
    texture = base * (
        1 + 0.12 * noise(generator, rows, columns, max(rows, columns) / 2, octaves=8, persistence=0.85)
    )
    ink = glyphs(generator, rows, columns, pixel=max(2, rows // 60))
    shown = noise(generator, rows, columns, max(rows, columns) / 2, octaves=2) > 0.1
    texture = torch.where((ink * shown).bool(), random_colour(generator, (0.0, 0.35)), texture)
    height, width = max(8, rows // 3), max(8, columns // 2)
    top, left = integer(generator, 0, rows - height), integer(generator, 0, columns - width)
    if rows > height and columns > width:
        texture[:, top : top + height, left : left + width] = poster(generator, height, width)
    return texture.clamp(0, 1)


def books(generator: Generator, rows: int, columns: int, shelves: int) -> Texture:
    """Shelves of books: spines of random width, height and colour with marks on them, dark gaps above."""
    texture = torch.full((3, rows, columns), 0.10)
    board = max(2, rows // 60)
    step = rows // shelves
    for shelf in range(shelves):
        bottom = (shelf + 1) * step - board
        left = 0
        while left < columns:
            width = integer(generator, max(2, step // 14), max(4, step // 5))
            height = integer(generator, int(step * 0.55), step - board)
            book = texture[:, bottom - height : bottom, left : left + width]
            book[:] = random_colour(generator, (0.2, 0.95))
            band = integer(generator, 1, max(2, height // 3))
            book[:, band : band + max(1, height // 12)] = random_colour(generator, (0.1, 1.0))
            book[:, :, -1:] *= 0.4
            if book.shape[-1] > 5:
                title = glyphs(generator, book.shape[-1], height // 2, pixel=max(1, width // 12)).T.flip(1)
                spot = book[:, height // 3 : height // 3 + title.shape[0]]
                spot += (random_colour(generator, (0.0, 1.0)) - spot) * title[: spot.shape[1]]
            left += width
        texture[:, bottom : bottom + board] = torch.tensor([0.45, 0.30, 0.18])[:, None, None]
    grain = noise(generator, rows, columns, 12, octaves=4, persistence=1.0)
    return (texture * (1 + 0.08 * grain)).clamp(0, 1)


def marble(generator: Generator, rows: int, columns: int) -> Texture:
    """Veined blotches of three colours."""
    first = noise(generator, rows, columns, rows / 3, octaves=7, persistence=0.75)
    second = noise(generator, rows, columns, rows / 5, octaves=7, persistence=0.75)
    texture = torch.where(
        first > 0.2, random_colour(generator, (0.5, 0.95)), random_colour(generator, (0.15, 0.5))
    )
    texture = torch.where(second.abs() < 0.18, random_colour(generator, (0.0, 1.0)), texture)
    return (texture * (1 + 0.12 * first)).clamp(0, 1)


def piece_of(
    photographs: Sequence[UInt8[Tensor, "3 _ _"]], generator: Generator, rows: int, columns: int
) -> Texture:
    """A random piece of a random photograph, as large as fits, enlarged or reduced to this size."""
    photograph = photographs[integer(generator, 0, len(photographs))]
    height, width = photograph.shape[-2:]
    share = uniform(generator, 0.5, 1.0) * min(height / rows, width / columns)
    high, wide = max(2, int(share * rows)), max(2, int(share * columns))
    top, left = integer(generator, 0, height - high + 1), integer(generator, 0, width - wide + 1)
    piece = photograph[None, :, top : top + high, left : left + wide].float() / 255.0
    return interpolate(piece, (rows, columns), mode="bilinear", antialias=True)[0].clamp(0, 1)
