"""Elimination of the points against the full normal equations, and conjugate gradients against Cholesky."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from adjustment_scenes import disturbed, make_scene, on_device

from acezero_gpu.adjustment import (
    BundleAdjustmentConfig,
    bundle_adjust,
    bundle_adjustment,
    observation_graph,
    row_groups,
)
from acezero_gpu.adjustment.objective import Objective
from acezero_gpu.adjustment.observation_graph import ObservationGraph
from acezero_gpu.adjustment.observation_model import predict, prediction_jacobian
from acezero_gpu.adjustment.reduced_solvers import solve_conjugate_gradients, solve_dense
from acezero_gpu.adjustment.schur import (
    cholesky_3x3,
    rows_by_inverse_transpose,
    solve_damped,
    solve_transpose,
)

CONFIG = BundleAdjustmentConfig(
    loss="huber", refine_focal=True, refine_principal_point=True, refine_radial=True
)
EXACT_CG = partial(solve_conjugate_gradients, max_iterations=500, tolerance=1e-13)


@pytest.fixture(params=["held first view", "held third and fifth"])
def objective(request, generator):
    problem = disturbed(make_scene(generator, noise_px=1.0), generator)
    if request.param != "held first view":
        fixed = torch.zeros(len(problem.cam_from_world), dtype=torch.bool)
        fixed[[2, 4]] = True
        problem = replace(problem, fixed_views=fixed)
    return Objective(problem, CONFIG)


def full_jacobian(objective: Objective):
    """One dense weighted Jacobian of everything, ``(poses, intrinsics, points)``, and the residuals."""
    start, graph = objective.start, objective.graph
    prediction = predict(start, graph.view, graph.point, torch.tensor(1e-3).double())
    by_pose, by_point, by_intrinsics = prediction_jacobian(prediction, start, objective.columns)
    residual = prediction.pixels - objective.pixels
    root = (CONFIG.loss_scale_px / residual.norm(dim=-1).clamp_min(CONFIG.loss_scale_px)).sqrt()
    sizes = [6 * graph.views, len(objective.columns), 3 * graph.points]
    jacobian = torch.zeros(len(graph), 2, sum(sizes), dtype=torch.float64)
    for k in range(len(graph)):
        slot, point = int(graph.slot[k]), int(graph.point[k])
        if slot < graph.views:
            jacobian[k, :, 6 * slot : 6 * slot + 6] = by_pose[k]
        jacobian[k, :, sizes[0] : sizes[0] + sizes[1]] = by_intrinsics[k]
        first = sizes[0] + sizes[1] + 3 * point
        jacobian[k, :, first : first + 3] = by_point[k]
    return (jacobian * root[:, None, None]).flatten(0, 1), (residual * root[:, None]).flatten()


def flat(step) -> torch.Tensor:
    return torch.cat([step.poses.flatten(), step.intrinsics, step.points.flatten()])


def model_decrease(objective: Objective, step) -> torch.Tensor:
    jacobian, residual = full_jacobian(objective)
    return 0.5 * residual.square().sum() - 0.5 * (residual + jacobian @ flat(step)).square().sum()


@pytest.mark.parametrize("damping", [1e-4, 1.0])
@pytest.mark.parametrize("solver", [solve_dense, EXACT_CG], ids=["dense", "cg"])
def test_the_step_is_that_of_the_full_normal_equations(objective, damping, solver):
    step = solve_damped(objective.linearise(objective.start), objective.graph, damping, solver)
    jacobian, residual = full_jacobian(objective)
    hessian = jacobian.mT @ jacobian
    damped = hessian + damping * hessian.diagonal().diag()
    expected = -torch.linalg.solve(damped, jacobian.mT @ residual)
    assert bool(step.solved)
    torch.testing.assert_close(flat(step), expected, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(step.predicted_decrease, model_decrease(objective, step), rtol=1e-6, atol=0)


def test_truncated_conjugate_gradients_predict_their_own_decrease(objective):
    """After three iterations the step is not the solution, but it promises what the quadratic model gives."""
    normal = objective.linearise(objective.start)
    short = partial(solve_conjugate_gradients, max_iterations=3, tolerance=0.0)
    step = solve_damped(normal, objective.graph, 1e-3, short)
    exact = solve_damped(normal, objective.graph, 1e-3, solve_dense)
    assert 0 < float(step.predicted_decrease) < 0.999 * float(exact.predicted_decrease)
    torch.testing.assert_close(step.predicted_decrease, model_decrease(objective, step), rtol=1e-6, atol=0)


@pytest.mark.parametrize("rows", [1, 7, 1 << 20])
def test_products_are_sums_over_all_pairs_of_one_point_in_any_batching(monkeypatch, rows, device):
    monkeypatch.setattr(row_groups, "CPU_ROWS", rows)
    monkeypatch.setattr(row_groups, "GPU_ROWS", rows)
    monkeypatch.setattr(observation_graph, "rows_per_chunk", lambda device: rows)
    generator = torch.Generator().manual_seed(3)
    point = torch.randint(12, (90,), generator=generator).sort().values
    view = torch.randint(6, (90,), generator=generator)
    moving = torch.tensor([True, False, True, True, False, True])
    graph = ObservationGraph(view.to(device), point.to(device), moving.to(device), 12)
    table = torch.randn(91, 3, 6, generator=generator, dtype=torch.float64)
    table[90] = 0
    slot = (moving.cumsum(0) - 1).tolist()
    pairs, per_view = torch.zeros(16, 6, 6).double(), torch.zeros(5, 6, 6).double()
    for i in range(90):
        per_view[slot[view[i]] if moving[view[i]] else 4] += table[i].mT @ table[i]
        for j in range(90):
            seen = point[i] == point[j] and moving[view[i]] and moving[view[j]]
            if seen and i != j and slot[view[i]] >= slot[view[j]]:
                pairs[4 * slot[view[i]] + slot[view[j]]] += table[i].mT @ table[j]
    there = table.to(device)
    torch.testing.assert_close(graph.by_view_pair.products(there, there).cpu(), pairs)
    torch.testing.assert_close(graph.by_view.products(there, there).cpu(), per_view)


def test_the_reduced_matrix_is_not_formed_where_its_pairs_are_too_many(monkeypatch, generator):
    problem = disturbed(make_scene(generator, noise_px=1.0), generator)
    dense = bundle_adjust(problem, CONFIG)

    def fail(self):
        raise AssertionError("the list of pairs was made")

    monkeypatch.setattr(bundle_adjustment, "MOST_PAIRS", 10)
    monkeypatch.setattr(ObservationGraph, "pairs", fail)
    assert bundle_adjust(problem, CONFIG).cost_final == pytest.approx(dense.cost_final, rel=1e-5)


def test_an_adjustment_by_conjugate_gradients_ends_where_the_dense_one_does(generator, device):
    problem = on_device(
        disturbed(make_scene(generator, noise_px=0.5, views=12, points=80), generator), device
    )
    config = replace(CONFIG, cost_tolerance=1e-12)
    dense = bundle_adjust(problem, config)
    iterative = bundle_adjust(problem, replace(config, dense_views=0, cg_tolerance=1e-3))
    assert dense.cost_final < 0.1 * dense.cost_initial
    assert iterative.cost_final == pytest.approx(dense.cost_final, rel=1e-6)
    torch.testing.assert_close(iterative.camera.focal_px, dense.camera.focal_px, rtol=1e-4, atol=0)


def test_a_point_seen_twice_by_one_view_counts_twice(generator):
    """Doubling observations is doubling their weight, although the pairs then share a view."""
    problem = disturbed(make_scene(generator, noise_px=0.5), generator)
    twice = replace(
        problem,
        view_index=problem.view_index.repeat(2),
        point_index=problem.point_index.repeat(2),
        pixels=problem.pixels.repeat(2, 1),
    )
    heavy = replace(problem, weights=torch.full((len(problem.pixels),), 2.0).double())
    config = replace(CONFIG, max_iterations=3)
    a, b = bundle_adjust(twice, config), bundle_adjust(heavy, config)
    assert a.cost_final == pytest.approx(b.cost_final, rel=1e-9)
    torch.testing.assert_close(a.cam_from_world, b.cam_from_world, rtol=1e-7, atol=1e-7)


def test_3x3_factor_and_substitutions(generator, dtype, device):
    root = torch.randn(50, 3, 3, generator=generator, dtype=torch.float64)
    matrix = (root @ root.mT + 0.1 * torch.eye(3)).to(device, dtype)
    factor = cholesky_3x3(matrix)
    expected = torch.linalg.cholesky(matrix)
    rows, columns = torch.tril_indices(3, 3)
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {"rtol": 1e-10, "atol": 1e-10}
    torch.testing.assert_close(factor, expected[:, rows, columns], **tolerance)
    right = torch.randn(50, 4, 3, generator=generator, dtype=torch.float64).to(device, dtype)
    torch.testing.assert_close(rows_by_inverse_transpose(factor, right) @ expected.mT, right, **tolerance)
    solved = solve_transpose(factor, right[:, 0])
    torch.testing.assert_close((expected.mT @ solved[..., None])[..., 0], right[:, 0], **tolerance)
