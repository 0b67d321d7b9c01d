"""Augmentation: drawn dots land where ``source_px`` says, and warps equal OpenCV's."""

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from acezero_gpu.data.augmentation import AugmentationConfig, AugmentedImages, augment
from acezero_gpu.geometry import cell_centres_px

PLAIN = AugmentationConfig(max_scale=1.0, max_rotation_deg=0.0, brightness=0.0, contrast=0.0)
GEOMETRY = AugmentationConfig(brightness=0.0, contrast=0.0)
HEIGHT, WIDTH = 96, 128


def generator_of(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def dots(centres_px: Tensor, sigma: float = 2.5) -> Tensor:
    """Gaussian dots on black; the centre of the top-left pixel is (0.5, 0.5)."""
    v, u = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    image = torch.zeros(HEIGHT, WIDTH)
    for x, y in centres_px.tolist():
        image += 0.9 * torch.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * sigma**2))
    return image[None, None]


def smooth_texture(batch: int, seed: int) -> Tensor:
    noise = torch.rand(batch, 1, HEIGHT // 8, WIDTH // 8, generator=generator_of(seed))
    return torch.nn.functional.interpolate(noise, size=(HEIGHT, WIDTH), mode="bicubic").clamp(0, 1)


def warped_pixels(warped: AugmentedImages, image: int, source_px: Tensor) -> Tensor:
    """The inverse of ``source_px``, by solving."""
    affine = warped.source_from_warped[image].double().cpu()
    return torch.linalg.solve(affine[:, :2], (source_px.double() - affine[:, 2]).T).T


def opencv_warp(image: Tensor, affine: Tensor, height: int, width: int, border: int) -> np.ndarray:
    """The same warp by OpenCV, which counts from the centre of the first pixel."""
    matrix = affine.double().cpu().numpy().copy()
    matrix[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image.cpu().numpy(), matrix, (width, height), flags=flags, borderMode=border)


@pytest.mark.parametrize("seed", range(4))
def test_dots_lie_where_the_way_back_says(device, seed):
    centres = torch.tensor([[40.3, 38.6], [90.1, 30.5], [64.0, 70.2]])
    image = dots(centres).to(device)
    warped = augment(torch.cat([image, image]), GEOMETRY, generator_of(seed))
    rows, columns = warped.images.shape[-2:]
    v, u = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
    seen = 0
    for picture in range(2):
        for expected in warped_pixels(warped, picture, centres):
            near = (u - expected[0]).abs().maximum((v - expected[1]).abs()) < 8
            weight = warped.images[picture, 0].cpu() * near
            found = torch.stack([(weight * u).sum(), (weight * v).sum()]) / weight.sum()
            assert (found - expected).norm() < 0.1
            back = warped.source_px(found[None].float().to(device))[picture, 0].cpu()
            assert (back - centres).norm(dim=-1).min() < 0.15
            seen += 1
    assert seen == 6


def test_enlarged_and_turned_images_equal_opencvs(device):
    images = smooth_texture(3, 5).to(device)
    checked = 0
    for seed in range(12):
        warped = augment(images, GEOMETRY, generator_of(seed))
        height, width = warped.images.shape[-2:]
        if height < HEIGHT:
            continue  # reduced images are smoothed first
        for row in range(3):
            affine = warped.source_from_warped[row]
            theirs = opencv_warp(images[row, 0], affine, height, width, cv2.BORDER_REFLECT)
            assert np.abs(warped.images[row, 0].cpu().numpy() - theirs).max() < 0.03
            checked += 1
    assert checked >= 6


def test_inside_marks_the_pixels_that_show_the_image(device):
    images = torch.ones(3, 1, HEIGHT, WIDTH, device=device)
    for seed in range(4):
        warped = augment(images, GEOMETRY, generator_of(seed))
        height, width = warped.images.shape[-2:]
        pixels = cell_centres_px(height, width, 1, device=device)
        inside = warped.inside(warped.source_px(pixels)).unflatten(1, (height, width)).cpu().numpy()
        for row in range(3):
            shown = opencv_warp(
                images[row, 0], warped.source_from_warped[row], height, width, cv2.BORDER_CONSTANT
            )
            assert inside[row][shown > 0.99].all()
            assert not inside[row][shown < 0.01].any()
            assert 0.5 < inside[row].mean() < 1


def test_nothing_to_change_changes_nothing(device):
    images = smooth_texture(2, 1).to(device)
    warped = augment(images, PLAIN, generator_of(0))
    torch.testing.assert_close(warped.images, images, atol=2e-5, rtol=0)
    pixels = cell_centres_px(3, 4, 8, device=device)
    torch.testing.assert_close(warped.source_px(pixels), pixels.expand(2, -1, -1), atol=1e-4, rtol=0)
    assert warped.inside(warped.source_px(pixels)).all()


def test_draws_fill_their_ranges_and_stay_within():
    scales, angles, gains = [], [], []
    image = torch.full((4, 1, 32, 32), 0.5)
    for seed in range(60):
        warped = augment(image, AugmentationConfig(), generator_of(seed))
        linear = warped.source_from_warped[:, :, :2].double()
        scale = linear.det().rsqrt()
        assert (scale - scale[0]).abs().max() < 1e-6, "one scale for the batch"
        scales.append(float(scale[0]))
        assert abs(warped.images.shape[-1] - 32 * scales[-1]) <= 0.5
        angles += torch.rad2deg(torch.atan2(linear[:, 0, 1], linear[:, 0, 0])).tolist()
        gains += (warped.images.mean((1, 2, 3)) / 0.5).tolist()
    assert 1 / 1.5 - 1e-6 < min(scales) < 0.75 and 1.4 < max(scales) < 1.5 + 1e-6
    assert -15 - 1e-3 < min(angles) < -13.5 and 13.5 < max(angles) < 15 + 1e-3
    assert 0.9 - 1e-3 < min(gains) < 0.91 and 1.09 < max(gains) < 1.1 + 1e-3
    assert len({round(angle, 4) for angle in angles}) > 200, "each image has an angle of its own"


def test_contrast_stretches_about_the_mean():
    image = 0.3 + 0.4 * smooth_texture(8, 2)
    config = AugmentationConfig(max_scale=1.0, max_rotation_deg=0.0, brightness=0.0, contrast=0.2)
    warped = augment(image, config, generator_of(3)).images
    torch.testing.assert_close(warped.mean((1, 2, 3)), image.mean((1, 2, 3)), atol=1e-5, rtol=0)
    factor = warped.std((1, 2, 3)) / image.std((1, 2, 3))
    assert 0.8 <= factor.min() < 0.95 and 1.05 < factor.max() <= 1.2


def test_grey_values_stay_between_black_and_white():
    config = AugmentationConfig(brightness=0.5, contrast=0.5)
    warped = augment((smooth_texture(4, 3) > 0.5).float(), config, generator_of(1)).images
    assert warped.min() >= 0 and warped.max() <= 1


def test_a_reduced_image_is_smoothed_first():
    """Stripes of one pixel are finer than the reduced image can show; unsmoothed they would beat."""
    stripes = (torch.arange(WIDTH) % 2).float().expand(1, 1, HEIGHT, WIDTH)
    config = AugmentationConfig(max_scale=1.5, max_rotation_deg=0.0, brightness=0.0, contrast=0.0)
    for seed in range(20):
        warped = augment(stripes, config, generator_of(seed))
        scale = float(warped.source_from_warped[0, 0, 0]) ** -1
        if scale < 0.72:
            sampled = torch.nn.functional.interpolate(stripes, size=warped.images.shape[-2:], mode="bilinear")
            assert warped.images[..., 2:-2].std() < 0.6 * sampled[..., 2:-2].std()
            return
    raise AssertionError("no small scale was drawn")


def test_the_same_draws_give_the_same_images(device):
    images = smooth_texture(2, 4).to(device)
    first, again, other = (augment(images, AugmentationConfig(), generator_of(seed)) for seed in (7, 7, 8))
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.source_from_warped, other.source_from_warped)
