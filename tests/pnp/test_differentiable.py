"""Gradients of refined poses: finite differences, scipy's optimum, one way against the other."""

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from reference.refinement_problems import (
    CONVERGING,
    F64,
    GRADIENTS,
    INPUTS,
    gradients_of,
    make_inputs,
    refine,
)
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from acezero_gpu.geometry import PinholeCamera, retract, se3_from_matrix
from acezero_gpu.pnp import (
    PoseRefinement,
    PoseStatus,
    RefinementConfig,
    refine_absolute_pose,
    refine_implicit,
    refine_unrolled,
)


@pytest.mark.parametrize("gradient", GRADIENTS)
@pytest.mark.parametrize("loss", ["squared", "cauchy"])
@pytest.mark.parametrize("name", INPUTS)
def test_gradcheck(gradient, loss, name):
    if loss == "squared" and name == "scale":
        pytest.skip("the squared loss has no scale")
    inputs, initial = make_inputs(batch=1, size=(2, 4), noise_px=2.0)
    fixed = {k: v.detach() for k, v in inputs.items()}

    iterations = 12 if gradient == "implicit" else 4  # steps have a derivative before they arrive

    def pose_and_cost(value):
        result = refine(fixed | {name: value}, initial, gradient, loss, iterations)
        return result.cam_from_world, result.cost

    # Poses settle to about 1e-9; differences as wide as the unit allows keep that out of the quotient.
    eps = {"points": 1e-4, "weights": 1e-3, "focal": 1e-1}.get(name, 1e-2)
    assert torch.autograd.gradcheck(pose_and_cost, inputs[name], eps=eps, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(("loss", "scale"), CONVERGING)
def test_both_ways_agree_at_a_minimum(device, loss, scale):
    inputs, initial = make_inputs(batch=4, size=(4, 5), device=device)
    inputs["scale"] = torch.full_like(inputs["scale"], scale).requires_grad_()
    ours, implicit = gradients_of(inputs, initial, "implicit", loss, 40)
    theirs, unrolled = gradients_of(inputs, initial, "unrolled", loss, 40)
    assert (ours.status == PoseStatus.OK).all()
    assert (theirs.status == PoseStatus.OK).all()
    assert torch.allclose(ours.cam_from_world, theirs.cam_from_world, atol=1e-9)
    assert torch.allclose(ours.cost, theirs.cost, rtol=1e-9)
    for name in INPUTS:
        difference = (implicit[name] - unrolled[name]).norm()
        tolerance = 1e-5 if name == "scale" else 1e-6  # the scale hardly matters, so rounding weighs more
        assert difference <= tolerance * unrolled[name].norm(), name
        if name != "scale" or loss not in ("squared", "truncated"):
            assert implicit[name].abs().amax() > 0, name


def test_derivative_is_that_of_scipys_optimum():
    """Central differences of an optimum found by another solver, in another parametrisation."""
    inputs, initial = make_inputs(batch=1, size=(2, 4), noise_px=3.0)
    arrays = {k: v.detach()[0].numpy() for k, v in inputs.items()}
    base = initial[0].numpy()

    def optimum(points, pixels, focal, weights):
        def residual(x):
            rotation = Rotation.from_rotvec(x[3:]).as_matrix() @ base[:, :3]
            camera_points = points @ rotation.T + base[:, 3] + x[:3]
            projected = camera_points[:, :2] / camera_points[:, 2:] * focal + arrays["principal"]
            return (np.sqrt(weights)[:, None] * (projected - pixels)).ravel()

        tight = {"xtol": 1e-15, "ftol": 1e-15, "gtol": 1e-15}
        x = least_squares(residual, np.zeros(6), method="lm", jac="3-point", x_scale=0.1, **tight).x
        rotation = Rotation.from_rotvec(x[3:]).as_matrix() @ base[:, :3]
        return np.column_stack([rotation, base[:, 3] + x[:3]])

    g = torch.Generator().manual_seed(11)
    pose = refine(inputs, initial).cam_from_world
    for name in ("points", "pixels", "focal", "weights"):
        direction = torch.randn(inputs[name].shape, generator=g, dtype=F64)
        step = 1e-3 * {"points": 0.1, "pixels": 10, "focal": 50, "weights": 1}[name]
        values = {k: arrays[k] for k in ("points", "pixels", "focal", "weights")}
        ends = [
            optimum(**(values | {name: values[name] + sign * step * direction[0].numpy()}))
            for sign in (1, -1)
        ]
        expected = (ends[0] - ends[1]) / (2 * step)
        ours = [
            (torch.autograd.grad(entry, inputs[name], retain_graph=True)[0] * direction).sum().item()
            for entry in pose.flatten()
        ]
        error = np.abs(np.array(ours).reshape(3, 4) - expected).max()
        assert error < 1e-5 * np.abs(expected).max(), name


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_values_are_those_of_the_solver_without_gradients(device, dtype, gradient):
    inputs, initial = make_inputs(batch=3, size=(4, 5), dtype=dtype, device=device)
    result = refine(inputs, initial, gradient, "cauchy", 10)
    plain = refine_absolute_pose(
        inputs["points"].detach(),
        inputs["pixels"].detach(),
        PinholeCamera(inputs["focal"].detach(), inputs["principal"].detach()),
        initial,
        RefinementConfig(iterations=10, loss="cauchy"),
        weights=inputs["weights"].detach(),
        loss_scale_px=inputs["scale"].detach(),
    )
    assert (result.status == PoseStatus.OK).all()
    if gradient == "implicit":
        assert torch.equal(result.cam_from_world, plain.cam_from_world)
        assert torch.equal(result.cost, plain.cost)
        assert torch.equal(result.normal_matrix, plain.normal_matrix)
    assert torch.allclose(result.cam_from_world, plain.cam_from_world, atol=1e-4)
    # Entries that cancel are as exact as the large ones beside them.
    size = plain.normal_matrix.abs().max()
    assert torch.allclose(result.normal_matrix / size, plain.normal_matrix / size, rtol=1e-2, atol=1e-5)
    assert not result.normal_matrix.requires_grad


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_float32_gradients_are_those_of_float64(device, gradient):
    exact = gradients_of(*make_inputs(batch=3, size=(6, 8)), gradient)[1]
    result, single = gradients_of(
        *make_inputs(batch=3, size=(6, 8), dtype=torch.float32, device=device), gradient
    )
    assert (result.status == PoseStatus.OK).all()
    for name in INPUTS:
        assert (single[name].cpu() - exact[name]).norm() <= 2e-3 * exact[name].norm(), name


@pytest.mark.parametrize("refinement", [refine_implicit, refine_unrolled])
def test_shared_inputs_collect_the_gradients_of_all_that_share_them(device, refinement):
    inputs, initial = make_inputs(batch=1, size=(3, 4), device=device)
    g = torch.Generator().manual_seed(2)
    steps = 0.02 * torch.randn(2, 3, 6, generator=g, dtype=F64).to(device)
    initial = retract(initial.expand(2, 3, 3, 4), steps)
    shares = torch.randn(2, 3, 3, 4, generator=g, dtype=F64).to(device)
    leaves = [inputs[k][0].detach().requires_grad_() for k in ("points", "pixels", "focal", "principal")]
    config = RefinementConfig(iterations=20)
    mask = torch.arange(12, device=device) != 4

    def total(poses, chosen):
        camera = PinholeCamera(leaves[2], leaves[3])
        result = refinement(leaves[0], leaves[1], camera, poses, config, weights=mask)
        return (result.cam_from_world * chosen).sum()

    whole = torch.autograd.grad(total(initial, shares), leaves)
    parts = sum(total(initial[i, j], shares[i, j]) for i in range(2) for j in range(3))
    for ours, one_by_one in zip(whole, torch.autograd.grad(parts, leaves), strict=True):
        assert torch.allclose(ours, one_by_one, rtol=1e-6, atol=1e-12)
    assert torch.equal(whole[0][4], torch.zeros_like(whole[0][4]))


def test_unrolled_steps_reach_the_initial_pose_and_second_derivatives():
    inputs, initial = make_inputs(batch=1, size=(2, 3), start=0.1)
    fixed = {k: v.detach() for k, v in inputs.items()}
    start = initial.clone().requires_grad_()

    def one_step(pose, focal):
        return refine(fixed | {"focal": focal}, pose, "unrolled", iterations=1).cam_from_world

    assert torch.autograd.gradcheck(one_step, (start, inputs["focal"]), eps=1e-6, atol=1e-5)
    assert torch.autograd.grad(one_step(start, fixed["focal"]).sum(), start)[0].abs().max() > 1e-3
    # In hundreds of pixels, so that second differences do not drown in rounding.
    unit = (fixed["focal"] / 100).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda f: one_step(initial, 100 * f), unit, eps=1e-5, atol=1e-5)


