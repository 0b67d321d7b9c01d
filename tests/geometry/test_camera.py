"""The pinhole camera against OpenCV, whose pixel centres lie half a pixel before ours."""

import cv2
import numpy as np
import pytest
import torch

from acezero_gpu.geometry import PinholeCamera, project, reproject

WIDTH, HEIGHT, FOCAL = 640, 480, 525.0


def points_in_front(generator: torch.Generator, *shape: int) -> torch.Tensor:
    points = torch.randn(*shape, 3, generator=generator, dtype=torch.float64)
    points[..., 2] = points[..., 2].abs() + 1.0
    return points


def test_projection_agrees_with_opencv_shifted_by_half_a_pixel(device, generator):
    points = points_in_front(generator, 30)
    # OpenCV numbers the top-left pixel's centre (0, 0): the middle of the image is (w - 1) / 2 there.
    matrix = np.array([[FOCAL, 0, (WIDTH - 1) / 2], [0, FOCAL, (HEIGHT - 1) / 2], [0, 0, 1]])
    rotation_vector, translation = np.array([0.1, -0.2, 0.05]), np.array([0.1, 0.2, 0.3])
    expected, _ = cv2.projectPoints(points.numpy(), rotation_vector, translation, matrix, None)
    rotation = cv2.Rodrigues(rotation_vector)[0]
    pose = torch.from_numpy(np.concatenate([rotation, translation[:, None]], axis=1)).to(device)
    camera = PinholeCamera.centred(FOCAL, WIDTH, HEIGHT, device=device, dtype=torch.float64)

    seen = reproject(points.to(device), pose, camera)

    np.testing.assert_allclose(seen.pixels.cpu().numpy() - 0.5, expected[:, 0], atol=1e-9)
    np.testing.assert_allclose(seen.depth.cpu().numpy(), (points.numpy() @ rotation.T + translation)[:, 2])


def test_a_resized_image_is_described_by_the_scaled_camera():
    # OpenCV resizes a picture of one blob; its centre of mass must land where the scaled camera looks.
    point = torch.tensor([[0.21, -0.13, 1.0]], dtype=torch.float64)
    camera = PinholeCamera.centred(100.0, 160, 120, dtype=torch.float64)
    u, v = project(point, camera)[0].tolist()
    columns, rows = np.meshgrid(np.arange(160) + 0.5, np.arange(120) + 0.5)
    picture = np.exp(-((columns - u) ** 2 + (rows - v) ** 2) / (2 * 4.0**2))
    small = cv2.resize(picture, (80, 40), interpolation=cv2.INTER_AREA)
    columns, rows = np.meshgrid(np.arange(80) + 0.5, np.arange(40) + 0.5)
    landed = [(small * columns).sum() / small.sum(), (small * rows).sum() / small.sum()]

    expected = project(point, camera.scaled((80 / 160, 40 / 120)))[0]

    np.testing.assert_allclose(landed, expected.numpy(), atol=1e-3)


def test_scaling_by_one_factor_scales_both_axes(device):
    camera = PinholeCamera.centred(FOCAL, WIDTH, HEIGHT, device=device)
    half = camera.scaled(0.5)
    torch.testing.assert_close(half.focal_px, camera.focal_px / 2)
    torch.testing.assert_close(half.principal_point_px, torch.tensor([160.0, 120.0], device=device))


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)], ids=str)
def test_bearings_are_unit_rays_through_their_pixels(shape, device, dtype, generator):
    camera = PinholeCamera.centred(FOCAL, WIDTH, HEIGHT, device=device, dtype=dtype)
    pixels = torch.rand(*shape, 11, 2, generator=generator).to(device, dtype) * 480
    bearings = camera.bearings(pixels)
    assert bearings.shape == (*shape, 11, 3)
    torch.testing.assert_close(bearings.norm(dim=-1), torch.ones_like(bearings[..., 0]))
    depth = (torch.rand(*shape, 11, 1, generator=generator) * 10 + 0.5).to(device, dtype)
    torch.testing.assert_close(project(bearings * depth, camera), pixels, rtol=1e-5, atol=1e-3)


def test_each_image_may_have_its_own_camera(device, generator):
    points = points_in_front(generator, 3, 5).to(device)
    focal = torch.tensor([[400.0, 410.0], [500.0, 505.0], [600.0, 590.0]], dtype=torch.float64, device=device)
    centre = torch.tensor(
        [[320.0, 240.0], [300.0, 230.0], [310.0, 250.0]], dtype=torch.float64, device=device
    )
    together = project(points, PinholeCamera(focal, centre))
    alone = [project(points[i], PinholeCamera(focal[i], centre[i])) for i in range(3)]
    torch.testing.assert_close(together, torch.stack(alone))
    # fx and fy are not swapped: a point off in x alone moves along u by fx x/z.
    one = project(points.new_tensor([[0.5, 0.0, 2.0]]), PinholeCamera(focal[0], centre[0]))
    torch.testing.assert_close(one, points.new_tensor([[320.0 + 400.0 * 0.25, 240.0]]))


def test_the_guess_is_seven_tenths_of_the_diagonal():
    camera = PinholeCamera.guess(300, 400)
    assert camera.focal_px.tolist() == [350.0, 350.0]
    assert camera.principal_point_px.tolist() == [150.0, 200.0]


def test_moving_a_camera_changes_its_type_alone(device):
    camera = PinholeCamera.centred(FOCAL, WIDTH, HEIGHT).to(device, torch.float64)
    assert camera.focal_px.dtype == camera.principal_point_px.dtype == torch.float64
    assert camera.focal_px.device.type == device.type
    assert camera.focal_px.tolist() == [FOCAL, FOCAL]
