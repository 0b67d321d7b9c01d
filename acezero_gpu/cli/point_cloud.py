"""Coloured points of a map: scene coordinates that agree with the poses of the images they come from."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from acezero_gpu.data import PosedViews
from acezero_gpu.io.export_scene import ColouredPoints
from acezero_gpu.network import SceneMap
from acezero_gpu.reconstruction import ImageBank
from acezero_gpu.reconstruction.map_cloud import CloudConfig, cell_points, choose_points, cloud_unit
from acezero_gpu.runtime import random_stream
from acezero_gpu.runtime.progress import report

ERROR_BOUNDS_PX = (1.5, 3.0, 6.0)
"""A point is kept if it reprojects nearer than this to its cell's centre, at a shortest side of 480 px: the first
bound that leaves ``ENOUGH_POINTS``, else the last."""
ENOUGH_POINTS = 10_000
MAX_POINTS = 200_000
MAX_IMAGES = 200
"""Enough for a picture."""
_BATCH = 16


@torch.no_grad()
def map_points(
    bank: ImageBank,
    scene_map: SceneMap,
    views: PosedViews,
    min_confidence: float,
    seed: int,
    *,
    most_images: int = MAX_IMAGES,
) -> ColouredPoints:
    """Points that the registered images see where the map predicts them; empty if none is registered.

    By at most ``most_images`` of them, chosen at random.
    """
    generator = random_stream(seed, "point cloud")
    rows = views.registered(min_confidence).nonzero()[:, 0]
    rows = rows[torch.randperm(len(rows), generator=generator)[:most_images]].sort().values
    points = [torch.zeros(0, 3)]
    colours = [torch.zeros(0, 3, dtype=torch.uint8)]
    errors_px = [torch.zeros(0)]
    for part in rows.split(_BATCH) if len(rows) else ():  # an empty tensor splits into one empty part
        found, error_px = _points_of(bank, scene_map, views, part)
        points.append(found.points)
        colours.append(found.colours)
        errors_px.append(error_px)
        report(min(len(rows), _BATCH * (len(errors_px) - 1)), len(rows), "images")
    everything, every_colour, error_px = torch.cat(points), torch.cat(colours), torch.cat(errors_px)
    for bound_px in ERROR_BOUNDS_PX:
        good = (error_px < bound_px * bank.pixel_scale).nonzero()[:, 0]
        if len(good) >= ENOUGH_POINTS:
            break
    chosen = good[torch.randperm(len(good), generator=generator)[:MAX_POINTS]]
    return ColouredPoints(everything[chosen], every_colour[chosen])


def _points_of(
    bank: ImageBank, scene_map: SceneMap, views: PosedViews, rows: Tensor
) -> tuple[ColouredPoints, Float[Tensor, " n"]]:
    """Points of all cells of these images that no bound rules out, and their reprojection errors."""
    seen = cell_points(bank, scene_map, views, rows)
    good = (seen.error_px < ERROR_BOUNDS_PX[-1] * bank.pixel_scale) & (seen.depth > 0)
    return ColouredPoints(seen.points[good], seen.colours[good]), seen.error_px[good]


@torch.no_grad()
def exported_points(
    bank: ImageBank,
    scene_map: SceneMap,
    views: PosedViews,
    config: CloudConfig,
    seed: int,
    progress: Callable[[int, int], None] = lambda _done, _of: None,
) -> ColouredPoints:
    """Points of all images of the bank, chosen as ``config`` says."""
    found: list[tuple[Tensor, ...]] = []
    for part in torch.arange(len(bank)).split(_BATCH):
        seen = cell_points(bank, scene_map, views, part)
        good = (seen.error_px < config.worst_error_px * bank.pixel_scale) & (seen.depth > 0)
        every = (seen.points, seen.colours, seen.error_px, seen.jump, seen.depth)
        found.append(tuple(values[good] for values in every))
        progress(int(part[-1]) + 1, len(bank))
    points, colours, error_px, jump, depth = (torch.cat(values) for values in zip(*found, strict=True))
    unit = cloud_unit(depth)
    near = depth <= config.max_depth * unit
    chosen = choose_points(
        error_px[near],
        jump[near] / unit,
        len(bank) * bank.grid[0] * bank.grid[1],
        config,
        random_stream(seed, "exported points"),
        pixel_scale=bank.pixel_scale,
    )
    return ColouredPoints(points[near][chosen], colours[near][chosen])
