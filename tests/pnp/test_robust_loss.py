"""Robust losses keep the digits of small residuals, which exact data end in."""

from fractions import Fraction

import pytest
import torch
from reference.posed_scene import make_scene

from acezero_gpu.geometry import retract
from acezero_gpu.pnp import PoseStatus, RefinementConfig, refine_implicit, robust_loss


def exact(name: str, squared: float, scale: float) -> Fraction:
    s_2, r_2 = Fraction(scale) ** 2, Fraction(squared)
    if name == "tukey":
        return s_2 / 3 * (1 - (1 - min(r_2 / s_2, Fraction(1))) ** 3)
    return min(r_2, s_2)


@pytest.mark.parametrize("name", ["tukey", "truncated"])
@pytest.mark.parametrize("scale", [0.1, 30.0])
def test_losses_are_exact_up_to_two_roundings_at_any_size(name, scale, dtype):
    share = torch.logspace(-12, 1, 300, dtype=dtype)
    squared = share * scale**2
    for r_2, value in zip(squared.tolist(), robust_loss(name).loss(squared, scale).tolist(), strict=True):
        truth = exact(name, r_2, scale)
        assert abs(Fraction(value) - truth) < 3 * torch.finfo(dtype).eps * truth, r_2


@pytest.mark.parametrize("name", ["tukey", "truncated"])
def test_residuals_without_bound_cost_a_constant(name, dtype):
    loss = robust_loss(name)
    cost = loss.loss(torch.tensor([900.0, 1e30, torch.inf], dtype=dtype), 30.0)
    torch.testing.assert_close(cost, cost[0].expand(3))
    assert torch.equal(loss.weight(torch.tensor([1e30, torch.inf], dtype=dtype), 30.0), cost.new_zeros(2))


@pytest.mark.parametrize("name", ["squared", "huber", "cauchy", "truncated", "tukey"])
def test_exact_data_converge(name, dtype):
    scene = make_scene(20, rows=6, columns=8, dtype=dtype)
    g = torch.Generator().manual_seed(1)
    initial = retract(scene.cam_from_world, 0.005 * torch.randn(20, 6, generator=g, dtype=torch.float64))
    config = RefinementConfig(iterations=20, loss=name, loss_scale_px=30.0)
    refined = refine_implicit(scene.points, scene.pixels, scene.camera, initial.to(dtype), config)
    assert (refined.status == PoseStatus.OK).all()
    rotation_deg, distance = scene.errors(refined.cam_from_world)
    precision = torch.finfo(dtype).eps
    assert rotation_deg.max() < 1e3 * precision
    assert distance.max() < 100 * precision
