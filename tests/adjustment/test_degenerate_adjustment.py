"""Input that determines less than it should: what is open stays where it is, the rest is adjusted."""

from dataclasses import replace

import pytest
import torch
from adjustment_scenes import (
    CONVERGED,
    disturbed,
    joined,
    make_scene,
    on_device,
    pixels_of,
    spread,
    with_points,
)

from acezero_gpu.adjustment import AdjustmentStatus, bundle_adjust
from acezero_gpu.geometry import camera_centres, retract


def test_points_that_one_view_sees_stand_still_and_pull_nothing(start):
    lonely = torch.tensor([[0.3, 0.2, 0.1], [-0.5, 0.4, 0.3], [0.0, 0.0, 0.0]]).double()
    pixels = torch.tensor([[0.0, 0.0], [600.0, 400.0], [100.0, 300.0], [110.0, 310.0]]).double()
    # The last is observed twice, by the same view.
    more = with_points(start, lonely, [1, 3, 4, 4], [0, 1, 2, 2], pixels)
    plain, result = bundle_adjust(start, CONVERGED), bundle_adjust(more, CONVERGED)
    count = len(start.points)
    assert torch.equal(result.points[count:], lonely)
    assert result.triangulated.tolist() == [True] * count + [False] * 3
    assert result.cost_final == pytest.approx(plain.cost_final, rel=1e-12)
    torch.testing.assert_close(result.cam_from_world, plain.cam_from_world, rtol=0, atol=1e-7)
    torch.testing.assert_close(result.points[:count], plain.points, rtol=0, atol=1e-7)
    assert result.residuals_px[-4:].norm(dim=-1).min() > 50


def test_known_points_count_even_if_one_view_sees_them(start):
    lonely = torch.tensor([[0.3, 0.2, 0.1]]).double()
    more = with_points(start, lonely, [1], [0], torch.tensor([[0.0, 0.0]]).double())
    config = replace(CONVERGED, refine_points=False)
    assert bundle_adjust(more, config).cost_final > bundle_adjust(start, config).cost_final + 100


def test_views_without_observations_keep_their_poses(start):
    unseen = start.view_index == 2
    weights = (~unseen).double()
    for problem in (
        replace(start, weights=weights),
        replace(start, pixels=torch.where(unseen[:, None], torch.nan, start.pixels)),
        replace(
            start,
            view_index=start.view_index[~unseen],
            point_index=start.point_index[~unseen],
            pixels=start.pixels[~unseen],
        ),
    ):
        result = bundle_adjust(problem, CONVERGED)
        assert torch.equal(result.cam_from_world[2], start.cam_from_world[2])
        assert result.component_of_view.tolist() == [0, 0, -1, 0, 0, 0, 0, 0]
        assert not torch.equal(result.cam_from_world[3], start.cam_from_world[3])


def test_parts_that_nothing_connects_are_adjusted_each_in_its_own_gauge(generator, device):
    a = disturbed(make_scene(generator, noise_px=0.5, views=5, seen_by=4), generator)
    b = disturbed(make_scene(generator, noise_px=0.5, views=6, points=40, seen_by=4), generator)
    a, b = replace(a, points=1.1 * a.points), replace(b, points=0.93 * b.points)
    both = bundle_adjust(on_device(joined(a, b), device), CONVERGED)
    poses, points = both.cam_from_world.cpu(), both.points.cpu()
    assert both.num_components == 2
    assert both.component_of_view.tolist() == [0] * 5 + [1] * 6
    for problem, mine, seen in ((a, poses[:5], points[:60]), (b, poses[5:], points[60:])):
        alone = bundle_adjust(problem, replace(CONVERGED, cost_tolerance=1e-12))
        assert torch.equal(mine[0], problem.cam_from_world[0])
        assert spread(mine) == pytest.approx(spread(problem.cam_from_world), rel=1e-9)
        torch.testing.assert_close(mine, alone.cam_from_world, rtol=0, atol=1e-4)
        torch.testing.assert_close(seen, alone.points, rtol=0, atol=1e-3)


def test_a_held_view_of_one_part_leaves_the_gauge_of_the_other(generator):
    a = disturbed(make_scene(generator, noise_px=0.5, views=5, seen_by=4), generator)
    b = disturbed(make_scene(generator, noise_px=0.5, views=6, seen_by=4), generator)
    held = torch.zeros(11, dtype=torch.bool)
    held[[1, 3]] = True
    problem = replace(joined(a, b), fixed_views=held)
    result = bundle_adjust(problem, CONVERGED)
    assert torch.equal(result.cam_from_world[held], problem.cam_from_world[held])
    assert torch.equal(result.cam_from_world[5], problem.cam_from_world[5])
    assert not torch.equal(result.cam_from_world[0], problem.cam_from_world[0])
    assert spread(result.cam_from_world[5:]) == pytest.approx(spread(b.cam_from_world), rel=1e-9)


def test_a_single_point_connects_two_parts(generator):
    a, b = make_scene(generator, views=4, seen_by=4), make_scene(generator, views=4, seen_by=4)
    both = joined(a, b)
    assert bundle_adjust(both, CONVERGED).num_components == 2
    shared = with_points(both, torch.zeros(1, 3).double(), [0, 5], [0, 0], torch.full((2, 2), 300.0).double())
    assert bundle_adjust(shared, CONVERGED).num_components == 1


