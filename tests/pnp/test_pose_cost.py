"""The pose cost's derivatives against autograd and against the solver that minimises it."""

import pytest
import torch
from reference.posed_scene import make_scene

from acezero_gpu.geometry import PinholeCamera, retract
from acezero_gpu.pnp import ROBUST_LOSSES, RefinementConfig, refine_absolute_pose
from acezero_gpu.pnp.pose_cost import (
    gauss_newton_matrix,
    half_gradient,
    hessian,
    make_pose_problem,
    pose_residuals,
    robust_cost,
    rounding_cost,
)

SCALE_PX = 20.0


def problem_and_pose(loss="squared", behind=False):
    scene = make_scene(2, rows=4, columns=5, noise_px=3.0, dtype=torch.float64)
    g = torch.Generator().manual_seed(5)
    pose = retract(scene.cam_from_world, 0.03 * torch.randn(2, 6, generator=g, dtype=torch.float64))
    points = scene.points.clone()
    if behind:
        points[:, 3] = torch.tensor([0.3, 0.2, -4.0], dtype=torch.float64) @ pose[0, :, :3]
    weights = 0.5 + torch.rand(2, 20, generator=g, dtype=torch.float64)
    return make_pose_problem(points, scene.pixels, scene.camera, pose, loss, weights, SCALE_PX), pose


@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("loss", ROBUST_LOSSES)
def test_gradient_and_hessian_are_those_of_autograd_along_the_retraction(loss, behind):
    problem, pose = problem_and_pose(loss, behind)
    for element in range(2):

        def half_cost(delta, element=element):
            steps = torch.zeros(2, 6, dtype=torch.float64)
            steps[element] = 1.0
            return (
                robust_cost(problem, pose_residuals(problem, second_order_motion(steps * delta, pose)))[
                    element
                ]
                / 2
            )

        zero = torch.zeros(6, dtype=torch.float64)
        gradient = torch.autograd.functional.jacobian(half_cost, zero)
        matrix = torch.autograd.functional.hessian(half_cost, zero)
        ours = hessian(problem, pose_residuals(problem, pose))[element]
        assert torch.allclose(
            half_gradient(problem, pose_residuals(problem, pose))[element], gradient, rtol=1e-9, atol=1e-6
        )
        assert torch.allclose(ours, matrix, rtol=1e-8, atol=1e-8 * matrix.abs().max())


def second_order_motion(delta, pose):
    """``retract`` up to its second order, where autograd can differentiate it twice at zero."""
    x, y, z = delta[..., 3:].unbind(-1)
    zero = torch.zeros_like(x)
    turn = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    turned = pose + turn @ pose + turn @ turn @ pose / 2
    return turned + torch.nn.functional.pad(delta[..., :3, None], (3, 0))


def test_second_order_motion_is_that_of_retract():
    _, pose = problem_and_pose()
    delta = 1e-3 * torch.tensor([[1.0, -2, 3, 2, 1, -3], [0, 1, 1, -1, 2, 2]], dtype=torch.float64)
    assert (second_order_motion(delta, pose) - retract(pose, delta)).abs().max() < 5e-8


@pytest.mark.parametrize("loss", ROBUST_LOSSES)
def test_cost_and_normal_matrix_are_those_that_the_solver_reports(loss):
    problem, pose = problem_and_pose(loss, behind=True)
    solver = refine_absolute_pose(
        problem.points,
        problem.pixels,
        problem.camera,
        pose,
        RefinementConfig(iterations=0, loss=loss, loss_scale_px=SCALE_PX),
        weights=problem.weights,
    )
    assert torch.allclose(robust_cost(problem, pose_residuals(problem, pose)), solver.cost, rtol=1e-12)
    assert torch.allclose(
        gauss_newton_matrix(problem, pose_residuals(problem, pose)),
        solver.normal_matrix,
        rtol=1e-9,
        atol=1e-6,
    )


def test_gauss_newton_lacks_what_residuals_add():
    problem, pose = problem_and_pose("cauchy")
    difference = hessian(problem, pose_residuals(problem, pose)) - gauss_newton_matrix(
        problem, pose_residuals(problem, pose)
    )
    assert difference.abs().max() > 0.1 * hessian(problem, pose_residuals(problem, pose)).abs().max()


def test_rounding_grows_with_the_distance_from_the_origin():
    scene = make_scene(1, rows=3, columns=4)
    pose = scene.cam_from_world.float()

    def real_and_expected(shift):
        """Cost of exact data, which is nothing but rounding, and what is expected of it."""
        moved = torch.cat([pose[..., :3], pose[..., 3:] - pose[..., :3] @ shift[:, None]], dim=-1)
        problem = make_pose_problem(
            scene.points + shift, scene.pixels, scene.camera, moved, "squared", None, 1.0
        )
        terms = pose_residuals(problem, moved)
        return robust_cost(problem, terms), rounding_cost(problem, terms, moved)

    _, near = real_and_expected(torch.zeros(3))
    real, far = real_and_expected(torch.tensor([1e4, 0.0, 0.0]))
    assert far > 1e5 * near
    assert real < far < 1e3 * real  # squares: within a factor of thirty


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"initial": torch.zeros(2, 4, 4)}, r"initial must have the shape \(\.\.\., 3, 4\)"),
        ({"points": torch.zeros(2, 12, 2)}, r"points must have the shape \(\.\.\., n, 3\)"),
        ({"pixels": torch.zeros(5, 2)}, r"pixels must broadcast to the shape \(2, 12, 2\)"),
        ({"weights": torch.zeros(2, 5)}, r"weights must broadcast to the shape \(2, 12\)"),
        ({"points": torch.zeros(2, 12, 3, dtype=torch.float64)}, "points is torch.float64 on cpu"),
        ({"loss_scale_px": torch.zeros(3)}, r"loss_scale_px must broadcast to the shape \(2,\)"),
        ({"loss": "cosine"}, "choose one of squared"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    camera = PinholeCamera(torch.ones(2), torch.zeros(2))
    arguments = {
        "points": torch.zeros(2, 12, 3),
        "pixels": torch.zeros(12, 2),
        "camera": camera,
        "initial": torch.zeros(2, 3, 4),
        "loss": "squared",
        "weights": None,
        "loss_scale_px": 1.0,
    }
    with pytest.raises(ValueError, match=message):
        make_pose_problem(**(arguments | change))
