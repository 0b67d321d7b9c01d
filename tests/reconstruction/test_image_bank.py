"""The bank computes each thing once, and what it gives does not depend on what it gave before."""

from dataclasses import replace

import pytest
import torch
from reference.rendered_room import HEIGHT, WIDTH, tiny_bank, walked_room
from torch import Tensor

from acezero_gpu.data import LoadedImages
from acezero_gpu.mapping import BufferConfig
from acezero_gpu.network import DenseSiftEncoder, encode
from acezero_gpu.network.keypoint_orientation import OrientationConfig
from acezero_gpu.network.keypoints import detect_keypoints
from acezero_gpu.reconstruction import BankConfig, ImageBank


class CountingEncoder(DenseSiftEncoder):
    encoded = 0

    def forward(self, images: Tensor) -> Tensor:
        self.encoded += len(images)
        return super().forward(images)


def bank_of(
    device: torch.device, config: BankConfig | None = None, seed: int = 0, keypoint_scale: int = 1
) -> tuple[ImageBank, CountingEncoder]:
    loaded = walked_room().subset(list(range(6))).loaded()
    larger = loaded.pixels.repeat_interleave(keypoint_scale, 2).repeat_interleave(keypoint_scale, 3)
    encoder = CountingEncoder().to(device)
    config = config or replace(tiny_bank(), buffer=BufferConfig(max_passes=2, encode_batch=2))
    return ImageBank(loaded, LoadedImages(loaded.image_set, larger), encoder, config, device, seed), encoder


