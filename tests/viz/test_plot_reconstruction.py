from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from acezero_gpu.viz import plot_reconstruction

PURPLE = (150, 20, 200)


def looking_cameras(count: int) -> torch.Tensor:
    """Upright cameras in a row, one unit apart, looking along z."""
    cameras = torch.eye(4)[:3].repeat(count, 1, 1)
    cameras[:, 0, 3] = -torch.arange(count) * 0.3
    return cameras


def picture(path: Path) -> np.ndarray:
    image = iio.imread(path)
    assert image.shape == (700, 1200, 3)
    return image.astype(int)


def count_like(image: np.ndarray, colour: tuple[int, int, int]) -> int:
    return int((np.abs(image - np.array(colour)).max(-1) < 60).sum())


def wall(n: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    points = 2 * torch.rand(n, 3, generator=generator) - 1
    return points * torch.tensor([2.0, 1.0, 0.1]) + torch.tensor([0.5, 0.0, 4.0])


def test_points_and_cameras_are_in_the_picture(tmp_path: Path) -> None:
    points = wall(5000)
    colours = torch.tensor(PURPLE, dtype=torch.uint8).repeat(5000, 1)
    sure, failed = torch.full((5,), 3000.0), torch.zeros(5)
    plot_reconstruction(tmp_path / "a.png", points, colours, looking_cameras(5), sure, title="A wall")
    plot_reconstruction(tmp_path / "b.png", points, colours, looking_cameras(5), failed, title="A wall")
    with_cameras, without = picture(tmp_path / "a.png"), picture(tmp_path / "b.png")
    assert count_like(with_cameras, PURPLE) > 5000
    assert count_like(without, PURPLE) > 5000
    blue = (13, 84, 158)
    assert count_like(with_cameras[50:660], blue) > 100
    assert count_like(without[50:660], blue) == 0


def test_outliers_do_not_shrink_the_scene(tmp_path: Path) -> None:
    points = wall(5000)
    colours = torch.tensor(PURPLE, dtype=torch.uint8).repeat(5000, 1)
    plot_reconstruction(tmp_path / "a.png", points, colours, looking_cameras(5), torch.full((5,), 900.0))
    points[:50] *= 1000.0
    points[50:60] = torch.nan
    plot_reconstruction(tmp_path / "b.png", points, colours, looking_cameras(5), torch.full((5,), 900.0))
    clean, dirty = (count_like(picture(tmp_path / name), PURPLE) for name in ("a.png", "b.png"))
    assert dirty > 0.7 * clean


@pytest.mark.parametrize(("points", "cameras"), [(0, 0), (0, 1), (0, 3), (1, 0), (500, 0), (2, 1)])
def test_little_or_nothing_still_gives_a_picture(tmp_path: Path, points: int, cameras: int) -> None:
    colours = torch.zeros(points, 3, dtype=torch.uint8)
    plot_reconstruction(
        tmp_path / "a.png", wall(points), colours, looking_cameras(cameras), torch.ones(cameras)
    )
    picture(tmp_path / "a.png")


def test_few_cameras_far_from_many_points_are_in_the_picture_too(tmp_path: Path) -> None:
    points = torch.rand(20_000, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor(
        [0.1, -0.5, 30.0]
    )
    cameras = looking_cameras(5)
    cameras[:, 0, 3] *= 20
    colours = torch.tensor(PURPLE, dtype=torch.uint8).repeat(20_000, 1)
    plot_reconstruction(tmp_path / "a.png", points, colours, cameras, torch.full((5,), 3000.0))
    image = picture(tmp_path / "a.png")[50:660, :780]
    columns = np.nonzero((np.abs(image - np.array([13, 84, 158])).max(-1) < 60).any(0))[0]
    assert (np.diff(columns) > 3).sum() == 4
    assert count_like(image, PURPLE) > 0
