"""The points that poses are adjusted by: enough in every part of every view, the widely seen ones first."""

import pytest
import torch
from reference.analytic_world import World, make_world
from torch import Tensor

from acezero_gpu.adjustment.spread import LONG_TRACK, well_spread


@pytest.fixture
def world(device: torch.device) -> World:
    return make_world(views=6, points=400, seed=4).to(device)


def observed(world: World, generator: torch.Generator, share: float) -> tuple[Tensor, Tensor, Tensor]:
    seen = (torch.rand(6, 400, generator=generator) < share).nonzero()
    view, point = seen.to(world.points.device).unbind(-1)
    return view, point, world.pixels()[view, point]


@pytest.mark.parametrize(("cells", "quota"), [(1, 20), (4, 3), (8, 1)])
def test_every_view_keeps_its_quota_in_every_cell(world, generator, cells, quota):
    view, point, pixels = observed(world, generator, 0.7)
    extent = 2 * world.camera.principal_point_px
    chosen = well_spread(view, point, pixels, 400, extent, cells_per_side=cells, points_per_cell=quota)
    place = (pixels / extent * cells).long().clamp(0, cells - 1)
    group = (view * cells + place[:, 1]) * cells + place[:, 0]
    there = torch.bincount(group, minlength=6 * cells * cells)
    left = torch.bincount(group[chosen[point]], minlength=6 * cells * cells)
    assert (left >= there.clamp_max(quota)).all()
    assert 0 < int(chosen.sum()) < 400


def test_widely_seen_points_come_first(world, generator):
    """A cell's points that two views see are left out where others are seen by all six."""
    view, point, pixels = observed(world, generator, 1.0)
    lonely = (point % 2 == 0) & (view >= 2)
    view, point, pixels = view[~lonely], point[~lonely], pixels[~lonely]
    extent = 2 * world.camera.principal_point_px
    chosen = well_spread(view, point, pixels, 400, extent, cells_per_side=1, points_per_cell=50)
    assert LONG_TRACK >= 6
    assert int(chosen.sum()) == 50, "the same fifty serve all views"
    assert (chosen.nonzero()[:, 0] % 2 == 1).all()
