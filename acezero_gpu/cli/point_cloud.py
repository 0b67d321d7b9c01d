"""Coloured points of a map: scene coordinates that agree with the poses of the images they come from."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from acezero_gpu.data import PosedViews, load_colours
from acezero_gpu.geometry import cell_centres_px, reproject, undistort_pixels
from acezero_gpu.network import SceneMap
from acezero_gpu.reconstruction import ImageBank
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


@dataclass(frozen=True, slots=True)
class ColouredPoints:
    """Points of the world; on the CPU."""

    points: Float[Tensor, "n 3"]
    colours: UInt8[Tensor, "n 3"]


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
    camera = bank.camera(float(views.focal_px[int(rows[0])]))
    cells = cell_centres_px(*bank.grid, bank.encoder.stride, device=bank.device)
    centres = undistort_pixels(cells, camera, torch.tensor(scene_map.radial, device=bank.device))
    points = scene_map.scene_coordinates(bank.features(rows)).float()
    seen = reproject(points, views.matrices[rows].to(bank.device), camera)
    error_px = (seen.pixels - centres).norm(dim=-1)
    good = ((error_px < ERROR_BOUNDS_PX[-1] * bank.pixel_scale) & (seen.depth > 0)).cpu()
    paths = [bank.images.image_set.paths[row] for row in rows.tolist()]
    pictures = load_colours(paths, (bank.width, bank.height))
    u, v = cells.long().cpu().unbind(-1)
    return ColouredPoints(points.cpu()[good], pictures[:, v, u][good]), error_px.cpu()[good]
