"""Ray casting of the synthetic room: nearest surfaces, texture lookup, light."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from acezero_gpu.data.synthetic_room import Box, Scene, Sphere, TextureAtlas
from acezero_gpu.geometry import PinholeCamera, cell_centres_px, invert, transform_points

LIGHTS = ((-1.2, 0.5, 2.2), (1.4, -0.6, 2.2))
"""Two lamps below the ceiling; they do not move with the camera, so a surface looks alike from everywhere."""
AMBIENT, DIFFUSE = 0.62, 0.45
NEAR_M = 0.05

Window = tuple[slice, slice]


@dataclass(slots=True)
class _Hits:
    """The nearest surface along every ray so far; written in place while the shapes are visited."""

    depth_m: Tensor
    texture: Tensor
    u: Tensor
    v: Tensor
    normal: Tensor
    """Of spheres only; that of a box is known from its face."""


def render(
    scene: Scene, cam_from_world: Float[Tensor, "3 4"], camera: PinholeCamera
) -> tuple[UInt8[Tensor, "h w 3"], Float[Tensor, "h w"]]:
    """The picture that the camera takes, and the depth in metres along its axis at every pixel's centre.

    The image is as large as its principal point says, which must be its centre. Each pixel is the mean of
    2 x 2 rays; the depth is that of one more ray through its centre, so it is exact and never mixed.
    """
    width, height = (2 * camera.principal_point_px).round().int().tolist()
    pose, camera = cam_from_world.float(), camera.to("cpu", torch.float32)
    depth_m = _cast(scene, pose, camera, height, width).depth_m
    fine = camera.scaled(2.0)
    colours = _shade(scene, _cast(scene, pose, fine, 2 * height, 2 * width), pose, fine)
    pixels = colours.unflatten(0, (height, 2)).unflatten(2, (width, 2)).mean((1, 3))
    return (pixels * 255.0).round().clamp(0, 255).to(torch.uint8), depth_m


def _rays(
    cam_from_world: Float[Tensor, "3 4"], camera: PinholeCamera, rows: int, columns: int
) -> tuple[Float[Tensor, "3"], Float[Tensor, "3 rows columns"]]:
    """Camera centre, and directions of unit depth along the optical axis, in the world."""
    pixels = camera.normalised(cell_centres_px(rows, columns, 1))
    directions = torch.cat([pixels, torch.ones_like(pixels[:, :1])], dim=-1) @ cam_from_world[:, :3]
    return invert(cam_from_world)[:, 3], directions.T.reshape(3, rows, columns).contiguous()


def _cast(
    scene: Scene, cam_from_world: Float[Tensor, "3 4"], camera: PinholeCamera, rows: int, columns: int
) -> _Hits:
    """The nearest surface of every ray; each shape is tried within the rectangle that it may cover."""
    origin, directions = _rays(cam_from_world, camera, rows, columns)
    shape = (rows, columns)
    hits = _Hits(
        depth_m=torch.full(shape, math.inf),
        texture=torch.zeros(shape, dtype=torch.int64),
        u=torch.zeros(shape),
        v=torch.zeros(shape),
        normal=torch.zeros(3, *shape),
    )
    whole = (slice(0, rows), slice(0, columns))
    for number, box in enumerate(scene.boxes):
        window = whole if number == 0 else _window(box.corners(), cam_from_world, camera, rows, columns)
        if window is not None:
            _hit_box(hits, box, 6 * number, number == 0, origin, directions, window, scene.texels_per_m)
    for number, sphere in enumerate(scene.spheres, start=6 * len(scene.boxes)):
        window = _window(sphere.corners(), cam_from_world, camera, rows, columns)
        if window is not None:
            texture_size = (int(scene.atlas.rows[number, 0]), int(scene.atlas.columns[number, 0]))
            _hit_sphere(hits, sphere, number, texture_size, origin, directions, window)
    return hits


def _window(
    corners: Float[Tensor, "8 3"],
    cam_from_world: Float[Tensor, "3 4"],
    camera: PinholeCamera,
    rows: int,
    columns: int,
) -> Window | None:
    """Pixels that a convex shape within these corners may cover; None if there are none."""
    points = transform_points(cam_from_world, corners)
    if bool((points[:, 2] < NEAR_M).all()):
        return None
    if bool((points[:, 2] < NEAR_M).any()):
        return slice(0, rows), slice(0, columns)
    pixels = points[:, :2] / points[:, 2:] * camera.focal_px + camera.principal_point_px
    (left, top), (right, bottom) = pixels.amin(0).floor().int().tolist(), pixels.amax(0).ceil().int().tolist()
    left, right, top, bottom = max(left, 0), min(right, columns), max(top, 0), min(bottom, rows)
    return (slice(top, bottom), slice(left, right)) if left < right and top < bottom else None


def _hit_box(
    hits: _Hits,
    box: Box,
    texture: int,
    inside: bool,
    origin: Float[Tensor, "3"],
    directions: Float[Tensor, "3 rows columns"],
    window: Window,
    texels_per_m: int,
) -> None:
    """Slab test in the box's own axes; of the room, seen from inside, the far side counts."""
    rotation = box.world_from_box()
    half = torch.tensor(box.half)[:, None, None]
    start = (rotation.T @ (origin - torch.tensor(box.centre)))[:, None, None]
    ray = torch.einsum("ij,irc->jrc", rotation, directions[:, *window])
    inverse = 1.0 / torch.where(ray.abs() < 1e-9, 1e-9, ray)
    towards_low, towards_high = (-half - start) * inverse, (half - start) * inverse
    enter, enter_axis = torch.minimum(towards_low, towards_high).max(0)
    leave, leave_axis = torch.maximum(towards_low, towards_high).min(0)
    depth, axis = (leave, leave_axis) if inside else (enter, enter_axis)
    nearer = (enter <= leave) & (depth > NEAR_M) & (depth < hits.depth_m[window])
    local = start + depth * ray
    positive = torch.gather(local, 0, axis[None])[0] > 0
    # Columns of a face run along y for the x faces and along x else, rows downwards, or along y for z faces.
    across = torch.where(axis == 0, local[1] + half[1], local[0] + half[0])
    down = torch.where(axis == 2, local[1] + half[1], half[2] - local[2])
    face = texture + 2 * axis + positive
    _keep(hits, window, nearer, depth, face, across * texels_per_m, down * texels_per_m)