def test_unrolled_steps_raise_the_damping_until_they_can_be_taken(device):
    """From kilometres away a turn and a shift look alike: in float32 the undamped equations are singular."""
    inputs, initial = make_inputs(size=(6, 8), dtype=torch.float32, device=device)
    initial[:, 2, 3] += 3000.0
    layer = PoseRefinement(RefinementConfig(iterations=40, initial_damping=1e-9), gradient="unrolled")
    still = PoseRefinement(RefinementConfig(iterations=0), gradient="unrolled")
    camera = PinholeCamera(inputs["focal"], inputs["principal"])
    start, end = (
        refine(inputs["points"], inputs["pixels"], camera, initial).cost for refine in (still, layer)
    )
    assert (end < 0.1 * start).all()


def test_gradients_pass_through_the_seven_numbers_of_pypose():
    inputs, initial = make_inputs(batch=2)
    fixed = {k: v.detach() for k, v in inputs.items()}

    def seven(focal):
        return se3_from_matrix(refine(fixed | {"focal": focal}, initial).cam_from_world).tensor()

    assert torch.autograd.gradcheck(seven, inputs["focal"], eps=1e-1, atol=1e-7, rtol=1e-3)


def test_gradients_pass_through_function_transforms():
    """``torch.func.jacrev`` gives the same Jacobian as one backward pass per entry."""
    inputs, initial = make_inputs(batch=1, size=(2, 4))
    fixed = {k: v.detach() for k, v in inputs.items()}
    jacobian = torch.func.jacrev(lambda x: refine(fixed | {"focal": x}, initial).cam_from_world)(
        fixed["focal"]
    )
    pose = refine(inputs, initial).cam_from_world
    rows = [torch.autograd.grad(e, inputs["focal"], retain_graph=True)[0] for e in pose.flatten()]
    assert torch.allclose(jacobian.flatten(0, 2), torch.stack(rows), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_no_value_is_asked_for_on_the_way_there_and_back(gradient):
    """On the meta device tensors have no values: whatever would wait for the device raises."""
    inputs, initial = make_inputs()
    inputs = {k: v.detach().to("meta").requires_grad_() for k, v in inputs.items()}
    for loss, _ in CONVERGING:
        result, grads = gradients_of(inputs, initial.to("meta"), gradient, loss, 2)
        assert result.status.shape == (2,)
        assert grads["points"].shape == inputs["points"].shape


def test_the_layer_says_what_it_is_and_what_it_cannot_be():
    layer = PoseRefinement(RefinementConfig(loss="cauchy"), gradient="unrolled")
    assert "cauchy" in repr(layer)
    assert "unrolled" in repr(layer)
    assert list(layer.parameters()) == []
    with pytest.raises(
        (ValueError, TypeCheckError), match="choose implicit or unrolled|'implicit', 'unrolled'"
    ):
        PoseRefinement(gradient="adjoint")  # type: ignore[arg-type]
