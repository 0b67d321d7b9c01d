"""Muon's steps: orthogonal, of the size that they should have, and those of PyTorch's own Muon where it has one."""

import math

import pytest
import torch

from acezero_gpu.mapping import TrainingConfig
from acezero_gpu.mapping.muon import ENTRY_SIZE, Muon, orthogonalised
from acezero_gpu.mapping.training_step import head_optimisers
from acezero_gpu.network import Head, HeadConfig, ensemble_of


@pytest.mark.parametrize("shape", [(24, 24), (16, 40), (40, 16), (3, 2, 20, 12)])
def test_all_singular_values_become_about_one_and_directions_stay(device, generator, shape):
    matrices = torch.randn(shape, generator=generator).to(device)
    found = orthogonalised(100.0 * matrices)
    values = torch.linalg.svdvals(found.float())
    assert values.min() > 0.5 and values.max() < 1.3
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    exact = u @ vh
    cosine = (found * exact).flatten(-2).sum(-1) / (found.norm(dim=(-2, -1)) * exact.norm(dim=(-2, -1)))
    assert (cosine > 0.95).all()
    torch.testing.assert_close(orthogonalised(matrices), found, atol=3e-2, rtol=0)


def test_no_gradient_is_no_step(device):
    assert torch.equal(orthogonalised(torch.zeros(4, 6, device=device)), torch.zeros(4, 6, device=device))
    moved, left = (torch.nn.Parameter(torch.ones(4, 6, device=device)) for _ in range(2))
    moved.grad = torch.zeros_like(moved)
    Muon([moved, left], 0.1, weight_decay=0.5).step()
    torch.testing.assert_close(moved.detach(), torch.full((4, 6), 0.95, device=device))
    assert torch.equal(left.detach(), torch.ones(4, 6, device=device))


def test_entries_move_by_a_share_of_the_learning_rate(device, generator):
    parameter = torch.nn.Parameter(torch.zeros(48, 32, device=device))
    parameter.grad = torch.randn(48, 32, generator=generator).to(device)
    Muon([parameter], 0.01).step()
    size = parameter.detach().square().mean().sqrt()
    assert float(size) == pytest.approx(0.01 * ENTRY_SIZE, rel=0.2)


def scaled_step(gradients: list[torch.Tensor], scale: float | None, overflows: list[bool]) -> torch.Tensor:
    """What becomes of a matrix of ones, with the scale and the word on overflows that GradScaler hands over."""
    parameter = torch.nn.Parameter(torch.ones_like(gradients[0]))
    optimiser = Muon([parameter], 0.1, weight_decay=0.5)
    for gradient, overflow in zip(gradients, overflows, strict=True):
        parameter.grad = gradient.clone()
        if scale is not None:
            parameter.grad = parameter.grad * scale
            optimiser.grad_scale = torch.full((), scale, device=gradient.device)
            optimiser.found_inf = torch.full((), float(overflow), device=gradient.device)
        optimiser.step()
    return parameter.detach()


def test_a_gradient_that_overflowed_is_no_step(device, generator):
    first, second = torch.randn(2, 6, 4, generator=generator).to(device)
    plain = scaled_step([first, second], None, [False, False])
    torch.testing.assert_close(scaled_step([first, second], 1024.0, [False, False]), plain)
    broken = first.clone()
    broken[2, 1], broken[0, 0] = math.inf, math.nan
    torch.testing.assert_close(scaled_step([first, broken, second], 8.0, [False, True, False]), plain)
    assert torch.equal(scaled_step([broken], 8.0, [True]), torch.ones_like(first))


