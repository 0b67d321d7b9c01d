"""Mapping losses: against hand-computed values, and gradients that never spoil a batch."""

import math

import pytest
import torch
from torch import Tensor

from acezero_gpu.geometry import PinholeCamera
from acezero_gpu.mapping import LossConfig
from acezero_gpu.mapping.losses import PatchLoss, patch_loss, soft_clamp_at

F_PX, CX, CY = 100.0, 50.0, 40.0


def camera(device: torch.device) -> PinholeCamera:
    return PinholeCamera(torch.tensor([F_PX, F_PX], device=device), torch.tensor([CX, CY], device=device))


def loss_of(
    points: list[list[float]],
    pixels: list[list[float]],
    config: LossConfig,
    device: torch.device,
    *,
    soft_clamp_px: float = 50.0,
    target_depth: list[float] | None = None,
) -> PatchLoss:
    return patch_loss(
        torch.tensor(points, device=device),
        torch.tensor(pixels, device=device),
        camera(device),
        config,
        soft_clamp_px=soft_clamp_px,
        target_depth=None if target_depth is None else torch.tensor(target_depth, device=device),
    )


POINT, PIXEL = [0.1, 0.2, 2.0], [52.0, 46.0]
"""Projects to (55, 50): an L1 error of 3 + 4 = 7 pixels."""


@pytest.mark.parametrize(
    "name, clamp, expected",
    [("l1", 50.0, 7.0), ("tanh", 50.0, 50 * math.tanh(0.14)), ("dyntanh", 5.0, 5 * math.tanh(1.4))],
)
def test_valid_predictions_cost_their_bounded_error(device, name, clamp, expected):
    result = loss_of([POINT], [PIXEL], LossConfig(name=name), device, soft_clamp_px=clamp)
    assert bool(result.valid)
    assert result.error_px.item() == pytest.approx(7.0, rel=1e-5)
    assert result.loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    "point",
    [[0.1, 0.2, 0.05], [0.1, 0.2, -2.0], [0.0, 0.0, 1000.5], [25.0, 0.0, 2.0]],
    ids=["near", "behind", "far", "beside"],
)
def test_invalid_predictions_are_pulled_to_ten_metres_on_their_ray(device, point):
    result = loss_of([point, POINT], [PIXEL, PIXEL], LossConfig(), device)
    target = [10 * (PIXEL[0] - CX) / F_PX, 10 * (PIXEL[1] - CY) / F_PX, 10.0]
    expected = sum(abs(a - b) for a, b in zip(point, target, strict=True))
    assert result.valid.tolist() == [False, True]
    assert result.loss[0].item() == pytest.approx(expected, rel=1e-5)
    assert result.loss[1].item() == pytest.approx(50 * math.tanh(0.14), rel=1e-5)


@pytest.mark.parametrize(
    "change, valid",
    [
        ({"min_depth": 2.1}, False),
        ({"max_depth": 1.9}, False),
        ({"hard_clamp_px": 6.9}, False),
        ({"hard_clamp_px": 7.1, "min_depth": 1.9, "max_depth": 2.1}, True),
    ],
)
def test_the_bounds_of_validity_are_the_configured_ones(device, change, valid):
    assert bool(loss_of([POINT], [PIXEL], LossConfig(**change), device).valid) is valid


@pytest.mark.parametrize(
    "progress, expected", [(0.0, 51.0), (0.6, 0.8 * 50 + 1), (0.8, 0.6 * 50 + 1), (1.0, 1.0)]
)
def test_the_clamp_of_dyntanh_shrinks_along_a_quarter_circle(progress, expected):
    original = LossConfig(name="dyntanh", wide_clamp_px=50.0, narrow_clamp_px=50.0)
    assert soft_clamp_at(original, progress) == pytest.approx(expected)
    assert soft_clamp_at(LossConfig(name="tanh"), progress) == 50.0


