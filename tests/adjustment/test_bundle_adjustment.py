"""Joint adjustment against exact truth, with gauges, priors and bad input."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from adjustment_scenes import EVERYTHING, disturbed, make_scene, on_device, with_outliers

from acezero_gpu.adjustment import AdjustmentStatus, BundleProblem, bundle_adjust
from acezero_gpu.adjustment.objective import Objective
from acezero_gpu.adjustment.point_refinement import refine_points
from acezero_gpu.geometry import camera_centres, fit_similarity, rotation_angle_deg, transform_points


def errors_against(truth: BundleProblem, result) -> tuple[float, float]:
    """Largest error of a camera centre (share of the scene) and of a rotation, after the best similarity."""
    centres = camera_centres(result.cam_from_world)
    source, target = (
        torch.cat([centres, result.points]),
        torch.cat([camera_centres(truth.cam_from_world), truth.points]),
    )
    similarity = fit_similarity(source, target)
    aligned = similarity.apply_to_cameras(result.cam_from_world)
    angle = rotation_angle_deg(aligned[..., :3], truth.cam_from_world[..., :3]).max()
    distance = (similarity.apply(source) - target).norm(dim=-1).max() / target.norm(dim=-1).max()
    return float(distance), float(angle)


@pytest.mark.parametrize("focal_factor", [0.7, 1.3])
@pytest.mark.parametrize("dense_views", [600, 0], ids=["dense", "cg"])
def test_exact_truth_comes_back_from_a_wrong_start(generator, device, focal_factor, dense_views):
    truth = make_scene(generator, radial=(0.1, -0.05))
    start = disturbed(truth, generator, poses=0.02, points=0.05, focal_factor=focal_factor)
    result = bundle_adjust(on_device(start, device), replace(EVERYTHING, dense_views=dense_views))
    assert result.status == AdjustmentStatus.CONVERGED
    assert float(result.camera.focal_px[0]) == pytest.approx(500.0, rel=1e-5)
    assert result.radial.tolist() == pytest.approx([0.1, -0.05], abs=1e-5)
    assert result.residuals_px.abs().max() < 1e-3
    moved_back = replace(result, cam_from_world=result.cam_from_world.cpu(), points=result.points.cpu())
    assert max(errors_against(truth, moved_back)) < 1e-4


def test_principal_point_and_pixel_ratio(generator):
    """The principal point comes back; the ratio of the focal lengths stays what it was."""
    truth = make_scene(generator, views=10, points=100)
    ratio = torch.tensor([1.0, 0.9], dtype=torch.float64)
    pixels = (truth.pixels - truth.camera.principal_point_px) * ratio + torch.tensor([330.0, 225.0])
    start = replace(disturbed(truth, generator), pixels=pixels)
    start = replace(start, camera=replace(start.camera, focal_px=550 * ratio))
    result = bundle_adjust(start, replace(EVERYTHING, refine_principal_point=True, refine_radial=False))
    torch.testing.assert_close(result.camera.focal_px, 500 * ratio, rtol=1e-4, atol=0)
    torch.testing.assert_close(
        result.camera.principal_point_px, torch.tensor([330.0, 225.0]).double(), rtol=0, atol=0.05
    )


def test_single_precision_input_gives_single_precision_truth(generator, device):
    truth = make_scene(generator)
    start = disturbed(truth, generator, focal_factor=1.2)
    result = bundle_adjust(on_device(start, device, torch.float32), EVERYTHING)
    assert result.points.dtype == result.cam_from_world.dtype == result.residuals_px.dtype == torch.float32
    assert float(result.camera.focal_px[0]) == pytest.approx(500.0, rel=1e-3)


def test_gauge_without_held_views(generator):
    """The first observed view stays, and the cameras spread as far as before."""
    problem = disturbed(make_scene(generator, noise_px=1.0), generator)
    problem = replace(problem, points=problem.points * 1.05)
    result = bundle_adjust(problem)

    def spread(poses: torch.Tensor) -> float:
        centres = camera_centres(poses)
        return float((centres - centres.mean(0)).norm(dim=-1).mean())

    assert spread(result.cam_from_world) == pytest.approx(spread(problem.cam_from_world), rel=1e-9)
    torch.testing.assert_close(result.cam_from_world[0], problem.cam_from_world[0], rtol=0, atol=1e-12)
    assert result.cost_final < 0.1 * result.cost_initial


def test_points_moved_by_themselves_save_steps_of_the_whole(generator):
    problem = with_outliers(disturbed(make_scene(generator, noise_px=1.0, points=200), generator), generator)
    config = replace(EVERYTHING, cost_tolerance=1e-7)
    without, found = (bundle_adjust(problem, replace(config, point_steps=steps)) for steps in (0, 3))
    assert found.cost_final <= without.cost_final * (1 + 1e-6)
    assert found.iterations < 0.7 * without.iterations


def test_points_moved_by_themselves_end_where_an_adjustment_of_points_alone_does(generator, device):
    problem = on_device(disturbed(make_scene(generator, noise_px=1.0), generator), device)
    config = replace(EVERYTHING, refine_poses=False, refine_focal=False, refine_radial=False)
    expected = bundle_adjust(problem, replace(config, point_steps=0))
    objective = Objective(problem, config)
    estimate, cost = refine_points(objective, objective.start, 60)
    assert float(cost) == pytest.approx(expected.cost_final, rel=1e-8)
    assert float(cost) == pytest.approx(
        float(objective.cost(estimate, objective.predict(estimate))), rel=1e-12
    )
    torch.testing.assert_close(estimate.points, expected.points, rtol=0, atol=1e-4)
    # One step never raises the cost of any point, however wrong the start.
    bad = Objective(replace(problem, points=5 * problem.points), config)
    before = bad.point_costs(bad.predict(bad.start))
    after = bad.point_costs(bad.predict(refine_points(bad, bad.start, 1)[0]))
    assert (after <= before).all()
    assert (after < before).any()


def test_residuals_and_depth_are_those_of_the_returned_estimate(generator):
    problem = disturbed(make_scene(generator, noise_px=1.0, radial=(0.1, 0.0)), generator)
    result = bundle_adjust(problem, EVERYTHING)
    cam = transform_points(
        result.cam_from_world[problem.view_index], result.points[problem.point_index][:, None]
    )[:, 0]
    plane = cam[:, :2] / cam[:, 2:]
    r2 = plane.square().sum(-1, keepdim=True)
    distorted = plane * (1 + result.radial[0] * r2 + result.radial[1] * r2**2)
    pixels = distorted * result.camera.focal_px + result.camera.principal_point_px
    torch.testing.assert_close(result.residuals_px, pixels - problem.pixels, rtol=0, atol=1e-8)
    torch.testing.assert_close(result.depth, cam[:, 2])


@pytest.mark.parametrize("held", ["poses", "points", "both"])
def test_what_is_held_does_not_move(generator, held):
    problem = disturbed(make_scene(generator, noise_px=0.3), generator)
    config = replace(EVERYTHING, refine_poses=held == "points", refine_points=held == "poses")
    result = bundle_adjust(problem, config)
    assert torch.equal(result.cam_from_world, problem.cam_from_world) == (held != "points")
    assert torch.equal(result.points, problem.points) == (held != "poses")
    assert result.cost_final < result.cost_initial


def test_points_behind_and_values_not_finite_leave_the_rest_alone(generator, device):
    truth = make_scene(generator, views=10, points=80)
    start = disturbed(truth, generator)
    points, poses, pixels = start.points.clone(), start.cam_from_world.clone(), start.pixels.clone()
    points[0] = torch.nan
    points[1] = torch.tensor([0.0, 0.0, -100.0])
    poses[3] = torch.nan
    pixels[5] = torch.inf
    bad = on_device(replace(start, points=points, cam_from_world=poses, pixels=pixels), device)
    result = bundle_adjust(bad, EVERYTHING)
    others = torch.ones(80, dtype=torch.bool)
    others[:2] = False
    good = others[truth.point_index] & (truth.view_index != 3)
    good[5] = False
    assert result.residuals_px.cpu()[good].abs().max() < 1e-2
    assert result.residuals_px.isfinite().all()
    assert result.points.cpu()[others].isfinite().all()
    assert np.isfinite(result.cost_final)
    assert float(result.camera.focal_px[0]) == pytest.approx(500.0, rel=1e-4)


def test_observations_without_weight_have_no_influence(generator):
    problem = disturbed(make_scene(generator, noise_px=0.5), generator)
    ignored = torch.rand(len(problem.pixels), generator=generator) < 0.2
    spoilt = replace(problem, pixels=problem.pixels + 500 * ignored[:, None], weights=(~ignored).double())
    kept = replace(
        problem,
        view_index=problem.view_index[~ignored],
        point_index=problem.point_index[~ignored],
        pixels=problem.pixels[~ignored],
    )
    a, b = bundle_adjust(spoilt, EVERYTHING), bundle_adjust(kept, EVERYTHING)
    assert a.cost_final == pytest.approx(b.cost_final, rel=1e-6)


def test_a_strong_prior_holds_the_focal_length(generator):
    problem = disturbed(make_scene(generator, noise_px=0.5), generator, focal_factor=1.2)
    free = bundle_adjust(problem, EVERYTHING)
    held = bundle_adjust(problem, replace(EVERYTHING, focal_prior_weight=1e9))
    fixed = bundle_adjust(problem, replace(EVERYTHING, refine_focal=False))
    assert float(free.camera.focal_px[0]) == pytest.approx(500.0, rel=0.05)
    assert float(held.camera.focal_px[0]) == pytest.approx(600.0, rel=1e-3)
    assert held.cost_final == pytest.approx(fixed.cost_final, rel=1e-3)


def test_a_prior_is_weighed_against_the_observations(generator):
    """At the focal length found, the cost of the rest plus the documented prior is least."""
    weight = 1e4
    problem = disturbed(make_scene(generator, noise_px=0.5), generator, focal_factor=1.2)
    config = replace(EVERYTHING, refine_radial=False)
    found = float(bundle_adjust(problem, replace(config, focal_prior_weight=weight)).camera.focal_px[0])

    def total(focal: float) -> float:
        camera = replace(problem.camera, focal_px=torch.full((2,), focal, dtype=torch.float64))
        rest = bundle_adjust(replace(problem, camera=camera), replace(config, refine_focal=False)).cost_final
        return rest + 0.5 * weight * np.log(focal / 600.0) ** 2

    assert 510 < found < 590
    assert total(found) < min(total(0.995 * found), total(1.005 * found))


def test_nothing_to_adjust(device):
    camera = make_scene(torch.Generator().manual_seed(0)).camera.to(device)
    none = torch.zeros(0, dtype=torch.long, device=device)
    poses = torch.eye(3, 4, dtype=torch.float64, device=device).repeat(2, 1, 1)
    empty = BundleProblem(poses, poses.new_zeros(0, 3), camera, none, none, poses.new_zeros(0, 2))
    result = bundle_adjust(empty)
    assert result.status == AdjustmentStatus.EMPTY
    assert torch.equal(result.cam_from_world, poses)
    assert result.cost_final == 0.0


def test_a_perfect_start_stays(generator):
    truth = make_scene(generator)
    result = bundle_adjust(truth, EVERYTHING)
    assert result.status == AdjustmentStatus.CONVERGED
    torch.testing.assert_close(result.points, truth.points, rtol=0, atol=1e-9)
