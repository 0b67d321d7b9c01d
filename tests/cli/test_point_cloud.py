"""Which points of a map are kept, and their colours, for a map that is right in every second cell."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from cli_calls import picture
from jaxtyping import Float
from torch import Tensor

from acezero_gpu.cli.point_cloud import exported_points, map_points
from acezero_gpu.data import LoadedImages, PosedViews, load_colours, load_grey, resolve_images
from acezero_gpu.geometry import cell_centres_px, se3_from_matrix
from acezero_gpu.network import DenseSiftEncoder, Head, HeadConfig, SceneMap
from acezero_gpu.reconstruction import BankConfig, ImageBank
from acezero_gpu.reconstruction.map_cloud import CloudConfig

FOCAL_PX, DEPTH = 60.0, 2.0
COLUMNS, ROWS = 8, 6


@dataclass(frozen=True)
class HalfRight(SceneMap):
    """Predicts points on a wall that faces the cameras: exactly for even cells, off by some pixels for odd ones."""

    points: Tensor | None = None

    def scene_coordinates(
        self, features: Float[Tensor, "b c rows cols"], chunk_cells: int = 65536
    ) -> Float[Tensor, "1 b cells 3"]:
        assert self.points is not None
        return self.points.expand(1, len(features), -1, -1)


def wall(centres: Tensor, off_px: float) -> Tensor:
    rays = (centres - centres.new_tensor([32.0, 24.0])) / FOCAL_PX
    rays[1::2, 0] += off_px / FOCAL_PX
    return DEPTH * torch.cat([rays, torch.ones_like(rays[:, :1])], dim=-1)


@pytest.fixture
def bank(tmp_path: Path) -> ImageBank:
    for index in range(4):
        picture(index).save(tmp_path / f"{index}.png")
    images: LoadedImages = load_grey(resolve_images(tmp_path), 48)
    return ImageBank(
        images, images, DenseSiftEncoder(), BankConfig(shortest_side_px=48), torch.device("cpu"), 0
    )


@pytest.mark.parametrize(("off_px", "kept"), [(1.0, 1.0), (5.0, 1.0), (7.0, 0.5)])
def test_points_that_agree_are_kept_with_their_colours(bank: ImageBank, off_px: float, kept: float) -> None:
    # Bounds hold at a shortest side of 480: here 6 px mean 0.6. So few points are never enough for a tighter one.
    off_px *= bank.pixel_scale
    centres = cell_centres_px(ROWS, COLUMNS, bank.encoder.stride)
    head = Head(4, HeadConfig(width=8), torch.zeros(3))
    scene_map = HalfRight(head, bank.encoder.identifier, 48, FOCAL_PX / 48, points=wall(centres, off_px))
    confidence = torch.tensor([100.0, 0.0, 40.0, 100.0])
    poses = se3_from_matrix(torch.eye(3, 4).repeat(4, 1, 1))
    views = PosedViews(bank.images.image_set.names, poses, torch.full((4,), FOCAL_PX), confidence)
    cloud = map_points(bank, scene_map, views, 50.0, seed=1)
    cells = ROWS * COLUMNS
    assert len(cloud.points) == 2 * kept * cells  # the first and the last image alone are registered
    assert torch.allclose(cloud.points[:, 2], torch.tensor(DEPTH))
    found = {
        (tuple(point), tuple(colour))
        for point, colour in zip(cloud.points.tolist(), cloud.colours.tolist(), strict=True)
    }
    pictures = load_colours(bank.images.image_set.paths, (64, 48))
    step = 2 if kept < 1 else 1
    column, row = centres.long().unbind(-1)
    expected = {
        (tuple(point), tuple(pictures[image, y, x].tolist()))
        for image in (0, 3)
        for point, x, y in list(
            zip(wall(centres, off_px).tolist(), column.tolist(), row.tolist(), strict=True)
        )[::step]
    }
    assert found == expected


def test_no_registered_image_no_points(bank: ImageBank) -> None:
    head = Head(4, HeadConfig(width=8), torch.zeros(3))
    scene_map = SceneMap(head, bank.encoder.identifier, 48, 1.0)
    poses = se3_from_matrix(torch.eye(3, 4).repeat(4, 1, 1))
    views = PosedViews(bank.images.image_set.names, poses, torch.full((4,), FOCAL_PX), torch.zeros(4))
    cloud = map_points(bank, scene_map, views, 1.0, seed=1)
    assert (len(cloud.points), len(cloud.colours)) == (0, 0)


def test_where_enough_points_are_good_the_others_are_left_out(
    bank: ImageBank, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = ROWS * COLUMNS
    centres = cell_centres_px(ROWS, COLUMNS, bank.encoder.stride)
    head = Head(4, HeadConfig(width=8), torch.zeros(3))
    points = wall(centres, 5.0 * bank.pixel_scale)
    scene_map = HalfRight(head, bank.encoder.identifier, 48, FOCAL_PX / 48, points=points)
    poses = se3_from_matrix(torch.eye(3, 4).repeat(4, 1, 1))
    views = PosedViews(
        bank.images.image_set.names, poses, torch.full((4,), FOCAL_PX), torch.full((4,), 100.0)
    )
    monkeypatch.setattr("acezero_gpu.cli.point_cloud.ENOUGH_POINTS", 2 * cells)
    assert len(map_points(bank, scene_map, views, 50.0, seed=1).points) == 2 * cells
    monkeypatch.setattr("acezero_gpu.cli.point_cloud.ENOUGH_POINTS", 2 * cells + 1)
    assert len(map_points(bank, scene_map, views, 50.0, seed=1).points) == 4 * cells


@pytest.mark.parametrize("dense", [False, True])
def test_exported_points_do_not_depend_on_the_unit(bank: ImageBank, dense: bool) -> None:
    """A wall at 2 m, and one at 2000 mm; one cell's point lies 50 times as far away as the others."""
    centres = cell_centres_px(ROWS, COLUMNS, bank.encoder.stride)
    head = Head(4, HeadConfig(width=8), torch.zeros(3))
    poses = se3_from_matrix(torch.eye(3, 4).repeat(4, 1, 1))
    views = PosedViews(
        bank.images.image_set.names, poses, torch.full((4,), FOCAL_PX), torch.full((4,), 100.0)
    )
    counts = []
    for unit in (1.0, 1000.0):
        points = unit * wall(centres, 0.0)
        points[5] *= 50
        scene_map = HalfRight(head, bank.encoder.identifier, 48, FOCAL_PX / 48, points=points)
        cloud = exported_points(bank, scene_map, views, CloudConfig(dense=dense), 0)
        assert cloud.points[:, 2].max() <= 1.001 * unit * DEPTH
        counts.append(len(cloud.points))
    assert counts[0] == counts[1] > 0
    assert not dense or counts[0] == 4 * (ROWS * COLUMNS - 1)