def test_features_are_computed_once(device):
    bank, encoder = bank_of(device)
    first = bank.features(torch.tensor([4, 1]))
    again = bank.features(torch.tensor([1, 2, 4]))
    assert encoder.encoded == 3
    assert torch.equal(again[[2, 0]], first)
    direct = encode(DenseSiftEncoder().to(device), bank.images.batch([4, 1], device))
    assert torch.equal(first, direct)
    assert bank.grid == (HEIGHT // 8, WIDTH // 8) == tuple(first.shape[-2:])


def test_without_room_features_are_computed_again_and_are_the_same(device):
    bank, _ = bank_of(device)
    small, encoder = bank_of(device, replace(bank.config, feature_cache_bytes=1000))
    indices = torch.tensor([3, 0])
    assert torch.equal(small.features(indices), bank.features(indices))
    small.features(indices)
    assert encoder.encoded == 4


def test_patches_cost_one_encoding_per_image_and_pass(device):
    bank, encoder = bank_of(device)
    bank.features(torch.arange(6))
    bank.fill_buffer(torch.tensor([0, 1, 2]))
    assert encoder.encoded == 6 + 3, "the plain images are not encoded again"
    bank.fill_buffer(torch.tensor([2, 1, 0]))
    assert encoder.encoded == 9


def test_patches_do_not_depend_on_what_was_encoded_before(device):
    first, _ = bank_of(device)
    second, _ = bank_of(device)
    first.fill_buffer(torch.tensor([0, 1, 2, 3]))
    for pair in ([2, 3], [0, 1]):
        second.fill_buffer(torch.tensor(pair))
    assert torch.equal(first.buffer.pixels[:4], second.buffer.pixels[:4])
    assert torch.equal(first.buffer.features[:4], second.buffer.features[:4])
    other, _ = bank_of(device, seed=1)
    other.fill_buffer(torch.tensor([0, 1]))
    assert not torch.equal(other.buffer.pixels[:2], first.buffer.pixels[:2])


def test_keypoints_are_in_pixels_of_the_network_image(device):
    """Found in an image twice as large, they lie where they lie in the small one."""
    bank, _ = bank_of(device, keypoint_scale=2)
    found = bank.keypoints(torch.tensor([2]))
    large = detect_keypoints(
        torch.nn.functional.interpolate(bank.images.batch([2], device), scale_factor=2),
        bank.config.keypoints,
        upright=bank.upright,
    )
    torch.testing.assert_close(2 * found.pixels[2], large.pixels[0])
    assert found.valid[2].sum() > 150
    assert not found.valid[[0, 1, 3, 4, 5]].any()
    assert (found.pixels[2][found.valid[2]] < torch.tensor([WIDTH, HEIGHT], device=device)).all()


def test_keypoints_of_further_images_are_added(device, monkeypatch):
    bank, _ = bank_of(device)
    described: list[int] = []

    def counting(images, config, *, upright):
        described.append(len(images))
        return detect_keypoints(images, config, upright=upright)

    monkeypatch.setattr("acezero_gpu.reconstruction.image_bank.detect_keypoints", counting)
    first = bank.keypoints(torch.tensor([1])).pixels[1].clone()
    both = bank.keypoints(torch.tensor([1, 4, 1]))
    assert described == [1, 1]
    assert both.valid.any(1).tolist() == [False, True, False, False, True, False]
    assert torch.equal(both.pixels[1], first)


@pytest.mark.parametrize("upright", ["yes", "no"])
def test_keypoints_are_upright_where_the_settings_say_so(device, upright):
    bank, _ = bank_of(device, replace(tiny_bank(), orientation=OrientationConfig(upright=upright)))
    found = bank.keypoints(torch.tensor([0]))
    image = bank.images.batch([0], device)
    wanted = detect_keypoints(image, bank.config.keypoints, upright=upright == "yes")
    other = detect_keypoints(image, bank.config.keypoints, upright=upright == "no")
    torch.testing.assert_close(found.descriptors[0], wanted.descriptors[0])
    assert not torch.equal(found.descriptors[0], other.descriptors[0])


def test_keypoints_are_upright_if_cameras_keep_level_and_pairs_gain_by_it(device):
    """In the room upright keypoints have 0.93 times the matches."""

    def upright(min_gain: float, *, rolled: bool = False) -> bool:
        loaded = walked_room().loaded()
        pixels = loaded.pixels.clone()
        if rolled:
            pixels[::2] = pixels[::2].flip(-1, -2)
        images = LoadedImages(loaded.image_set, pixels)
        config = replace(tiny_bank(), orientation=OrientationConfig(min_gain=min_gain))
        return ImageBank(images, images, DenseSiftEncoder().to(device), config, device, 0).upright

    assert upright(0.8)
    assert not upright(1.05)
    assert not upright(0.2, rolled=True)


def test_one_image_tells_nothing_of_how_cameras_are_held(device):
    single = walked_room().subset([0]).loaded()
    assert not ImageBank(single, single, DenseSiftEncoder().to(device), tiny_bank(), device, 0).upright


def test_its_camera_is_that_of_the_file_scaled(device):
    bank, _ = bank_of(device)
    camera = bank.camera(140.0)
    assert bank.focal_original_px(camera) == pytest.approx(140.0)
    assert camera.principal_point_px.tolist() == [WIDTH / 2, HEIGHT / 2]
    assert bank.pixel_scale == 0.25


def test_focal_lengths_refer_to_the_file_not_to_the_network_image(device):
    loaded = walked_room().subset([0, 1]).loaded()
    stored = replace(loaded.image_set, width=4 * WIDTH, height=4 * HEIGHT)
    shrunk = LoadedImages(stored, loaded.pixels)
    bank = ImageBank(shrunk, shrunk, DenseSiftEncoder().to(device), tiny_bank(), device, 0)
    camera = bank.camera(560.0)
    assert camera.focal_px.tolist() == pytest.approx([140.0, 140.0])
    assert camera.principal_point_px.tolist() == [WIDTH / 2, HEIGHT / 2]
    assert bank.focal_original_px(camera) == pytest.approx(560.0)


def test_similarity_is_symmetric_and_greatest_to_oneself(device):
    similarity = bank_of(device)[0].similarity()
    torch.testing.assert_close(similarity, similarity.T)
    torch.testing.assert_close(similarity.diagonal(), torch.ones(6, device=device), atol=1e-4, rtol=0)
    assert (similarity <= 1 + 1e-4).all()