def test_grad_scaler_leaves_the_scale_to_it(device):
    """On a CPU too, so that the agreement with it is tried everywhere."""
    parameter = torch.nn.Parameter(torch.ones(4, 6, device=device))
    optimiser = Muon([parameter], 0.1)
    scaler = torch.amp.GradScaler(device.type, init_scale=4.0)
    scaler.scale((parameter * torch.arange(24.0, device=device).view(4, 6)).sum()).backward()
    scaler.step(optimiser)
    moved = parameter.detach().clone()
    assert (moved != 1).any() and moved.isfinite().all()
    scaler.update()
    parameter.grad = torch.full_like(parameter, math.inf)
    scaler.step(optimiser)
    assert torch.equal(parameter.detach(), moved)
    assert not hasattr(optimiser, "found_inf"), "the scaler takes back what it has lent"


def test_directions_are_refreshed_in_turns(device, generator):
    """Two matrices, one of them refreshed per step; the other goes on in its last direction."""
    matrices = [torch.nn.Parameter(torch.zeros(6, 4, device=device)) for _ in range(2)]
    optimiser = Muon(matrices, 0.1, weight_decay=0.0, refresh=2)
    moves = []
    for _ in range(4):
        before = [matrix.detach().clone() for matrix in matrices]
        for matrix in matrices:
            matrix.grad = torch.randn(6, 4, generator=generator).to(device)
        optimiser.step()
        moves.append([matrix.detach() - old for matrix, old in zip(matrices, before, strict=True)])
    for step in range(1, 4):
        for row in range(2):
            held = torch.allclose(moves[step][row], moves[step - 1][row], atol=1e-6)
            assert held == ((step + row) % 2 == 1)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this PyTorch has no Muon")
def test_the_steps_are_those_of_pytorchs_own(generator):
    """In bfloat16, which PyTorch's takes everywhere; hence the tolerance."""
    start = torch.randn(2, 24, 16, generator=generator)
    ours, theirs = ([torch.nn.Parameter(matrix.clone()) for matrix in start] for _ in range(2))
    mine = Muon(ours, 0.02, momentum=0.9, weight_decay=0.1)
    other = torch.optim.Muon(
        theirs, lr=0.02, momentum=0.9, weight_decay=0.1, nesterov=True, adjust_lr_fn="match_rms_adamw"
    )
    for _ in range(5):
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn(24, 16, generator=generator)
            b.grad = a.grad.clone()
        mine.step()
        other.step()
    for row, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        decay = (1 - 0.02 * 0.1) ** 5
        # PyTorch's step has a root mean square of 0.2 learning rates.
        torch.testing.assert_close(
            a.detach() - decay * start[row],
            ENTRY_SIZE / 0.2 * (b.detach() - decay * start[row]),
            atol=0.05 * 0.02 * ENTRY_SIZE * math.sqrt(5),
            rtol=0.05,
        )


def test_heads_of_an_ensemble_are_stepped_as_if_alone(device, generator):
    heads = [Head(12, HeadConfig(width=16), torch.zeros(3)).to(device) for _ in range(2)]
    ensemble = ensemble_of(heads).to(device)
    features = torch.randn(2, 30, 12, generator=generator).to(device)
    for head, own in ((ensemble, features), *zip(heads, features, strict=True)):
        head(own).square().sum().backward()
        for optimiser in head_optimisers(head, TrainingConfig()):
            optimiser.step()
    for row, head in enumerate(heads):
        for name, parameter in head.named_parameters():
            torch.testing.assert_close(
                ensemble.get_parameter(name)[row], parameter, atol=2e-5, rtol=1e-3, msg=name
            )


@pytest.mark.parametrize("name, expected", [("muon", 2), ("adamw", 1)])
def test_every_number_of_the_head_is_stepped_by_one_optimiser(name, expected):
    head = Head(12, HeadConfig(width=16, blocks=2), torch.zeros(3))
    optimisers = head_optimisers(head, TrainingConfig(optimiser=name))
    assert len(optimisers) == expected
    stepped = [id(p) for optimiser in optimisers for group in optimiser.param_groups for p in group["params"]]
    assert sorted(stepped) == sorted(id(parameter) for parameter in head.parameters())
    if name == "muon":
        shapes = {tuple(p.shape) for group in optimisers[0].param_groups for p in group["params"]}
        assert shapes == {(16, 12), (16, 16)}