def test_duplicate_views_change_nothing_but_their_weight(generator, start):
    """Every observation of view 3 once more, from an identical view: as if it counted twice."""
    mine = start.view_index == 3
    double = replace(
        start,
        cam_from_world=torch.cat([start.cam_from_world, start.cam_from_world[3:4]]),
        view_index=torch.cat([start.view_index, torch.full((int(mine.sum()),), 8)]),
        point_index=torch.cat([start.point_index, start.point_index[mine]]),
        pixels=torch.cat([start.pixels, start.pixels[mine]]),
    )
    twice = bundle_adjust(replace(start, weights=1.0 + mine.double()), CONVERGED)
    result = bundle_adjust(double, CONVERGED)
    assert result.cost_final == pytest.approx(twice.cost_final, rel=1e-6)
    torch.testing.assert_close(result.cam_from_world[8], result.cam_from_world[3], rtol=0, atol=1e-4)


def test_points_that_only_duplicates_see_keep_their_distance(start):
    double = replace(start, cam_from_world=torch.cat([start.cam_from_world, start.cam_from_world[3:4]]))
    mine = start.view_index == 3
    double = replace(
        double,
        view_index=torch.cat([start.view_index, torch.full((int(mine.sum()),), 8)]),
        point_index=torch.cat([start.point_index, start.point_index[mine]]),
        pixels=torch.cat([start.pixels, start.pixels[mine]]),
    )
    near = torch.tensor([[0.3, 0.2, 0.1], [-0.5, 0.4, 0.3]]).double()
    seen = pixels_of(start, 3, near)
    more = with_points(double, near, [3, 3, 8, 8], [0, 1, 0, 1], torch.cat([seen + 4, seen - 4]))
    result = bundle_adjust(more, CONVERGED)
    assert result.triangulated.tolist() == [True] * 60 + [False] * 2
    place = camera_centres(result.cam_from_world[3])
    before = (near - camera_centres(start.cam_from_world[3])).norm(dim=-1)
    torch.testing.assert_close((result.points[60:] - place).norm(dim=-1), before, rtol=0.02, atol=0)
    assert result.status == AdjustmentStatus.CONVERGED


def test_pure_rotation_keeps_the_distances_and_finds_the_rotation(generator, device):
    """Views in one place, and none elsewhere: depth is unknown, and no noise may pretend otherwise."""
    scene = make_scene(generator, views=5, points=80, seen_by=4)
    shift = torch.zeros(5, 3).double()
    place = camera_centres(scene.cam_from_world)[0]
    rotation = scene.cam_from_world[:1, :, :3].repeat(5, 1, 1)
    turn = torch.tensor([[0.0, 0.05 * k, 0.02 * k] for k in range(5)]).double()
    poses = torch.cat([rotation, (-rotation @ place)[..., None]], dim=-1)
    step = torch.cat([shift, turn], dim=-1)
    poses = bundle_rotated(poses, step)
    truth = replace(scene, cam_from_world=poses)
    pixels = torch.cat([pixels_of(truth, v, scene.points) for v in range(5)])
    noise = 0.3 * torch.randn(pixels.shape, generator=generator, dtype=torch.float64)
    problem = replace(
        truth,
        view_index=torch.arange(5).repeat_interleave(80),
        point_index=torch.arange(80).repeat(5),
        pixels=pixels + noise,
        cam_from_world=bundle_rotated(
            poses, 0.02 * torch.cat([shift, torch.randn(5, 3, generator=generator).double()], -1)
        ),
    )
    result = bundle_adjust(on_device(problem, device), CONVERGED)
    points, start_distance = result.points.cpu(), (problem.points - place).norm(dim=-1)
    assert not result.triangulated.any()
    torch.testing.assert_close((points - place).norm(dim=-1), start_distance, rtol=2e-2, atol=0)
    moved = (camera_centres(result.cam_from_world.cpu()) - place).norm(dim=-1)
    assert moved.max() < 0.02 * start_distance.min()
    assert result.residuals_px.square().mean() < 2 * 0.3**2


def bundle_rotated(poses: torch.Tensor, step: torch.Tensor) -> torch.Tensor:
    """Turned about the cameras' own centres."""
    centres = camera_centres(poses)
    rotation = retract(poses, step)[..., :3]
    return torch.cat([rotation, -rotation @ centres[..., None]], dim=-1)


@pytest.mark.parametrize("distance", [1e6, 1e12, 1e100, torch.inf])
def test_points_at_infinity_stay_there(generator, distance):
    start = disturbed(make_scene(generator, noise_px=0.5), generator, poses=0.002)
    ahead = start.cam_from_world[3, 2, :3]
    far = (distance * ahead)[None] if distance < torch.inf else torch.full((1, 3), torch.inf).double()
    views = [2, 3, 4]
    if distance < torch.inf:
        # Disparities that no point at that distance has, and none in front of the views.
        wrong = torch.tensor([[3.0, 0.0], [0.0, -2.0], [-3.0, 1.0]]).double()
        pixels = torch.cat([pixels_of(start, v, far) for v in views]) + wrong
    else:
        pixels = torch.full((3, 2), 300.0).double()
    result = bundle_adjust(with_points(start, far, views, [0, 0, 0], pixels), CONVERGED)
    plain = bundle_adjust(start, CONVERGED)
    assert not result.triangulated[-1]
    if distance < torch.inf:
        assert float(result.points[-1].norm()) == pytest.approx(distance, rel=1e-2)
    else:
        assert torch.equal(result.points[-1], far[0])
    assert result.residuals_px.isfinite().all()
    assert (result.points[:-1] - plain.points).norm(dim=-1).max() < 0.1
    assert result.status == AdjustmentStatus.CONVERGED
