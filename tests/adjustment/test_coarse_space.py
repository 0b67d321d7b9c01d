"""Motions of groups of views: against finite motions, the full reduced matrix, and a chain that they shorten."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from adjustment_scenes import disturbed, make_scene, on_device

from acezero_gpu.adjustment import BundleAdjustmentConfig, coarse_space, reduced_solvers
from acezero_gpu.adjustment.coarse_space import factorise, make_coarse_space
from acezero_gpu.adjustment.objective import Objective
from acezero_gpu.adjustment.reduced_solvers import reduced_matrix, solve_conjugate_gradients, solve_dense
from acezero_gpu.adjustment.schur import solve_damped
from acezero_gpu.geometry import camera_centres, hat, retract

CONFIG = BundleAdjustmentConfig(loss="huber", refine_focal=True, refine_radial=True)


@pytest.fixture
def objective(generator, device, monkeypatch):
    monkeypatch.setattr(coarse_space, "VIEWS_PER_GROUP", 4)
    monkeypatch.setattr(coarse_space, "CPU_ROWS", 40)  # several chunks
    scene = disturbed(make_scene(generator, noise_px=1.0, views=12), generator)
    return Objective(on_device(scene, device), CONFIG)


def system_of(objective: Objective, damping: float = 1e-3):
    """The reduced system of a step, and its matrix in full."""
    held = {}

    def solver(system, graph):
        held["system"] = system
        return solve_dense(system, graph)

    solve_damped(objective.linearise(objective.start), objective.graph, damping, solver)
    lower = reduced_matrix(held["system"], objective.graph).tril()
    return held["system"], lower + lower.tril(-1).mT


def basis_of(space, intrinsics: int) -> torch.Tensor:
    """``P`` with a column for each motion of a group and each intrinsic."""
    n = 7 * space.groups
    columns = [space.prolonged(unit).flatten() for unit in torch.eye(n).to(space.motions)]
    return torch.block_diag(torch.stack(columns, dim=1), torch.eye(intrinsics).to(space.motions))


def test_motions_move_a_group_as_one(objective):
    """A small translation, turn or growth of the world about the group's middle, seen by each of its cameras."""
    space, small = make_coarse_space(objective.start, objective.graph, objective.tells_depth), 1e-5
    poses = objective.start.cam_from_world[objective.graph.moving_views]
    centres = camera_centres(poses)
    for group in range(space.groups):
        chosen = space.group[:-1] == group
        middle = centres[chosen].mean(0)
        for axis in range(3):
            unit = torch.eye(3).to(poses)[axis]
            turned = torch.linalg.cross(unit.expand_as(centres), centres - middle)
            wanted = {axis: unit.expand_as(centres), 3 + axis: turned, 6: centres - middle}
            for column, shift in wanted.items():
                moved = retract(poses, small * space.motions[:-1, :, column])
                change = (camera_centres(moved) - centres) / small
                torch.testing.assert_close(change[chosen], shift[chosen], rtol=0, atol=1e-3)
                # What a camera sees beside it turns with the group.
                spin = unit if column == 3 + axis else torch.zeros_like(unit)
                turn = (moved[..., :3] - poses[..., :3]) / small
                expected = -poses[..., :3] @ hat(spin)
                torch.testing.assert_close(turn[chosen], expected[chosen], rtol=0, atol=1e-3)


def test_restriction_is_the_transpose_of_prolongation(objective, generator):
    space = make_coarse_space(objective.start, objective.graph, objective.tells_depth)
    poses = torch.randn(objective.graph.views, 6, generator=generator, dtype=torch.float64)
    coarse = torch.randn(7 * space.groups, generator=generator, dtype=torch.float64)
    poses, coarse = poses.to(space.motions), coarse.to(space.motions)
    left, right = (poses * space.prolonged(coarse)).sum(), (space.restricted(poses) * coarse).sum()
    torch.testing.assert_close(left, right)


def test_the_correction_is_the_best_step_within_the_space(objective, generator):
    space = make_coarse_space(objective.start, objective.graph, objective.tells_depth)
    assert space.groups == 2
    assert len(space.chunks) > 1
    system, matrix = system_of(objective)
    basis = basis_of(space, len(system.intrinsics))
    residual = torch.randn(len(matrix), generator=generator, dtype=torch.float64).to(matrix)
    expected = basis @ torch.linalg.solve(basis.mT @ matrix @ basis, basis.mT @ residual)
    n = 6 * objective.graph.views
    solver = factorise(space, system, objective.graph)
    assert bool(solver.usable)
    found = solver.correction(residual[:n].view(-1, 6), residual[n:])
    torch.testing.assert_close(torch.cat([found[0].flatten(), found[1]]), expected, rtol=1e-5, atol=1e-9)


