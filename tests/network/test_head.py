"""The head's size, its homogeneous output, and heads rebuilt from saved numbers."""

import math

import pytest
import torch

from acezero_gpu.network import Head, HeadConfig, ensemble_of, head_from_state, parameter_count


def constant_head(output: list[float], centre: torch.Tensor, device: torch.device) -> Head:
    """A head whose last layer gives the same four numbers for every input."""
    head = Head(8, HeadConfig(width=16), centre).to(device).requires_grad_(False)
    head.output.weight.zero_()
    head.output.bias.copy_(torch.tensor(output))
    return head


def test_it_has_the_size_of_aces():
    head = Head(512, HeadConfig(width=512, blocks=1), torch.zeros(3))
    assert parameter_count(head) == 8 * (512 * 512 + 512) + 513 * 4
    assert parameter_count(head) == pytest.approx(2.10e6, rel=0.005)


@pytest.mark.parametrize("blocks", [0, 1, 3])
def test_each_block_adds_three_layers(blocks):
    layers = parameter_count(Head(64, HeadConfig(width=64, blocks=blocks), torch.zeros(3)))
    assert layers == (5 + 3 * blocks) * 65 * 64 + 65 * 4


def test_a_divisor_of_one_at_zero(device):
    centre = torch.tensor([10.0, -20.0, 30.0])
    points = constant_head([1.0, 2.0, -3.0, 0.0], centre, device)(torch.randn(5, 8).to(device))
    torch.testing.assert_close(points.cpu(), (centre + torch.tensor([1.0, 2.0, -3.0])).expand(5, 3))


@pytest.mark.parametrize("w, stretch", [(-1e4, 4.0), (1e4, 0.01)])
def test_the_divisor_stays_between_a_quarter_and_a_hundred(device, w, stretch):
    points = constant_head([1.0, 2.0, -3.0, w], torch.zeros(3), device)(torch.zeros(1, 8, device=device))
    torch.testing.assert_close(points[0].cpu(), stretch * torch.tensor([1.0, 2.0, -3.0]))


def test_the_divisor_is_the_softplus_of_the_paper(device):
    beta = math.log(2) / 0.75
    for w in (-2.0, -0.3, 0.7, 5.0):
        divisor = math.log1p(math.exp(beta * w)) / beta + 0.25
        points = constant_head([1.0, 0.0, 0.0, w], torch.zeros(3), device)(torch.zeros(1, 8, device=device))
        assert float(points[0, 0]) == pytest.approx(1 / divisor, rel=1e-5)


def test_every_parameter_receives_a_gradient(device, generator):
    head = Head(24, HeadConfig(width=32, blocks=2), torch.zeros(3)).to(device)
    head(torch.randn(64, 24, generator=generator).to(device)).square().sum().backward()
    assert all(
        parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in head.parameters()
    )


@pytest.mark.parametrize("channels, width, blocks", [(24, 24, 1), (24, 40, 0), (16, 8, 3)])
def test_a_head_is_rebuilt_from_its_numbers_alone(device, generator, channels, width, blocks):
    head = Head(channels, HeadConfig(width, blocks), torch.randn(3, generator=generator)).to(device)
    again = head_from_state(head.state_dict()).to(device)
    assert again.config == head.config
    features = torch.randn(10, channels, generator=generator).to(device)
    torch.testing.assert_close(again(features), head(features), atol=0, rtol=0)


def some_heads(generator: torch.Generator, count: int = 3) -> list[Head]:
    heads = []
    for row in range(count):
        head = Head(12, HeadConfig(width=16, blocks=2), torch.full((3,), 10.0 * row))
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.copy_(0.4 * torch.randn(parameter.shape, generator=generator))
        heads.append(head)
    return heads


def test_an_ensemble_is_its_heads(device, generator):
    heads = [head.to(device) for head in some_heads(generator)]
    ensemble = ensemble_of(heads).to(device)
    assert (ensemble.count, heads[0].count) == (3, 1)
    own = torch.randn(3, 7, 12, generator=generator).to(device)
    alone = torch.stack([head(row) for head, row in zip(heads, own, strict=True)])
    torch.testing.assert_close(ensemble(own), alone, atol=1e-4, rtol=1e-4)
    same = torch.stack([head(own[0]) for head in heads])
    torch.testing.assert_close(ensemble.of_all(own[0]), same, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(heads[1].of_all(own[0])[0], same[1], atol=1e-5, rtol=1e-5)


def test_each_head_of_an_ensemble_gets_the_gradient_of_a_head_alone(device, generator):
    heads = [head.to(device) for head in some_heads(generator)]
    ensemble = ensemble_of(heads).to(device)
    features = torch.randn(3, 9, 12, generator=generator).to(device)
    ensemble(features).square().sum().backward()
    for row, head in enumerate(heads):
        head(features[row]).square().sum().backward()
        for (name, joint), (other, single) in zip(
            ensemble.named_parameters(), head.named_parameters(), strict=True
        ):
            assert name == other
            scale = float(single.grad.abs().max())
            torch.testing.assert_close(joint.grad[row], single.grad, atol=1e-4 * scale, rtol=1e-3)


def test_a_saved_ensemble_comes_back_and_takes_lowered_precision(device, generator):
    ensemble = ensemble_of(some_heads(generator)).to(device)
    again = head_from_state(ensemble.state_dict()).to(device)
    assert again.count == 3
    assert again.config == ensemble.config
    features = torch.randn(5, 12, generator=generator).to(device)
    torch.testing.assert_close(again.of_all(features), ensemble.of_all(features))
    with torch.autocast(device.type, torch.bfloat16):
        lowered = ensemble.of_all(features)
    assert lowered.dtype == torch.float32
    exact = ensemble.of_all(features)
    assert (lowered - exact).abs().max() < 0.05 * exact.abs().max()


def test_one_head_makes_no_ensemble(generator):
    head = some_heads(generator, 1)[0]
    assert ensemble_of([head]) is head
    with pytest.raises(ValueError, match="no others"):
        head.one(0)


def test_a_head_of_an_ensemble_by_itself_is_what_it_was(device, generator):
    heads = [head.to(device) for head in some_heads(generator)]
    ensemble = ensemble_of(heads).to(device)
    features = torch.randn(5, 12, generator=generator).to(device)
    for index, head in enumerate(heads):
        alone = ensemble.one(index)
        assert (alone.count, alone.config) == (1, head.config)
        torch.testing.assert_close(alone(features), head(features), atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        ensemble.output.weight.zero_()
    assert (alone.output.weight != 0).any(), "a copy must not change with the ensemble"
