"""Dense SIFT: against a twin that sums pixel by pixel, and by what a shift, a mirror and a lamp must do."""

import numpy as np
import pytest
import torch
from reference.slow_dense_sift import slow_descriptor
from torch import Tensor

from acezero_gpu.network import DenseSiftEncoder

SIZES = (4, 8, 16)


def texture(height: int, width: int, generator: torch.Generator) -> Tensor:
    """Noise at several scales within [0.2, 0.8]."""
    image = torch.zeros(1, 1, height, width)
    for cell in (2, 4, 8):
        noise = torch.rand(1, 1, height // cell + 2, width // cell + 2, generator=generator)
        image += torch.nn.functional.interpolate(noise, size=(height, width), mode="bilinear") / 3
    return 0.2 + 0.6 * image.clamp(0, 1)


def by_bins(features: Tensor) -> Tensor:
    """``(b, sizes, bin row, bin column, orientation, rows, columns)``."""
    return features.unflatten(1, (-1, 4, 4, 8))


@pytest.mark.parametrize("height, width", [(40, 48), (43, 55), (16, 20)])
def test_equals_the_sum_over_pixels(device, generator, height, width):
    image = texture(height, width, generator)
    features = DenseSiftEncoder(SIZES).to(device)(image.to(device))[0].cpu()
    assert features.shape[1:] == (height // 8, width // 8)
    plain = image[0, 0].double().numpy()
    for row, column in [(0, 0), (height // 16, width // 16), (height // 8 - 1, width // 8 - 1)]:
        expected = np.concatenate([slow_descriptor(plain, row, column, size) for size in SIZES])
        assert np.abs(features[:, row, column].numpy() - expected).max() < 2e-3


def test_a_shift_by_one_cell_shifts_the_features(device, generator):
    image = texture(184, 176, generator).to(device)
    encoder = DenseSiftEncoder(SIZES).to(device)
    before, after = encoder(image[..., :176, :168]), encoder(image[..., 8:184, 8:176])
    # Farther than 49 pixels from the border no window, blur or difference reaches it.
    inside = slice(7, -7)
    moved = before[..., 8:-6, 8:-6]
    torch.testing.assert_close(after[..., inside, inside], moved, atol=2e-4, rtol=0)
    assert (before[..., inside, inside] - after[..., inside, inside]).abs().max() > 0.5


def test_a_mirrored_image_has_mirrored_bins_and_orientations(device, generator):
    image = texture(64, 80, generator).to(device)
    encoder = DenseSiftEncoder(SIZES).to(device)
    features, mirrored = by_bins(encoder(image)), by_bins(encoder(image.flip(-1)))
    opposite = [(4 - o) % 8 for o in range(8)]
    torch.testing.assert_close(mirrored.flip(-1).flip(3)[:, :, :, :, opposite], features, atol=1e-3, rtol=0)
    upside_down = by_bins(encoder(image.flip(-2)))
    opposite = [-o % 8 for o in range(8)]
    torch.testing.assert_close(
        upside_down.flip(-2).flip(2)[:, :, :, :, opposite], features, atol=1e-3, rtol=0
    )


@pytest.mark.parametrize("direction, orientation", [((1.0, 0.0), 0), ((0.0, 1.0), 2), ((-1.0, 0.0), 4)])
def test_orientations_count_from_rightwards_towards_downwards(device, direction, orientation):
    v, u = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    ramp = 0.5 + (direction[0] * (u - 32) + direction[1] * (v - 32)) / 128
    features = by_bins(DenseSiftEncoder((4,))(ramp[None, None].to(device)))[0, 0, :, :, :, 3:5, 3:5]
    share = features.square().sum((0, 1)) / features.square().sum((0, 1, 2))
    assert share[orientation].min() > 0.99


def test_contrast_and_brightness_do_not_matter(device, generator):
    image = texture(48, 64, generator).to(device)
    encoder = DenseSiftEncoder(SIZES).to(device)
    torch.testing.assert_close(encoder(0.3 * image + 0.1), encoder(image), atol=5e-3, rtol=0)


def test_every_descriptor_has_unit_mean_square(device, generator):
    image = texture(48, 64, generator).to(device)
    features = DenseSiftEncoder(SIZES).to(device)(image).unflatten(1, (3, 128))
    torch.testing.assert_close(
        features.square().mean(2), torch.ones_like(features[:, :, 0]), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_a_constant_image_gives_finite_features_and_disturbs_no_neighbour(device, generator, value):
    image = texture(48, 64, generator).to(device)
    encoder = DenseSiftEncoder(SIZES).to(device)
    together = encoder(torch.cat([torch.full_like(image, value), image]))
    assert together.isfinite().all()
    torch.testing.assert_close(together[1:], encoder(image))


def test_bin_sizes_that_leave_the_lattice_are_refused():
    with pytest.raises(ValueError, match="multiples of 4"):
        DenseSiftEncoder((4, 6))


def test_the_identifier_tells_bin_sizes_apart():
    assert DenseSiftEncoder((4, 8)).identifier != DenseSiftEncoder((4, 16)).identifier
    assert DenseSiftEncoder((4, 8)).channels == 256
