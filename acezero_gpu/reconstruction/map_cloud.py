"""Scene coordinates of posed images, and which of them make a clean cloud of points."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from acezero_gpu.data import PosedViews, load_colours
from acezero_gpu.geometry import cell_centres_px
from acezero_gpu.network import SceneMap
from acezero_gpu.reconstruction.image_bank import ImageBank
from acezero_gpu.registration import cell_agreement


@dataclass(frozen=True, slots=True)
class CloudConfig:
    """Which scene coordinates become points; the figures are those of ACE0's export unless they say otherwise.

    ACE0's lengths are metres, and made for rooms. Here they are in units of a third of the points' median depth, which
    is about a metre in a room: worlds have any unit.
    """

    max_depth: float = 100.0
    """Points further from the camera than this are left out."""
    max_error_px: float = 1.0
    """A point reprojects nearer than this to its cell's centre, at a shortest side of 480 px."""
    max_jumps: tuple[float, ...] = (0.1, 0.5, 1.0, torch.inf)
    """Neighbouring cells' points lie nearer than this; the first that leaves ``enough``."""
    enough: int = 100_000
    """If too few points are left, those of least error fill up to this number, or to ``enough_share`` of all cells."""
    enough_share: float = 0.25
    """Ours: small images have fewer cells than ``enough``."""
    worst_error_px: float = 6.0
    """Ours: no point fills up that reprojects farther off than this."""
    most: int = 1_000_000
    """A random choice of so many where there are more."""
    dense: bool = False
    """Take every point within ``max_depth`` and ``worst_error_px``."""


TYPICAL_DEPTH = 3.0
"""Median depth of a room in metres."""


def cloud_unit(depth: Float[Tensor, " n"]) -> float:
    """The unit of ``CloudConfig``'s lengths in that of the world, by the depths of the points; 1 without any."""
    return float(depth.median()) / TYPICAL_DEPTH if len(depth) else 1.0


@dataclass(frozen=True, slots=True)
class CellPoints:
    """What a map says of every cell of some images; images lead, cells follow row by row."""

    points: Float[Tensor, "b cells 3"]
    """In the world."""
    error_px: Float[Tensor, "b cells"]
    """Distance of their reprojection to the cell's centre, in pixels of the network image; inf behind the camera."""
    depth: Float[Tensor, "b cells"]
    """In front of the camera if positive."""
    jump: Float[Tensor, "b cells"]
    """Distance to the farther of the points of the cell to the left and of the cell above."""
    colours: UInt8[Tensor, "b cells 3"]
    """Of the image at the cell's centre."""


@torch.no_grad()
def cell_points(
    bank: ImageBank, scene_map: SceneMap, views: PosedViews, rows: Int[Tensor, " b"]
) -> CellPoints:
    """Points of all cells of these images of the bank, on the CPU; ``views`` has their poses in the same rows."""
    camera = bank.camera(float(views.focal_px[int(rows[0])]))
    poses, stride = views.matrices[rows].to(bank.device), bank.encoder.stride
    seen = cell_agreement(bank.features(rows), scene_map, poses, camera, stride=stride)
    pictures = load_colours(
        [bank.images.image_set.paths[row] for row in rows.tolist()], (bank.width, bank.height)
    )
    u, v = cell_centres_px(*bank.grid, stride).long().unbind(-1)
    return CellPoints(
        seen.points.cpu(),
        seen.error_px.cpu(),
        seen.depth.cpu(),
        _jumps(seen.points, bank.grid).cpu(),
        pictures[:, v, u],
    )


def _jumps(points: Float[Tensor, "b cells 3"], grid: tuple[int, int]) -> Float[Tensor, "b cells"]:
    """Cells of the first column and of the first row take the jump of their other neighbour."""
    field = points.unflatten(1, grid)
    jump = torch.zeros(field.shape[:-1], device=points.device)
    if grid[1] > 1:
        across = (field[:, :, 1:] - field[:, :, :-1]).norm(dim=-1)
        jump = torch.maximum(jump, torch.cat([across[:, :, :1], across], dim=2))
    if grid[0] > 1:
        down = (field[:, 1:] - field[:, :-1]).norm(dim=-1)
        jump = torch.maximum(jump, torch.cat([down[:, :1], down], dim=1))
    return jump.flatten(1)


def choose_points(
    error_px: Float[Tensor, " n"],
    jump: Float[Tensor, " n"],
    cells: int,
    config: CloudConfig,
    generator: torch.Generator,
    *,
    pixel_scale: float = 1.0,
) -> Int[Tensor, " m"]:
    """Rows of the points to keep, ascending, of those within ``max_depth`` and ``worst_error_px``.

    ``cells`` is the number of all cells. After ACE0's export, with two differences: its bound on the error is on
    the sum of both axes' errors, and what fills up may have any error there.
    """
    if config.dense:
        chosen = torch.arange(len(error_px))
    else:
        enough = min(config.enough, int(config.enough_share * cells), len(error_px))
        exact = error_px < config.max_error_px * pixel_scale
        for bound in config.max_jumps:
            chosen = (exact & (jump < bound)).nonzero()[:, 0]
            if len(chosen) >= enough:
                break
        if len(chosen) < enough:
            chosen = error_px.argsort()[:enough]
    if len(chosen) > config.most:
        chosen = chosen[torch.randperm(len(chosen), generator=generator)[: config.most]]
    return chosen.sort().values
