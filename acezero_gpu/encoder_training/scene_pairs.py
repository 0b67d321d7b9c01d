"""Pairs of views of photo-textured synthetic rooms: true parallax and occlusion."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Generator, Tensor

from acezero_gpu.data.synthetic import render, synthetic_scene, walk, walk_camera
from acezero_gpu.encoder_training.pairs import TrainingPairs
from acezero_gpu.encoder_training.pictures import Picture
from acezero_gpu.geometry import PinholeCamera, cell_centres_px, compose, invert
from acezero_gpu.runtime.progress import report

DEPTH_TOLERANCE = 0.03
"""A point is seen if the other view's depth there differs by less than this share: else something hides it."""


@dataclass(frozen=True, slots=True)
class SceneConfig:
    """The rendered rooms."""

    scenes: int = 64
    """Rooms; each is furnished and papered anew."""
    views: int = 10
    """Views along a walk through each."""
    step_deg: float = 8.0
    """From one view to the next, around the table in the middle."""
    reach: int = 3
    """Views of a pair lie at most this many steps apart."""
    texels_per_m: int = 110
    """Density of the textures."""


@dataclass(frozen=True, slots=True)
class RenderedScenes:
    """Views of all rooms in memory."""

    images: UInt8[Tensor, "r v 3 s s"]
    depth: Float[Tensor, "r v s s"]
    """In metres, along the optical axis."""
    cam_from_world: Float[Tensor, "r v 3 4"]
    camera: PinholeCamera


def render_scenes(pictures: list[Picture], side: int, config: SceneConfig, seed: int) -> RenderedScenes:
    """All views of all rooms."""
    camera = walk_camera(side, side)
    photographs = [picture[1] for picture in pictures]
    images = torch.empty(config.scenes, config.views, 3, side, side, dtype=torch.uint8)
    depth = torch.empty(config.scenes, config.views, side, side)
    poses = torch.empty(config.scenes, config.views, 3, 4)
    for room in range(config.scenes):
        scene = synthetic_scene(seed + room, texels_per_m=config.texels_per_m, photographs=photographs)
        poses[room] = walk(scene, config.views, seed + room, step_deg=config.step_deg)
        for view in range(config.views):
            rgb, depth[room, view] = render(scene, poses[room, view], camera)
            images[room, view] = rgb.permute(2, 0, 1)
        report(room + 1, config.scenes, "rooms")
    return RenderedScenes(images, depth, poses, camera)


def scene_pairs(
    scenes: RenderedScenes, count: int, stride: int, config: SceneConfig, generator: Generator
) -> TrainingPairs:
    """Random pairs of views of the same room, a few steps apart."""
    rooms, views = scenes.images.shape[:2]
    room = torch.randint(rooms, (count,), generator=generator)
    first = torch.randint(views, (count,), generator=generator)
    # Beyond half of the walk there may be a view on neither side.
    step = torch.randint(1, max(1, min(config.reach, views // 2)) + 1, (count,), generator=generator)
    second = torch.where(first + step < views, first + step, first - step)
    b_of_a, seen_a = _matches(scenes, room, first, second, stride)
    a_of_b, seen_b = _matches(scenes, room, second, first, stride)
    a, b = (scenes.images[room, view].float() / 255.0 for view in (first, second))
    return TrainingPairs(a, b, b_of_a, seen_a, a_of_b, seen_b)


def _matches(
    scenes: RenderedScenes, room: Tensor, own: Tensor, other: Tensor, stride: int
) -> tuple[Float[Tensor, "b n 2"], Bool[Tensor, "b n"]]:
    side = scenes.images.shape[-1]
    cells = cell_centres_px(side // stride, side // stride, stride)
    # Depth is known at pixel centres; a cell's centre lies on the corner of four, half a pixel from each.
    column, row = cells.long().unbind(-1)
    depth = scenes.depth[room, own][:, row, column]
    rays = torch.cat(
        [scenes.camera.normalised(torch.stack([column, row], -1) + 0.5), torch.ones(len(cells), 1)], -1
    )
    move = compose(scenes.cam_from_world[room, other], invert(scenes.cam_from_world[room, own]))
    points = (rays * depth[..., None]) @ move[:, :, :3].transpose(1, 2) + move[:, None, :, 3]
    z = points[..., 2]
    pixels = points[..., :2] / z.clamp_min(1e-3)[..., None] * scenes.camera.focal_px
    pixels = pixels + scenes.camera.principal_point_px
    inside = ((pixels > 0) & (pixels < side)).all(-1) & (z > 0.05)
    at = pixels.clamp(0, side - 1).long()
    there = scenes.depth[room, other][torch.arange(len(room))[:, None], at[..., 1], at[..., 0]]
    return pixels, inside & ((there - z).abs() < DEPTH_TOLERANCE * z)