def _hit_sphere(
    hits: _Hits,
    sphere: Sphere,
    texture: int,
    texture_size: tuple[int, int],
    origin: Float[Tensor, "3"],
    directions: Float[Tensor, "3 rows columns"],
    window: Window,
) -> None:
    """The nearer root of ``|start + depth ray|² = radius²``; longitude along columns, latitude along rows."""
    start = (origin - torch.tensor(sphere.centre))[:, None, None]
    ray = directions[:, *window]
    a, b = ray.square().sum(0), (ray * start).sum(0)
    discriminant = b * b - a * (start.square().sum() - sphere.radius**2)
    depth = (-b - discriminant.clamp_min(0).sqrt()) / a
    nearer = (discriminant > 0) & (depth > NEAR_M) & (depth < hits.depth_m[window])
    normal = (start + depth * ray) / sphere.radius
    rows, columns = texture_size
    u = (torch.atan2(normal[1], normal[0]) / (2 * math.pi) + 0.5) * columns
    v = torch.acos(normal[2].clamp(-1, 1)) / math.pi * rows
    _keep(hits, window, nearer, depth, torch.full_like(u, texture, dtype=torch.int64), u, v)
    hits.normal[:, *window] = torch.where(nearer, normal, hits.normal[:, *window])


def _keep(
    hits: _Hits, window: Window, nearer: Tensor, depth: Tensor, texture: Tensor, u: Tensor, v: Tensor
) -> None:
    for buffer, values in ((hits.depth_m, depth), (hits.texture, texture), (hits.u, u), (hits.v, v)):
        buffer[window] = torch.where(nearer, values, buffer[window])


def _shade(
    scene: Scene, hits: _Hits, cam_from_world: Float[Tensor, "3 4"], camera: PinholeCamera
) -> Float[Tensor, "rows columns 3"]:
    """Texture times Lambert's cosine for each lamp, plus ambient light."""
    rows, columns = hits.depth_m.shape
    origin, directions = _rays(cam_from_world, camera, rows, columns)
    position = origin[:, None, None] + hits.depth_m * directions
    box_normals = _box_normals(scene)
    on_box = hits.texture < len(box_normals)
    box_normal = box_normals.T[:, hits.texture.clamp_max(len(box_normals) - 1)]
    normal = torch.where(on_box, box_normal, hits.normal)
    light = torch.full_like(hits.depth_m, AMBIENT)
    for lamp in LIGHTS:
        to_lamp = torch.tensor(lamp)[:, None, None] - position
        distance_2 = to_lamp.square().sum(0)
        cosine = (to_lamp * normal).sum(0).clamp_min(0) * distance_2.rsqrt()
        light += DIFFUSE * cosine * 2.0 / (1.0 + 0.35 * distance_2)
    length = directions.square().sum(0).sqrt()
    slant = ((directions * normal).sum(0).abs() / length).clamp_min(0.05)
    texels_per_ray = hits.depth_m / camera.focal_px[0] * scene.texels_per_m / slant.sqrt()
    level = texels_per_ray.clamp_min(1.0).log2().round().long().clamp_max(scene.atlas.offset.shape[1] - 1)
    return _sample(scene.atlas, hits.texture, level, hits.u, hits.v) * light[..., None]


def _box_normals(scene: Scene) -> Float[Tensor, "faces 3"]:
    """World normals of all box faces, by texture number; those of the room point inwards."""
    normals = []
    for number, box in enumerate(scene.boxes):
        axes = box.world_from_box().T if number > 0 else -box.world_from_box().T
        normals.append(torch.stack([-axes, axes], dim=1).flatten(0, 1))
    return torch.cat(normals)


def _sample(
    atlas: TextureAtlas, texture: Tensor, level: Tensor, u: Tensor, v: Tensor
) -> Float[Tensor, "rows columns 3"]:
    """Bilinear lookup in one mip level, colours in [0, 1]; ``u``, ``v`` in texels of the finest level."""
    number = texture * atlas.offset.shape[1] + level
    offset, rows, columns = (table.flatten()[number] for table in (atlas.offset, atlas.rows, atlas.columns))
    scale = torch.exp2(-level.float())
    u, v = u * scale - 0.5, v * scale - 0.5
    left, top = u.floor(), v.floor()
    fraction_u, fraction_v = (u - left)[..., None], (v - top)[..., None]
    column_0, row_0 = left.long(), top.long()
    total = torch.zeros((*u.shape, 3))
    for step_v, weight_v in ((0, 1 - fraction_v), (1, fraction_v)):
        row = torch.minimum((row_0 + step_v).clamp_min(0), rows - 1)
        for step_u, weight_u in ((0, 1 - fraction_u), (1, fraction_u)):
            column = torch.minimum((column_0 + step_u).clamp_min(0), columns - 1)
            texels = atlas.texels[(offset + row * columns + column).flatten()]
            total += weight_u * weight_v * texels.reshape(*u.shape, 3)
    return total / 255.0
