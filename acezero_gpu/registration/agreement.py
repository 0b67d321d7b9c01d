"""Where a map and a pose agree: the map's scene coordinates seen from the pose, cell by cell."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from acezero_gpu.geometry import PinholeCamera, cell_centres_px, reproject, undistort_pixels
from acezero_gpu.network import SceneMap
from acezero_gpu.registration.head_choice import points_at, points_by, some_cells

SUREST_SHARE = 0.1
"""Share of the cells that an image needs to be registered by a head, and that heads are compared by."""


@dataclass(frozen=True, slots=True)
class CellAgreement:
    """One row per image, one entry per cell, row by row of the grid."""

    points: Float[Tensor, "b cells 3"]
    """What the map predicts, in world coordinates."""
    error_px: Float[Tensor, "b cells"]
    """Distance of the projected point from the centre of its cell; inf for a point behind the camera."""
    depth: Float[Tensor, "b cells"]
    """Of the point along the optical axis; positive in front of the camera."""


@torch.no_grad()
def cell_agreement(
    features: Float[Tensor, "b c rows cols"],
    scene_map: SceneMap,
    cam_from_world: Float[Tensor, "b 3 4"],
    camera: PinholeCamera,
    *,
    stride: int,
) -> CellAgreement:
    """Reprojection errors of all cells, in pixels of the image that the features were made from.

    ``camera`` is that image's; cell centres are freed of the map's lens distortion first, as in registration. Of an
    ensemble, each image is looked at by the head whose surest cells have the least error.
    """
    rows, columns = features.shape[-2:]
    cells = cell_centres_px(rows, columns, stride, device=features.device)
    centres = undistort_pixels(cells, camera, torch.tensor(scene_map.radial, device=features.device))
    parts = scene_map.parts()
    if len(parts) == 1:
        points = scene_map.scene_coordinates(features)[0].float()
    else:
        some = some_cells(rows, columns, features.device)
        guesses = points_at(scene_map, features, some)
        error_px, _ = _errors(guesses, cam_from_world.expand(len(parts), -1, -1, -1), camera, centres[some])
        # A head that gives no numbers is no head's better.
        surest = error_px.kthvalue(max(1, int(SUREST_SHARE * len(some))), dim=-1).values
        best = surest.nan_to_num(torch.inf, torch.inf).argmin(0)
        points = points_by(parts, features, best, torch.arange(len(best), device=best.device))
    error_px, depth = _errors(points, cam_from_world, camera, centres)
    return CellAgreement(points, error_px, depth)


def _errors(
    points: Float[Tensor, "*b cells 3"],
    cam_from_world: Float[Tensor, "*b 3 4"],
    camera: PinholeCamera,
    centres: Float[Tensor, "cells 2"],
) -> tuple[Float[Tensor, "*b cells"], Float[Tensor, "*b cells"]]:
    """Distances from the cells' centres, inf behind the camera, and depths."""
    seen = reproject(points, cam_from_world, camera)
    return torch.where(seen.depth > 0, (seen.pixels - centres).norm(dim=-1), torch.inf), seen.depth
