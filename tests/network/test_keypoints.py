"""Keypoints and matches: positions against drawn blobs, matches against kornia's and a known warp."""

from dataclasses import replace

import kornia.feature as KF
import pytest
import torch

from acezero_gpu.network.keypoints import (
    KeypointConfig,
    Keypoints,
    detect_keypoints,
    match_keypoints,
    match_pairs,
)


def blob_image(centres_px: list[tuple[float, float]], height: int, width: int, sigma: float) -> torch.Tensor:
    """Bright Gaussian blobs; the centre of the top-left pixel is (0.5, 0.5)."""
    v, u = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    image = torch.zeros(height, width)
    for x, y in centres_px:
        image += 0.8 * torch.exp(-((u - x) ** 2 + (v - y) ** 2) / (2 * sigma**2))
    return image[None, None]


def textured_image(height: int, width: int, generator: torch.Generator) -> torch.Tensor:
    """Noise at several scales: plenty of distinct keypoints."""
    image = torch.zeros(1, 1, height, width)
    for cell in (4, 8, 16, 32):
        noise = torch.rand(1, 1, height // cell, width // cell, generator=generator)
        image += torch.nn.functional.interpolate(noise, size=(height, width), mode="bicubic") / 4
    return image.clamp(0, 1)


def random_keypoints(rows: int, slots: int, generator: torch.Generator, device: torch.device) -> Keypoints:
    descriptors = torch.nn.functional.normalize(torch.rand(rows, slots, 128, generator=generator), dim=-1)
    valid = torch.rand(rows, slots, generator=generator) < 0.8
    descriptors = torch.where(valid[..., None], descriptors, 0.0)
    pixels = torch.rand(rows, slots, 2, generator=generator) * 100
    return Keypoints(*(x.to(device) for x in (pixels, descriptors, valid.float(), valid)))


@pytest.fixture(params=["kornia", "opencv"])
def library(request, device):
    """Whose SIFT."""
    if request.param == "opencv" and device.type != "cpu":
        pytest.skip("OpenCV finds keypoints on the CPU only")
    return request.param


@pytest.mark.parametrize("sigma", [2.0, 4.0])
@pytest.mark.parametrize("upright", [False, True])
def test_pixels_follow_the_corner_convention(device, library, sigma, upright):
    # None half-way between two pixels of the doubled image: such a blob has two equal maxima, hence none.
    centres = [(30.5, 30.5), (126.2, 41.4), (130.6, 120.5), (33.3, 110.85)]
    image = blob_image(centres, 150, 160, sigma).to(device)
    # A round blob has no orientation of its own: OpenCV gives it many, each with a slot.
    config = KeypointConfig(library=library, per_image=8 if library == "kornia" or upright else 128)
    keypoints = detect_keypoints(image, config, upright=upright)
    assert keypoints.valid[0, : len(centres)].all()
    distance = torch.cdist(torch.tensor(centres), keypoints.pixels[0].cpu()).amin(1)
    # half a pixel of wrong convention would show: the detector itself is exact to a tenth
    assert distance.max() < 0.12


def test_blank_image_has_no_valid_slot_and_disturbs_no_neighbour(device, library, generator):
    config = KeypointConfig(library=library, per_image=64)
    image = textured_image(96, 96, generator).to(device)
    together = detect_keypoints(torch.cat([torch.zeros_like(image), image]), config)
    alone = detect_keypoints(image, config)
    assert together.pixels.shape == (2, 64, 2)
    assert not together.valid[0].any()
    assert alone.valid.any()
    torch.testing.assert_close(together.pixels[1], alone.pixels[0])
    torch.testing.assert_close(together.descriptors[1], alone.descriptors[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("upright", [False, True])
def test_slots_are_full_and_the_strongest_come_first(device, library, upright, generator):
    image = textured_image(160, 200, generator).to(device)
    config = KeypointConfig(library=library, per_image=100, half_descriptors=False)
    found = detect_keypoints(image, config, upright=upright)
    assert found.valid.float().mean() > 0.8
    assert (found.scores.diff() <= 0).all()
    norms = found.descriptors.norm(dim=-1)[found.valid]
    torch.testing.assert_close(norms, torch.ones_like(norms), atol=1e-3, rtol=0)
    assert (found.descriptors >= 0).all()


def test_opencv_is_the_cpus(device, generator):
    image = textured_image(96, 96, generator).to(device)
    config = KeypointConfig(library="opencv", per_image=64)
    if device.type == "cpu":
        found = detect_keypoints(image, KeypointConfig(per_image=64))
        assert torch.equal(found.pixels, detect_keypoints(image, config).pixels)
        return
    with pytest.raises(ValueError, match="CPU only"):
        detect_keypoints(image, config)


def test_no_images(device):
    keypoints = detect_keypoints(torch.zeros(0, 1, 64, 64, device=device), KeypointConfig(per_image=5))
    assert keypoints.pixels.shape == (0, 5, 2)
    assert keypoints.descriptors.shape == (0, 5, 128)


def test_shift_is_recovered(device, library, generator):
    image = textured_image(160, 200, generator).to(device)
    a, b = image[..., 0:140, 0:180], image[..., 16:156, 12:192]
    config = KeypointConfig(library=library, per_image=256, half_descriptors=True)
    keypoints = detect_keypoints(torch.cat([a, b]), config)
    assert keypoints.descriptors.dtype == torch.float16
    first, second = keypoints.select(torch.tensor([0])), keypoints.select(torch.tensor([1]))
    matches = match_keypoints(first, second, config)
    shift = (matches.pixels_a(first) - matches.pixels_b(second))[matches.matched]
    expected = torch.tensor([12.0, 16.0], device=device)
    close = ((shift - expected).norm(dim=-1) < 0.5).float().mean()
    assert matches.matched.sum() > 60
    assert close > 0.97


def test_matches_equal_kornias_one_pair_at_a_time(device, generator):
    a, b = random_keypoints(5, 60, generator, device), random_keypoints(5, 45, generator, device)
    config = KeypointConfig(max_ratio=0.97, matching_budget_bytes=2 * 4 * 60 * 45 * 2)
    matches = match_keypoints(a, b, config)
    assert matches.matched.any(1).all()
    for row in range(5):
        rows_a, rows_b = a.valid[row].nonzero()[:, 0], b.valid[row].nonzero()[:, 0]
        ratios, index = KF.match_smnn(a.descriptors[row, rows_a], b.descriptors[row, rows_b], 0.97)
        expected = torch.full((60,), -1, device=device)
        expected[rows_a[index[:, 0]]] = rows_b[index[:, 1]]
        assert torch.equal(matches.index_b[row], expected)
        torch.testing.assert_close(matches.ratio[row, rows_a[index[:, 0]]], ratios[:, 0], atol=1e-4, rtol=0)


def test_pairs_equal_selected_rows(device, generator):
    keypoints = random_keypoints(4, 50, generator, device)
    pairs = torch.tensor([[0, 1], [2, 3], [3, 0], [1, 1]], device=device)
    config = KeypointConfig(max_ratio=0.98)
    by_pairs = match_pairs(keypoints, pairs, config)
    by_rows = match_keypoints(keypoints.select(pairs[:, 0]), keypoints.select(pairs[:, 1]), config)
    assert torch.equal(by_pairs.index_b, by_rows.index_b)
    torch.testing.assert_close(by_pairs.ratio, by_rows.ratio)
    # an image against itself: each valid slot finds itself
    own = torch.where(keypoints.valid[1], torch.arange(50, device=device), -1)
    assert torch.equal(by_pairs.index_b[3], own)


def test_pairs_are_matched_by_their_strongest_keypoints_or_by_all(device, generator):
    keypoints = random_keypoints(2, 50, generator, device)
    pair = torch.tensor([[0, 1]], device=device)
    config = KeypointConfig(max_ratio=0.98, matched=20)
    first = keypoints.strongest(20)
    assert first.pixels.shape == (2, 20, 2)
    few = match_pairs(keypoints, pair, config)
    assert torch.equal(few.index_b, match_pairs(first, pair, config).index_b)
    both = keypoints.select(pair[:, 0]), keypoints.select(pair[:, 1])
    assert few.pixels_a(both[0]).shape == few.pixels_b(both[1]).shape
    every = match_pairs(keypoints, pair, config, every=True)
    assert every.index_b.shape == (1, 50)
    assert torch.equal(every.index_b, match_pairs(keypoints, pair, replace(config, matched=50)).index_b)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_candidates_stay_unmatched(device, generator, count):
    a, b = random_keypoints(1, 20, generator, device), random_keypoints(1, 20, generator, device)
    b.valid[:] = torch.arange(20, device=device) < count
    matches = match_keypoints(a, b)
    assert not matches.matched.any()
    assert (matches.ratio == 1).all()
    single = match_keypoints(a, random_keypoints(1, 1, generator, device))
    assert not single.matched.any()
