"""Errors of cells against OpenCV's projection, with a distorted lens."""

import math

import cv2
import numpy as np
import pytest
import torch
from reference.head_of_several import heads_of
from torch import Tensor

from acezero_gpu.geometry import PinholeCamera, cell_centres_px
from acezero_gpu.network import Head, HeadConfig, SceneMap, ensemble_of
from acezero_gpu.registration import cell_agreement

ROWS, COLUMNS, STRIDE = 6, 8, 8


class GivenMap(SceneMap):
    """The scene coordinate of a cell is its feature."""

    def scene_coordinates(self, features: Tensor, chunk_cells: int = 65536) -> Tensor:
        return features.flatten(2).transpose(1, 2)[None]


def test_errors_are_those_of_opencv() -> None:
    generator = torch.Generator().manual_seed(0)
    turn = torch.tensor(cv2.Rodrigues(np.array([0.1, -0.2, 0.05]))[0]).float()
    pose = torch.cat([turn, torch.tensor([[0.1], [-0.2], [0.3]])], 1)[None]
    in_camera = torch.rand(ROWS * COLUMNS, 3, generator=generator) * torch.tensor([2.0, 1.5, 3.0])
    in_camera += torch.tensor([-1.0, -0.75, 2.0])
    in_camera[5, 2] = -1.0
    points = (in_camera - pose[0, :, 3]) @ pose[0, :, :3]
    camera = PinholeCamera.centred(50.0, COLUMNS * STRIDE, ROWS * STRIDE)
    radial = (0.05, -0.01)
    scene_map = GivenMap(Head(3, HeadConfig(width=4), torch.zeros(3)), "given", 48, 1.0, radial)
    features = points.T.unflatten(1, (ROWS, COLUMNS))[None]
    found = cell_agreement(features, scene_map, pose, camera, stride=STRIDE)
    assert torch.equal(found.points[0], points)
    # OpenCV counts pixels from the centre of the first one; the cells' centres are freed of the distortion.
    intrinsics = np.array(
        [[50.0, 0, COLUMNS * STRIDE / 2 - 0.5], [0, 50.0, ROWS * STRIDE / 2 - 0.5], [0, 0, 1]]
    )
    seen, _ = cv2.projectPoints(
        points.double().numpy(),
        cv2.Rodrigues(turn.double().numpy())[0],
        pose[0, :, 3].double().numpy(),
        intrinsics,
        None,
    )
    rows, columns = np.mgrid[:ROWS, :COLUMNS]
    cells = STRIDE * (np.stack([columns, rows], -1).reshape(-1, 1, 2) + 0.5) - 0.5
    straight = cv2.undistortPoints(cells, intrinsics, np.array([*radial, 0, 0]), P=intrinsics)
    expected = np.linalg.norm(seen - straight, axis=-1)[:, 0]
    error = found.error_px[0].double().numpy()
    assert math.isinf(error[5])
    others = np.arange(len(error)) != 5
    assert error[others] == pytest.approx(expected[others], abs=2e-2)


class TwoHeads(SceneMap):
    """The first head is off in every second image, the second in the others, and gives no numbers in the last.

    The fourth channel is the image's number, the others are the scene coordinates.
    """

    def scene_coordinates(self, features: Tensor, chunk_cells: int = 65536) -> Tensor:
        image, points = features[:, 3].flatten(1)[..., None], features[:, :3].flatten(2).transpose(1, 2)
        first, second = points + 0.5 * (image % 2), points + 0.5 * (1 - image % 2)
        return torch.stack([first, torch.where(image == 3, math.inf, second)])

    def parts(self) -> tuple[SceneMap, ...]:
        return heads_of(self)


def test_each_image_is_looked_at_by_the_head_that_fits_its_pose() -> None:
    pose = torch.eye(3, 4).expand(4, -1, -1)
    camera = PinholeCamera.centred(50.0, COLUMNS * STRIDE, ROWS * STRIDE)
    rays = torch.cat(
        [camera.normalised(cell_centres_px(ROWS, COLUMNS, STRIDE)), torch.ones(ROWS * COLUMNS, 1)], 1
    )
    features = (3.0 * rays).T.unflatten(1, (ROWS, COLUMNS)).expand(4, -1, -1, -1)
    numbers = torch.arange(4.0)[:, None, None, None].expand(-1, 1, ROWS, COLUMNS)
    features = torch.cat([features, numbers], 1)
    heads = [Head(4, HeadConfig(width=4), torch.zeros(3)) for _ in range(2)]
    found = cell_agreement(
        features, TwoHeads(ensemble_of(heads), "two", 48, 1.0), pose, camera, stride=STRIDE
    )
    assert (found.error_px[:3] < 1e-3).all()
    assert found.error_px[3].isfinite().all(), "the head without numbers was taken"
    assert found.points.shape == (4, ROWS * COLUMNS, 3)
    torch.testing.assert_close(found.depth[:3], torch.full((3, ROWS * COLUMNS), 3.0))
