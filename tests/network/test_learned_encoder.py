"""The learned encoder: shapes, invariance, size, and files that are none."""

import json
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.utils.flop_counter import FlopCounterMode

from acezero_gpu.network import make_encoder
from acezero_gpu.network.encoder import encode
from acezero_gpu.network.learned_encoder import (
    LearnedEncoder,
    LearnedEncoderConfig,
    encoder_bytes,
    load_learned_encoder,
    locally_normalised,
)

SMALL = LearnedEncoderConfig(channels=16, width=16, coarser_levels=1)


def network(config: LearnedEncoderConfig = SMALL) -> LearnedEncoder:
    """With batch statistics that are not those of a fresh network."""
    torch.manual_seed(0)
    encoder = LearnedEncoder(config)
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 2.0)
    return encoder.eval()


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "encoder.safetensors"
    path.write_bytes(encoder_bytes(network()))
    return path


@pytest.mark.parametrize("size", [(64, 80), (67, 85), (16, 16), (120, 56)])
def test_one_feature_of_unit_mean_square_per_whole_cell(device, generator, size):
    encoder = network().ready().to(device)
    images = torch.rand(2, 1, *size, generator=generator).to(device)
    features = encoder(images)
    assert features.shape == (2, SMALL.channels, size[0] // 8, size[1] // 8)
    torch.testing.assert_close(features.square().mean(1), torch.ones_like(features[:, 0]))
    assert torch.equal(encoder(images[:1]), features[:1]) or torch.allclose(
        encoder(images[:1]), features[:1], atol=1e-5
    )


@pytest.mark.parametrize("size", [(64, 80), (67, 85), (16, 16), (8, 24)])
def test_two_scales_are_two_images_by_the_same_weights(device, generator, size):
    """The second half of a feature is that of the image at half its size, brought to the same cells."""
    images = torch.rand(2, 1, *size, generator=generator).to(device)
    one = network().ready().to(device)
    two = network(replace(SMALL, scales=2)).ready().to(device)
    features = two(images)
    assert two.channels == 2 * SMALL.channels
    assert features.shape == (2, two.channels, size[0] // 8, size[1] // 8)
    torch.testing.assert_close(features[:, : SMALL.channels], one(images))
    torch.testing.assert_close(features.square().mean(1), torch.ones_like(features[:, 0]))
    if size == (64, 80):
        half = torch.nn.functional.interpolate(images, size=(32, 40), mode="area")
        coarse = torch.nn.functional.interpolate(one(half), size=(8, 10), mode="bilinear")
        likeness = torch.nn.functional.cosine_similarity(features[:, SMALL.channels :], coarse)
        torch.testing.assert_close(likeness, torch.ones_like(likeness))


def test_brightness_and_contrast_leave_features_alone(device, generator):
    encoder = network().ready().to(device)
    image = torch.rand(1, 1, 96, 96, generator=generator).to(device)
    darker = encoder(0.5 * image + 0.2)
    assert torch.nn.functional.cosine_similarity(encoder(image), darker).min() > 0.99
    slope = torch.linspace(0.6, 1.0, 96, device=device)
    shaded = encoder(image * slope)
    assert torch.nn.functional.cosine_similarity(encoder(image), shaded).median() > 0.97


def test_flat_images_have_finite_features(device):
    encoder = network().ready().to(device)
    for grey in (0.0, 0.5, 1.0):
        assert torch.isfinite(encoder(torch.full((1, 1, 48, 48), grey, device=device))).all()
    assert locally_normalised(torch.full((1, 1, 48, 48), 0.3, device=device)).abs().max() < 1e-2


def test_folding_the_normalisation_changes_nothing(generator):
    image = torch.rand(1, 1, 64, 72, generator=generator)
    encoder = network()
    with torch.no_grad():
        before = encoder(image)
    torch.testing.assert_close(encoder.ready()(image), before, atol=1e-4, rtol=1e-4)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in encoder.modules())


def test_half_precision_is_near(device, generator):
    encoder = network(LearnedEncoderConfig()).ready().to(device)
    image = torch.rand(1, 1, 64, 64, generator=generator).to(device)
    half = encoder.bfloat16()(image.bfloat16()).float()
    whole = network(LearnedEncoderConfig()).ready().to(device)(image)
    assert torch.nn.functional.cosine_similarity(half, whole).min() > 0.99


def test_the_default_is_small_and_sees_far():
    encoder = network(LearnedEncoderConfig())
    assert len(encoder_bytes(encoder)) < 8e6
    with FlopCounterMode(display=False) as counter:
        network(LearnedEncoderConfig(scales=2)).ready()(torch.rand(1, 1, 480, 640))
    assert counter.get_total_flops() < 5e9
    image = torch.rand(1, 1, 320, 320, requires_grad=True)
    encoder(image)[0, :, 20, 20].sum().backward()
    touched = image.grad[0, 0].abs().sum(0).nonzero()[:, 0]
    assert touched.max() - touched.min() >= 80


def test_a_saved_encoder_comes_back(weights, device, generator):
    encoder = make_encoder(str(weights), device)
    assert encoder.identifier.startswith("learned-")
    assert encoder.identifier == load_learned_encoder(weights).identifier
    image = torch.rand(1, 1, 64, 64, generator=generator).to(device)
    expected = network().ready().to(device)(image)
    assert torch.nn.functional.cosine_similarity(encoder(image), expected).min() > 0.999
    assert not any(parameter.requires_grad for parameter in encoder.parameters())
    assert encode(encoder, image).shape == (1, SMALL.channels, 8, 8)


def test_files_that_are_no_encoder(weights, tmp_path, device):
    truncated, pickled, foreign, other = (tmp_path / f"{name}.safetensors" for name in "abcd")
    truncated.write_bytes(weights.read_bytes()[:500])
    pickled.write_bytes(pickle.dumps({"a": 1}))
    save_file({"a": torch.zeros(2)}, foreign)
    meta = {"format": "acezero-encoder-2", "config": {"channels": 8, "width": 8}}
    save_file({"a": torch.zeros(2)}, other, metadata={"encoder": json.dumps(meta)})
    said = {}
    for path in (truncated, pickled, foreign, other):
        with pytest.raises(ValueError, match=str(path)) as caught:
            make_encoder(str(path), device)
        said[path] = str(caught.value)
        assert "\n" not in said[path]
    assert "not a readable weights file" in said[truncated] and "not a readable" in said[pickled]
    assert "not an encoder of this program" in said[foreign]
    assert "do not fit" in said[other]