def test_conjugate_gradients_with_groups_end_at_the_same_step(objective):
    normal = objective.linearise(objective.start)
    space = make_coarse_space(objective.start, objective.graph, objective.tells_depth)
    iterative = partial(solve_conjugate_gradients, max_iterations=500, tolerance=1e-13, space=space)
    found = solve_damped(normal, objective.graph, 1e-3, iterative)
    expected = solve_damped(normal, objective.graph, 1e-3, solve_dense)
    assert bool(found.solved)
    torch.testing.assert_close(found.poses, expected.poses, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found.intrinsics, expected.intrinsics, rtol=1e-6, atol=1e-8)


def chain(generator, views: int):
    """Views side by side, each point seen by three neighbours: errors add up along it."""
    problem = make_scene(generator, views=views, points=20 * views, seen_by=3)
    first = torch.arange(20 * views) // 20
    first = first.clamp_max(views - 3)
    poses = torch.eye(3, 4).to(problem.cam_from_world).repeat(views, 1, 1)
    poses[:, 0, 3] = -0.5 * torch.arange(views)
    points = problem.points + torch.tensor([0.0, 0.0, 6.0])
    points[:, 0] += 0.5 * (first + 1)
    view = (first[:, None] + torch.arange(3)).flatten()
    point = torch.arange(20 * views).repeat_interleave(3)
    camera_point = points[point] + poses[view][..., 3]
    camera = problem.camera
    pixels = camera_point[:, :2] / camera_point[:, 2:] * camera.focal_px + camera.principal_point_px
    exact = replace(
        problem, cam_from_world=poses, points=points, view_index=view, point_index=point, pixels=pixels
    )
    return disturbed(exact, generator, poses=0.003, points=0.01)


def test_groups_save_iterations_on_a_long_chain(generator, monkeypatch):
    objective = Objective(chain(generator, 96), CONFIG)
    normal, calls = objective.linearise(objective.start), []
    apply = reduced_solvers._apply
    monkeypatch.setattr(reduced_solvers, "_apply", lambda *a: calls.append(1) or apply(*a))
    counts = []
    for space in (None, make_coarse_space(objective.start, objective.graph, objective.tells_depth)):
        calls.clear()
        solver = partial(solve_conjugate_gradients, max_iterations=2000, tolerance=1e-4, space=space)
        assert bool(solve_damped(normal, objective.graph, 1e-8, solver).solved)
        counts.append(len(calls))
    assert counts[1] < 0.5 * counts[0], counts


def test_views_in_one_place_leave_groups_empty_and_do_no_harm(generator, device, monkeypatch):
    """Nothing turns or grows about a middle where all cameras stand, and all but one group have no view."""
    monkeypatch.setattr(coarse_space, "VIEWS_PER_GROUP", 4)
    scene = make_scene(generator, views=20, points=80, seen_by=20, noise_px=0.5)
    start = replace(scene, cam_from_world=scene.cam_from_world[:1].expand(20, 3, 4).clone())
    objective = Objective(on_device(start, device), CONFIG)
    space = make_coarse_space(objective.start, objective.graph, objective.tells_depth)
    assert space.groups > 1
    assert len(space.group.unique()) == 1
    system, matrix = system_of(objective, damping=1.0)
    solver = factorise(space, system, objective.graph)
    assert bool(solver.usable)
    residual = torch.randn(len(matrix), generator=generator, dtype=torch.float64).to(matrix)
    n = 6 * objective.graph.views
    step = torch.cat([x.flatten() for x in solver.correction(residual[:n].view(-1, 6), residual[n:])])
    assert float(step @ residual) > 0, "a correction goes down"


def test_points_that_are_directions_do_not_scatter_the_groups(generator):
    """A point as good as infinitely far, seen by two views, does not make a group of these."""
    scene = make_scene(generator, views=40, points=200)
    far = torch.tensor([[0.0, 0.0, 1e6]], dtype=torch.float64)
    more = replace(
        scene,
        points=torch.cat([scene.points, far]),
        view_index=torch.cat([scene.view_index, torch.tensor([3, 4])]),
        point_index=torch.cat([scene.point_index, torch.tensor([200, 200])]),
        pixels=torch.cat([scene.pixels, torch.full((2, 2), 240.0).double()]),
    )
    spaces = []
    for problem in (scene, more):
        objective = Objective(problem, CONFIG)
        spaces.append(make_coarse_space(objective.start, objective.graph, objective.tells_depth))
    assert torch.equal(spaces[0].group, spaces[1].group)
