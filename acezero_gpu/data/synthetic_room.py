"""The furniture of the synthetic room, and its paint."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor

from acezero_gpu.data import synthetic_textures as paint
from acezero_gpu.data.synthetic_textures import Texture, integer, uniform
from acezero_gpu.runtime import random_stream

ROOM_M = (6.0, 5.0, 2.8)


@dataclass(frozen=True, slots=True)
class Box:
    """A box that is turned about the vertical."""

    centre: tuple[float, float, float]
    """World position of its middle, in metres."""
    half: tuple[float, float, float]
    """Half its extent along its own axes."""
    yaw_deg: float = 0.0
    """Turn of its own axes against the world's."""
    kind: str = "carton"
    """What it is painted as: room, wood, carton or books."""

    def corners(self) -> Float[Tensor, "8 3"]:
        """World positions of the corners."""
        signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3)
        return self.to_world(signs * torch.tensor(self.half))

    def to_world(self, local: Float[Tensor, "n 3"]) -> Float[Tensor, "n 3"]:
        return local @ self.world_from_box().T + torch.tensor(self.centre)

    def world_from_box(self) -> Float[Tensor, "3 3"]:
        cosine, sine = math.cos(math.radians(self.yaw_deg)), math.sin(math.radians(self.yaw_deg))
        return torch.tensor([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


@dataclass(frozen=True, slots=True)
class Sphere:
    """A ball."""

    centre: tuple[float, float, float]
    """World position of its middle, in metres."""
    radius: float
    """In metres."""

    def corners(self) -> Float[Tensor, "8 3"]:
        """Corners of the box around it."""
        return Box(self.centre, (self.radius,) * 3).corners()


@dataclass(frozen=True, slots=True)
class TextureAtlas:
    """All textures and their mip levels (each level half as large) in one table of texels."""

    texels: UInt8[Tensor, "texels 3"]
    """Row by row, level by level, texture by texture."""
    offset: Int[Tensor, "textures levels"]
    """Where each level starts in the table."""
    rows: Int[Tensor, "textures levels"]
    """Rows of each level."""
    columns: Int[Tensor, "textures levels"]
    """Columns of each level."""


@dataclass(frozen=True, slots=True)
class Scene:
    """The furnished room: shapes, and the textures that they refer to by number."""

    boxes: tuple[Box, ...]
    """The room itself first; six textures each, numbered consecutively from six times the box's position."""
    spheres: tuple[Sphere, ...]
    """One texture each, numbered after those of the boxes."""
    atlas: TextureAtlas
    """The textures."""
    texels_per_m: int
    """Density of the box textures at the finest level."""


def synthetic_scene(
    seed: int = 0, *, texels_per_m: int = 220, photographs: Sequence[UInt8[Tensor, "3 _ _"]] = ()
) -> Scene:
    """A room of 6 x 5 x 2.8 m with a table, shelves, cartons and balls, whose details depend on the seed.

    220 texels per metre suit images up to about 640 pixels wide; 80 make a scene for tests in a tenth of the
    time. With ``photographs``, every surface shows a piece of one of them instead of paint.
    """
    boxes, spheres = _furnish(random_stream(seed, "furniture"))
    generator = random_stream(seed, "paint")
    textures = _paint(boxes, spheres, texels_per_m, generator)
    if photographs:
        textures = [paint.piece_of(photographs, generator, *texture.shape[1:]) for texture in textures]
    return Scene(boxes, spheres, _atlas(textures), texels_per_m)


def _furnish(generator: Generator) -> tuple[tuple[Box, ...], tuple[Sphere, ...]]:
    """A table with things on it in the middle, shelves and cartons along the walls, balls here and there."""
    size_x, size_y, size_z = ROOM_M
    boxes = [Box((0.0, 0.0, size_z / 2), (size_x / 2, size_y / 2, size_z / 2), kind="room")]
    spheres = []

    def jitter(size: float) -> float:
        return uniform(generator, -size, size)

    def stand(
        x: float, y: float, half: tuple[float, float, float], yaw_deg: float, kind: str, z: float = 0.0
    ) -> None:
        boxes.append(Box((x, y, z + half[2]), half, yaw_deg, kind))

    turn = jitter(12.0)
    stand(0.0, 0.0, (0.75, 0.42, 0.03), turn, "wood", z=0.72)
    leg = Box((0.0, 0.0, 0.0), (0.68, 0.35, 0.0), turn).corners()[::2]
    for x, y, _ in leg.tolist():
        stand(x, y, (0.035, 0.035, 0.36), turn, "wood")
    for x in (-0.5, -0.12, 0.28):
        half = (
            uniform(generator, 0.07, 0.13),
            uniform(generator, 0.06, 0.12),
            uniform(generator, 0.04, 0.15),
        )
        stand(x + jitter(0.05), jitter(0.15), half, jitter(40.0), "carton", z=0.78)
    spheres.append(Sphere((0.55, 0.1 + jitter(0.08), 0.78 + 0.11), 0.11))
    # Shelves stand a centimetre off the walls; two along y, one along x, with books on the faces to the room.
    stand(-1.5 + jitter(0.3), size_y / 2 - 0.17, (0.8, 0.16, 0.95), 0.0, "books")
    stand(1.4 + jitter(0.3), -size_y / 2 + 0.17, (0.9, 0.16, 0.75), 0.0, "books")
    stand(size_x / 2 - 0.19, 0.6 + jitter(0.3), (0.18, 0.7, 1.0), 0.0, "books")
    for x, y in ((-2.5, -1.9), (-2.4, -1.1), (2.5, -1.9), (2.45, 2.05), (0.9, 2.1), (-1.0, -2.15)):
        half = (uniform(generator, 0.2, 0.32), uniform(generator, 0.18, 0.28), uniform(generator, 0.15, 0.4))
        stand(x + jitter(0.08), y + jitter(0.05), half, jitter(25.0), "carton")
        if uniform(generator, 0.0, 1.0) < 0.5:
            top = (half[0] * 0.7, half[1] * 0.7, uniform(generator, 0.1, 0.22))
            stand(x, y, top, jitter(45.0), "carton", z=2 * half[2])
    spheres.append(Sphere((-2.45, 0.4 + jitter(0.2), 0.32), 0.32))
    spheres.append(Sphere((0.2 + jitter(0.2), 2.1, 0.2), 0.2))
    spheres.append(Sphere((-0.35, jitter(0.1), 0.16), 0.16))
    return tuple(boxes), tuple(spheres)


def _paint(
    boxes: tuple[Box, ...], spheres: tuple[Sphere, ...], texels_per_m: int, generator: Generator
) -> list[Float[Tensor, "3 _ _"]]:
    """Six textures per box (faces -x +x -y +y -z +z), then one per sphere."""
    textures = []
    for box in boxes:
        for face in range(6):
            across, down = _face_axes(face)
            rows, columns = (max(8, math.ceil(2 * box.half[axis] * texels_per_m)) for axis in (down, across))
            texture = _face_texture(box.kind, face, rows, columns, texels_per_m, generator)
            if box.kind == "room":
                texture = _darken_edges(texture, 0.35 * texels_per_m)
            textures.append(texture)
    _cast_floor_shadows(textures[4], boxes, texels_per_m)
    for sphere in spheres:
        rows = max(16, math.ceil(math.pi * sphere.radius * texels_per_m))
        textures.append(paint.marble(generator, rows, 2 * rows))
    return textures


def _face_axes(face: int) -> tuple[int, int]:
    """The box axes along a face texture's columns and rows."""
    return ((1, 2), (0, 2), (0, 1))[face // 2]


def _face_texture(
    kind: str, face: int, rows: int, columns: int, texels_per_m: int, generator: Generator
) -> Texture:
    if kind == "room" and face == 4:
        return _floor(rows, columns, texels_per_m, generator)
    if kind == "room" and face == 5:
        return paint.tiles(generator, rows, columns, int(0.6 * texels_per_m))
    if kind == "room":
        return paint.wall(generator, rows, columns, posters=14)
    if kind == "books" and face < 4:
        return paint.books(generator, rows, columns, shelves=max(1, round(rows / texels_per_m / 0.32)))
    if kind == "carton":
        return paint.carton(generator, rows, columns)
    return paint.planks(generator, rows, columns, max(4, int(0.12 * texels_per_m)))


def _floor(rows: int, columns: int, texels_per_m: int, generator: Generator) -> Texture:
    """Boards with a rug below the table and a few papers that somebody dropped."""
    texture = paint.planks(generator, rows, columns, max(4, int(0.14 * texels_per_m)))
    height, width = int(1.9 * texels_per_m), int(2.8 * texels_per_m)
    top, left = (rows - height) // 2, (columns - width) // 2
    texture[:, top : top + height, left : left + width] = paint.rug(generator, height, width)
    for _ in range(10):
        size = int(uniform(generator, 0.2, 0.45) * texels_per_m)
        top, left = integer(generator, 0, rows - size), integer(generator, 0, columns - size)
        texture[:, top : top + size, left : left + size] = paint.poster(generator, size, size)
    return texture


def _darken_edges(texture: Texture, reach: float) -> Texture:
    """Less light arrives where walls meet."""
    _, rows, columns = texture.shape
    v, u = torch.arange(rows) + 0.5, torch.arange(columns) + 0.5
    factor_v = 1 - 0.35 * (torch.exp(-v / reach) + torch.exp(-(rows - v) / reach))
    factor_u = 1 - 0.35 * (torch.exp(-u / reach) + torch.exp(-(columns - u) / reach))
    return texture * factor_v[:, None] * factor_u


def _cast_floor_shadows(floor: Texture, boxes: tuple[Box, ...], texels_per_m: int) -> None:
    """Soft dark patches around what stands on the floor, in place; rows of the floor run along y."""
    _, rows, columns = floor.shape
    x = ((torch.arange(columns) + 0.5) / texels_per_m - boxes[0].half[0])[None, :]
    y = ((torch.arange(rows) + 0.5) / texels_per_m - boxes[0].half[1])[:, None]
    for box in boxes[1:]:
        height = box.centre[2] - box.half[2]
        rotation = box.world_from_box()
        offset_x, offset_y = x - box.centre[0], y - box.centre[1]
        local_x = rotation[0, 0] * offset_x + rotation[1, 0] * offset_y
        local_y = rotation[0, 1] * offset_x + rotation[1, 1] * offset_y
        outside = torch.hypot(
            (local_x.abs() - box.half[0]).clamp_min(0), (local_y.abs() - box.half[1]).clamp_min(0)
        )
        strength = 0.5 * math.exp(-height / 0.8)
        floor *= 1 - strength * torch.exp(-outside / (0.12 + 0.25 * height))


def _atlas(textures: list[Float[Tensor, "3 _ _"]], levels: int = 6) -> TextureAtlas:
    texels, offset, sizes, total = [], [], [], 0
    for texture in textures:
        for level in range(levels):
            if level > 0:
                texture = torch.nn.functional.avg_pool2d(texture[None], 2, ceil_mode=True)[0]
            texels.append((texture * 255.0).round().to(torch.uint8).flatten(1).T)
            sizes.append(texture.shape[1:])
            offset.append(total)
            total += texels[-1].shape[0]
    shape = (len(textures), levels)
    size_table = torch.tensor(sizes).reshape(*shape, 2)
    return TextureAtlas(
        torch.cat(texels).contiguous(),
        torch.tensor(offset).reshape(shape),
        size_table[..., 0],
        size_table[..., 1],
    )
