"""Problems without a minimum have no gradient, are said to be such, and disturb nobody."""

import pytest
import torch
from reference.refinement_problems import GRADIENTS, INPUTS, gradients_of, make_inputs, refine

from acezero_gpu.pnp import PoseStatus


def spoil(inputs, initial, case):
    """Make problem 1 hopeless; the status that each gradient must give it."""
    with torch.no_grad():
        if case == "equal points":
            inputs["points"][1] = inputs["points"][1, :1].clone()
        elif case == "collinear points":
            line = torch.linspace(-1, 1, inputs["points"].shape[1])[:, None].to(initial)
            inputs["points"][1] = line * torch.tensor([0.5, 0.25, 0.0]).to(initial)
            initial[1] = torch.eye(3, 4)
            initial[1, 2, 3] = 4.0
        elif case == "behind the camera":
            half_turn = torch.diag(torch.tensor([-1.0, 1.0, -1.0])).to(initial)
            initial[1] = half_turn @ initial[1]
        elif case == "a point is NaN":
            inputs["points"][1, 2, 0] = torch.nan
        elif case == "a pixel is infinite":
            inputs["pixels"][1, 2, 0] = torch.inf
        elif case == "the focal length is NaN":
            inputs["focal"][1] = torch.nan
        elif case == "the initial pose is NaN":
            initial[1] = torch.nan
        elif case == "no weight":
            inputs["weights"][1] = 0
        elif case == "numbers overflow":
            inputs["points"][1] *= 1e30 if initial.dtype == torch.float32 else 1e250


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize(
    "case",
    [
        "equal points",
        "collinear points",
        "behind the camera",
        "a point is NaN",
        "a pixel is infinite",
        "the focal length is NaN",
        "the initial pose is NaN",
        "no weight",
        "numbers overflow",
    ],
)
def test_hopeless_problems_have_zero_gradients_and_disturb_nobody(device, dtype, gradient, case):
    inputs, initial = make_inputs(batch=3, size=(4, 5), dtype=dtype, device=device)
    clean, clean_grads = gradients_of(inputs, initial, gradient)
    spoil(inputs, initial, case)
    result, grads = gradients_of(inputs, initial, gradient)
    assert result.status[1] in (PoseStatus.NOT_REFINED, PoseStatus.NOT_CONVERGED)
    assert (result.status[[0, 2]] == PoseStatus.OK).all()
    assert torch.equal(result.cam_from_world[[0, 2]], clean.cam_from_world[[0, 2]])
    for name in INPUTS:
        assert torch.equal(grads[name][1], torch.zeros_like(grads[name][1])), name
        assert torch.equal(grads[name][[0, 2]], clean_grads[name][[0, 2]]), name


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("loss", ["truncated", "tukey"])
def test_without_any_inlier_there_is_no_gradient(device, gradient, loss):
    inputs, initial = make_inputs(batch=2, device=device, start=0.002)
    with torch.no_grad():
        inputs["pixels"][1] += 1000.0
    inputs["initial"] = initial.requires_grad_()  # no gradient either, although it is what comes back
    result, grads = gradients_of(inputs, initial, gradient, loss)
    assert result.status.tolist() == [PoseStatus.OK, PoseStatus.NOT_REFINED]
    assert torch.equal(result.cam_from_world[1], initial[1])
    assert all(torch.equal(g[1], torch.zeros_like(g[1])) and g.isfinite().all() for g in grads.values())


def test_what_is_no_minimum_is_said_and_has_no_implicit_gradient(device):
    inputs, initial = make_inputs(batch=2, device=device, start=0.3)
    with torch.no_grad():
        initial[0] = refine(inputs, initial).cam_from_world[0]
    result, grads = gradients_of(inputs, initial, iterations=1)
    assert result.status.tolist() == [PoseStatus.OK, PoseStatus.NOT_CONVERGED]
    assert all(torch.equal(g[1], torch.zeros_like(g[1])) for g in grads.values())
    assert grads["points"][0].abs().max() > 0
    # The steps themselves still have a derivative.
    result, grads = gradients_of(inputs, initial, "unrolled", iterations=1)
    assert (result.status == PoseStatus.OK).all()
    assert grads["points"][1].abs().max() > 0


def test_a_saddle_is_no_minimum(device):
    """Two groups of pixels, equally far to the left and right of where all points project: with Tukey's loss
    the pose in the middle is at rest, but the cost falls to both sides."""
    inputs, initial = make_inputs(batch=1, size=(4, 4), noise_px=0.0, device=device, start=0.0)
    with torch.no_grad():
        doubled = {
            k: torch.cat([v, v], dim=1) for k, v in inputs.items() if k in ("points", "pixels", "weights")
        }
        doubled["weights"].fill_(1.0)
        doubled["pixels"][:, :16, 0] -= 8.0
        doubled["pixels"][:, 16:, 0] += 8.0
        inputs = inputs | doubled
    inputs = {k: v.detach().requires_grad_() for k, v in inputs.items()}
    result, grads = gradients_of(inputs, initial, loss="tukey", iterations=0)
    assert result.status.tolist() == [PoseStatus.NOT_CONVERGED]
    assert all(torch.equal(g, torch.zeros_like(g)) for g in grads.values())


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_points_without_weight_may_hold_anything(device, gradient):
    inputs, initial = make_inputs(batch=2, size=(4, 5), device=device)
    with torch.no_grad():
        inputs["weights"][:, 5:7] = 0
    clean, clean_grads = gradients_of(inputs, initial, gradient)
    # A finite point of weight zero still tells what its weight would do.
    assert (clean_grads["weights"][:, 5:7].abs() > 0).all()
    with torch.no_grad():
        inputs["points"][0, 5] = torch.nan
        inputs["pixels"][0, 6] = torch.inf
    result, grads = gradients_of(inputs, initial, gradient)
    assert (result.status == PoseStatus.OK).all()
    assert torch.equal(grads["weights"][0, 5:7], torch.zeros_like(grads["weights"][0, 5:7]))
    assert torch.allclose(result.cam_from_world, clean.cam_from_world, atol=1e-12)
    for name in INPUTS:
        assert grads[name].isfinite().all(), name
        others = [i for i in range(20) if i not in (5, 6)] if name in ("points", "pixels", "weights") else ...
        assert torch.allclose(grads[name][:, others], clean_grads[name][:, others], rtol=1e-9, atol=1e-15)
