"""Pictures for a researcher: the colours stand where the numbers are."""

import io
import math
from collections.abc import Callable

import imageio.v3 as iio
import matplotlib as mpl
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from report_contents import circle_poses, noise_picture

from acezero_gpu.geometry import PinholeCamera
from acezero_gpu.viz import (
    plot_inliers,
    plot_map_matches,
    plot_reprojection_error,
    plot_scene_coordinates,
    plot_trajectory,
)

GREY = torch.full((96, 128, 3), 128, dtype=torch.uint8)
ROWS, COLUMNS = 6, 8


def drawn(figure: Figure) -> np.ndarray:
    target = io.BytesIO()
    figure.savefig(target, format="png", dpi=100)
    return iio.imread(target.getvalue())[..., :3].astype(int)


def picture_of(figure: Figure) -> np.ndarray:
    """The part of the figure that the first axes cover."""
    image = drawn(figure)
    box = figure.axes[0].get_window_extent()
    top, bottom = round(image.shape[0] - box.y1), round(image.shape[0] - box.y0)
    return image[top:bottom, round(box.x0) : round(box.x1)]


def cell(picture: np.ndarray, row: int, column: int) -> np.ndarray:
    height, width = picture.shape[:2]
    return picture[int((row + 0.5) * height / ROWS), int((column + 0.5) * width / COLUMNS)]


def test_errors_are_coloured_where_they_are() -> None:
    error = torch.zeros(ROWS, COLUMNS)
    error[1, 6], error[4, 2] = 10.0, math.inf
    figure = plot_reprojection_error(GREY, error, max_px=10.0)
    picture = picture_of(figure)
    blueness = [
        cell(picture, row, column)[2] - cell(picture, row, column)[0]
        for row, column in ((1, 6), (4, 2), (0, 0))
    ]
    assert blueness[0] < -50
    assert blueness[1] < -50
    assert blueness[2] > 30
    assert figure.axes[1].get_xlabel() == "reprojection error (px)"
    assert figure.axes[0].images[1].norm.vmax == 10.0


def test_inliers_stay_bright() -> None:
    error = torch.full((ROWS, COLUMNS), 20.0)
    error[2, 3] = 1.0
    figure = plot_inliers(GREY, error, threshold_px=5.0)
    picture = picture_of(figure)
    assert cell(picture, 2, 3).mean() > 120
    assert cell(picture, 2, 4).mean() < 60
    assert figure.axes[0].get_xlabel() == "bright: 2 % of the cells agree to 5 px"


def test_coordinates_are_red_green_and_blue() -> None:
    points = torch.zeros(ROWS, COLUMNS, 3)
    points[0, 0] = torch.tensor([1.0, 0.0, 0.0])
    points[0, 1] = torch.tensor([0.0, 1.0, 0.0])
    points[0, 2] = torch.tensor([0.0, 0.0, 1.0])
    points[0, 3] = math.nan
    picture = picture_of(
        plot_scene_coordinates(points, image=GREY, bounds=torch.tensor([[0.0] * 3, [1.0] * 3]))
    )
    for column, expected in enumerate(([255, 0, 0], [0, 255, 0], [0, 0, 255], [128, 128, 128], [0, 0, 0])):
        assert cell(picture, 0, column) == pytest.approx(expected, abs=3)


def test_lines_end_where_the_points_project() -> None:
    camera = PinholeCamera.centred(100.0, 128, 96)
    pose = torch.eye(3, 4)
    points = torch.tensor([[0.0, 0.0, 2.0], [0.3, -0.2, 2.0], [9.0, 0.0, 2.0], [0.0, 0.0, -2.0]])
    query_px = torch.tensor([[10.0, 20.0], [30.0, 40.0], [50.0, 60.0], [70.0, 80.0]])
    for stacked, shift in ((False, (136, 0)), (True, (0, 104))):
        figure = plot_map_matches(
            GREY, GREY, query_px, points, pose, camera, error_px=torch.tensor([1.0, 2, 3, 4]), stacked=stacked
        )
        lines = figure.axes[0].collections[0]
        ends = {tuple(np.round(segment[1]).astype(int)) for segment in lines.get_segments()}
        starts = {tuple(segment[0].astype(int)) for segment in lines.get_segments()}
        assert starts == {(10, 20), (30, 40)}
        assert ends == {(64 + shift[0], 48 + shift[1]), (79 + shift[0], 38 + shift[1])}
        assert sorted(lines.get_array().tolist()) == [1.0, 2.0]


def test_a_trajectory_is_coloured_by_its_distance_from_the_truth() -> None:
    poses = circle_poses(20)
    truth = -(poses[:, :, :3].transpose(1, 2) @ poses[:, :, 3:])[..., 0]
    estimate = truth + torch.tensor([0.0, 0.1, 0.0])
    registered = torch.ones(20, dtype=torch.bool)
    registered[3] = False
    figure = plot_trajectory(estimate, truth, registered=registered, unit="m")
    dots = figure.axes[0].collections[1]
    assert np.asarray(dots.get_array()) == pytest.approx(np.full(19, 0.1), abs=1e-6)
    # The circle is flat: broadside it is round, edge-on a line.
    spans = [np.ptp(axes.collections[1].get_offsets(), axis=0) for axes in figure.axes[:2]]
    assert spans[0][1] == pytest.approx(6.0, abs=0.3)
    assert spans[1][1] < 0.01
    assert figure.axes[0].get_xlabel() == "first axis (m)"
    drawn(figure)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plot_reprojection_error(noise_picture(0), torch.full((4, 4), math.nan)),
        lambda: plot_scene_coordinates(torch.full((4, 4, 3), math.nan)),
        lambda: plot_map_matches(
            GREY,
            GREY,
            torch.zeros(0, 2),
            torch.zeros(0, 3),
            torch.eye(3, 4),
            PinholeCamera.centred(9.0, 128, 96),
        ),
        lambda: plot_trajectory(torch.full((4, 3), math.nan), torch.zeros(4, 3)),
    ],
)
def test_nothing_to_show_still_gives_a_picture(draw: Callable[[], Figure]) -> None:
    assert drawn(draw()).shape[1] >= 400
    assert mpl.get_backend() is not None