@pytest.mark.parametrize(
    "progress, expected", [(0.0, 301.0), (0.6, 0.8 * 300**0.4 * 25**0.6 + 1), (1.0, 1.0)]
)
def test_the_clamp_of_dyntanh_starts_wide(progress, expected):
    assert soft_clamp_at(LossConfig(name="dyntanh"), progress) == pytest.approx(expected)


def test_known_depths_decide_which_predictions_count(device):
    ray = [(PIXEL[0] - CX) / F_PX, (PIXEL[1] - CY) / F_PX, 1.0]
    near = [2.0 * x for x in ray[:2]] + [2.1]
    far = [2.0 * x for x in ray[:2]] + [2.5]
    result = loss_of([near, far, far], [PIXEL] * 3, LossConfig(), device, target_depth=[2.0, 2.0, 0.0])
    # 0.1 is within a tenth of the depth of 2, 0.5 is not; where no depth is known the error alone decides.
    assert result.valid.tolist() == [True, False, True]
    assert result.loss[1].item() == pytest.approx(0.5, rel=1e-4)
    error = abs(near[0] / 2.1 - ray[0]) * F_PX + abs(near[1] / 2.1 - ray[1]) * F_PX
    assert result.loss[0].item() == pytest.approx(50 * math.tanh(error / 50), rel=1e-4)


def test_a_prediction_behind_the_camera_is_pulled_to_its_known_depth(device):
    ray = torch.tensor([(PIXEL[0] - CX) / F_PX, (PIXEL[1] - CY) / F_PX, 1.0])
    point = torch.tensor([0.3, 0.1, -1.0])
    result = loss_of([point.tolist()] * 2, [PIXEL] * 2, LossConfig(), device, target_depth=[4.0, 0.0])
    assert not result.valid.any()
    expected = [float((point - depth * ray).norm()) for depth in (4.0, 10.0)]
    assert result.loss.tolist() == pytest.approx(expected, rel=1e-5)


def gradient_of(points: Tensor, pixels: Tensor, config: LossConfig) -> Tensor:
    points = points.clone().requires_grad_(True)
    loss = patch_loss(points, pixels, camera(points.device), config, soft_clamp_px=50.0).loss.sum()
    return torch.autograd.grad(loss, points)[0]


@pytest.mark.parametrize("name", ["tanh", "dyntanh", "l1"])
def test_gradients_are_finite_wherever_a_point_lies(device, generator, name):
    depth = torch.tensor([0.0, -1e-12, 1e-12, 1e-6, 0.1, -0.1, -5.0, 1e-3, 1e4, 1.0])
    points = torch.cat([torch.randn(10, 2, generator=generator), depth[:, None]], dim=-1).to(device)
    pixels = (100 * torch.rand(10, 2, generator=generator)).to(device)
    gradient = gradient_of(points, pixels, LossConfig(name=name))
    assert gradient.isfinite().all()
    assert (gradient.abs().amax(-1) > 0).all()
    # Pulled points feel a unit force, whatever 1/z would be there.
    assert gradient[:4].abs().max() <= 1.0


def test_points_behind_the_camera_come_to_the_front(device, generator):
    points = torch.randn(50, 3, generator=generator).to(device)
    points[:, 2] = -points[:, 2].abs() - 0.1
    pixels = (100 * torch.rand(50, 2, generator=generator)).to(device)
    for _ in range(60):
        points = points - 0.2 * gradient_of(points, pixels, LossConfig()).clamp(-1, 1)
    assert (points[:, 2] > 0.1).all()


def test_one_bad_prediction_leaves_the_others_alone(device, generator):
    points = torch.tensor([POINT, POINT]).to(device)
    points[1] = torch.nan
    result = patch_loss(
        points, torch.tensor([PIXEL, PIXEL]).to(device), camera(device), LossConfig(), soft_clamp_px=50.0
    )
    assert result.valid.tolist() == [True, False]
    assert result.loss[0].isfinite()
