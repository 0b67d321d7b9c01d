"""Encoders: the protocol, ACE's layer table, and weights files right and wrong."""

import pickle
from pathlib import Path

import pytest
import torch

from acezero_gpu.network import FEATURE_DTYPE, Encoder, encode, make_encoder, parameter_count
from acezero_gpu.network.ace_encoder import AceEncoder, load_ace_encoder


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "encoder.pt"
    torch.save(AceEncoder().state_dict(), path)
    return path


class Payload:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return Path.touch, (self.trace,)


def test_aces_encoder_has_its_size_and_stride():
    encoder = AceEncoder()
    assert parameter_count(encoder) == pytest.approx(5.57e6, rel=0.002)
    assert encoder(torch.rand(2, 1, 48, 64)).shape == (2, 512, 6, 8)
    assert encoder(torch.rand(1, 1, 55, 71)).shape == (1, 512, 6, 8)
    assert isinstance(encoder, Encoder)


def test_a_weights_file_is_read_back_and_frozen(device, generator, weights_file):
    encoder = make_encoder(str(weights_file), device)
    twin = AceEncoder()
    twin.load_state_dict(torch.load(weights_file, weights_only=True))
    images = torch.rand(2, 1, 32, 40, generator=generator)
    torch.testing.assert_close(encoder(images.to(device)).cpu(), twin(images).detach(), atol=2e-3, rtol=2e-3)
    assert (encoder.stride, encoder.channels) == (8, 512)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_the_identifier_follows_the_content_not_the_name(tmp_path, weights_file):
    copy = tmp_path / "renamed.pt"
    copy.write_bytes(weights_file.read_bytes())
    assert load_ace_encoder(copy).identifier == load_ace_encoder(weights_file).identifier
    state = torch.load(weights_file, weights_only=True)
    state["conv1.bias"][0] += 1
    torch.save(state, copy)
    assert load_ace_encoder(copy).identifier != load_ace_encoder(weights_file).identifier


def test_every_weight_has_an_effect(generator, weights_file):
    encoder = load_ace_encoder(weights_file).requires_grad_(True)
    encoder(torch.rand(1, 1, 32, 32, generator=generator)).square().sum().backward()
    assert [name for name, weight in encoder.named_parameters() if not weight.grad.any()] == []


@pytest.mark.parametrize("kind", ["missing layer", "wrong shape", "text", "list"])
def test_a_file_without_those_weights_is_refused_in_one_sentence(tmp_path, weights_file, kind):
    path = tmp_path / "wrong.pt"
    state = torch.load(weights_file, weights_only=True)
    if kind == "missing layer":
        del state["res2_skip.weight"]
    if kind == "wrong shape":
        state["conv1.weight"] = state["conv1.weight"][:16]
    if kind == "text":
        path.write_text("no weights")
    else:
        torch.save([1, 2, 3] if kind == "list" else state, path)
    with pytest.raises(ValueError, match="not the weights of an ACE encoder") as caught:
        make_encoder(str(path), torch.device("cpu"))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pickled_file_is_refused_without_running_it(tmp_path):
    trace = tmp_path / "trace"
    pickle.loads(pickle.dumps(Payload(trace)))
    assert trace.exists(), "the payload must work where it is let"
    trace.unlink()
    torch.save({"conv1.weight": Payload(trace)}, tmp_path / "bad.pt")
    with pytest.raises(ValueError, match="not the weights"):
        make_encoder(str(tmp_path / "bad.pt"), torch.device("cpu"))
    assert not trace.exists()


def test_a_missing_file_is_named():
    with pytest.raises(ValueError, match="nowhere.pt: no such file"):
        make_encoder("nowhere.pt", torch.device("cpu"))


def test_the_default_encoder_follows_the_protocol(device):
    encoder = make_encoder("dense-sift", device)
    assert isinstance(encoder, Encoder)
    assert encoder(torch.zeros(1, 1, 24, 40, device=device)).shape == (1, encoder.channels, 3, 5)


def test_chunks_do_not_matter_and_features_are_stored_in_half(device, generator):
    encoder = make_encoder("dense-sift", device)
    images = torch.rand(5, 1, 24, 32, generator=generator).to(device)
    features = encode(encoder, images, chunk=2)
    assert features.dtype == FEATURE_DTYPE
    assert features.element_size() == 2
    torch.testing.assert_close(features, encode(encoder, images, chunk=5))
    torch.testing.assert_close(features.float(), encoder(images), atol=0.02, rtol=0.01)


def test_the_encoder_of_the_package(device, generator):
    """It is found without a path, and its features tell one place from another."""
    encoder = make_encoder("acezero", device)
    assert encoder.identifier.startswith("learned-")
    # Smooth enough to be seen at half a cell's shift, rough enough to differ everywhere.
    coarse = torch.rand(1, 1, 24, 32, generator=generator).to(device)
    image = torch.nn.functional.interpolate(coarse, size=(192, 256), mode="bicubic").clamp(0, 1)
    features = torch.nn.functional.normalize(encoder(image).float(), dim=1)
    moved = torch.nn.functional.normalize(encoder(image.roll(16, dims=3)).float(), dim=1)
    inner = features[0, :, 6:-6, 6:-6].flatten(1)
    target = moved[0, :, 6:-6, 8:-4].flatten(1)
    assert (inner.T @ target).argmax(1).eq(torch.arange(inner.shape[1], device=device)).float().mean() > 0.9
