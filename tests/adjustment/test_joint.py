"""Joint adjustment from raw matches: rough poses and a wrong camera end at the truth, bad matches harm nobody."""

from dataclasses import replace

import pytest
import torch
from reference.analytic_world import World, make_world
from reference.two_pass_triangulation import triangulated_twice
from torch import Tensor

from acezero_gpu.adjustment import (
    BundleAdjustmentConfig,
    BundleAdjustmentResult,
    BundleProblem,
    bundle_adjust,
    joint,
)
from acezero_gpu.adjustment.joint import JointConfig, JointResult, adjust_views, triangulate_views
from acezero_gpu.adjustment.match_graph import PairMatches
from acezero_gpu.adjustment.tracks import build_tracks
from acezero_gpu.geometry import PinholeCamera, reproject
from acezero_gpu.geometry.triangulation import REFINEMENT_STEPS

VIEWS, POINTS = 8, 120
UNREACHED = 535.0
"""An angle in degrees that not even a third of is seen."""


@pytest.fixture
def world(device: torch.device) -> World:
    return make_world(views=VIEWS, points=POINTS, seed=2).to(device)


def matches_of(world: World, generator: torch.Generator, *, wrong: float, views: range) -> PairMatches:
    """Every point in every pair of views; a share of the matches leads to some other keypoint."""
    pairs = torch.tensor([(a, b) for a in views for b in views if a < b]).repeat_interleave(POINTS, dim=0)
    keypoint_a = torch.arange(POINTS).repeat(len(pairs) // POINTS)
    other = torch.randint(POINTS, (len(pairs),), generator=generator)
    keypoint_b = torch.where(torch.rand(len(pairs), generator=generator) < wrong, other, keypoint_a)
    return PairMatches(*(x.to(world.points.device) for x in (*pairs.unbind(-1), keypoint_a, keypoint_b)))


def seen_pixels(world: World, generator: torch.Generator, noise_px: float = 0.3) -> Tensor:
    noise = noise_px * torch.randn(VIEWS, POINTS, 2, generator=generator)
    return world.pixels() + noise.to(world.points.device)


def with_focal(world: World, factor: float) -> PinholeCamera:
    return PinholeCamera(world.camera.focal_px * factor, world.camera.principal_point_px)


def adjust(
    world: World,
    matches: PairMatches,
    pixels: Tensor,
    poses: Tensor,
    *,
    camera: PinholeCamera | None = None,
    config: JointConfig | None = None,
    **arguments: object,
) -> JointResult:
    return adjust_views(
        matches, pixels, poses, camera or world.camera, config or JointConfig(), pixel_scale=1.0, **arguments
    )


def test_rough_poses_and_a_wrong_focal_length_converge_to_the_truth(world, generator):
    matches = matches_of(world, generator, wrong=0.2, views=range(VIEWS))
    pixels = seen_pixels(world, generator)
    start = world.disturbed_poses(generator, 0.01)
    result = adjust(world, matches, pixels, start, camera=with_focal(world, 1.04))
    before, after = world.pose_errors(start), world.pose_errors(result.cam_from_world)
    assert before[0] > 0.8
    assert after[0] < 0.05
    assert after[1] < 0.005
    assert abs(float(result.camera.focal_px[0] / world.camera.focal_px[0]) - 1) < 0.003
    # Most points survive, nearly in all views, and the error is the noise.
    assert len(result.points) > 0.65 * POINTS
    assert (result.observations_per_view > 0.6 * POINTS).all()
    assert 0.2 < result.error_px.median() < 0.5
    assert result.error_px.max() < JointConfig().max_error_px


def test_its_records_fit_together(world, generator):
    """Errors, depths and indices are those of the returned poses, points and camera."""
    matches = matches_of(world, generator, wrong=0.1, views=range(VIEWS))
    pixels = seen_pixels(world, generator)
    result = adjust(world, matches, pixels, world.disturbed_poses(generator, 0.005))
    seen = reproject(
        result.points[result.point_index][:, None], result.cam_from_world[result.view_index], result.camera
    )
    error = (seen.pixels[:, 0] - pixels[result.view_index, result.keypoint_index]).norm(dim=-1)
    torch.testing.assert_close(error, result.error_px, atol=5e-3, rtol=0)
    torch.testing.assert_close(seen.depth[:, 0], result.depth(), atol=1e-4, rtol=1e-4)
    assert (result.depth() > 0).all()
    assert (torch.bincount(result.point_index, minlength=len(result.points)) >= 2).all()
    # A point that holds a keypoint of the truth holds the same one in all views.
    for point in range(0, len(result.points), 10):
        assert len(result.keypoint_index[result.point_index == point].unique()) == 1


def test_no_matches_leave_everything_as_it_was(world, generator):
    nothing = PairMatches.concatenate([], world.points.device)
    start = world.disturbed_poses(generator)
    result = adjust(world, nothing, seen_pixels(world, generator), start, camera=with_focal(world, 1.1))
    assert torch.equal(result.cam_from_world, start)
    assert torch.equal(result.camera.focal_px, 1.1 * world.camera.focal_px)
    assert len(result.points) == len(result.error_px) == len(result.depth()) == 0
    assert result.observations_per_view.tolist() == [0] * VIEWS


def test_nothing_but_wrong_matches_never_raises(world, generator):
    matches = matches_of(world, generator, wrong=1.0, views=range(VIEWS))
    start = world.disturbed_poses(generator, 0.01)
    result = adjust(world, matches, seen_pixels(world, generator), start)
    assert result.cam_from_world.isfinite().all()
    # A few pairs agree by chance.
    assert len(result.view_index) < 0.3 * VIEWS * POINTS
    assert result.error_px.isfinite().all()


def test_a_view_without_matches_keeps_its_pose(world, generator):
    matches = matches_of(world, generator, wrong=0.0, views=range(VIEWS - 2))
    start = world.disturbed_poses(generator, 0.01)
    result = adjust(world, matches, seen_pixels(world, generator), start)
    assert torch.equal(result.cam_from_world[-2:], start[-2:])
    assert (result.cam_from_world[1:-2] - start[1:-2]).abs().flatten(1).amax(1).min() > 1e-4
    assert result.observations_per_view[-2:].tolist() == [0, 0]


def test_held_views_do_not_move(world, generator):
    matches = matches_of(world, generator, wrong=0.1, views=range(VIEWS))
    start = world.disturbed_poses(generator, 0.01)
    start[:3] = world.cam_from_world[:3]
    held = torch.arange(VIEWS, device=world.points.device) < 3
    result = adjust(world, matches, seen_pixels(world, generator), start, fixed_views=held)
    torch.testing.assert_close(result.cam_from_world[:3], start[:3], atol=1e-6, rtol=0)
    # With the frame given, poses are right as they stand.
    assert (result.cam_from_world - world.cam_from_world).abs().max() < 0.02


def test_a_focal_length_that_is_known_stays(world, generator):
    config = replace(JointConfig(), bundle=replace(JointConfig().bundle, refine_focal=False))
    matches = matches_of(world, generator, wrong=0.0, views=range(VIEWS))
    start = world.disturbed_poses(generator, 0.01)
    result = adjust(world, matches, seen_pixels(world, generator), start, config=config)
    assert torch.equal(result.camera.focal_px, world.camera.focal_px)
    assert world.pose_errors(result.cam_from_world)[0] < 0.05


def test_a_distorting_lens_is_found(world, generator):
    radial = torch.tensor([-0.15, 0.02], device=world.points.device)
    plane = world.camera.normalised(seen_pixels(world, generator, noise_px=0.2))
    r2 = plane.square().sum(-1, keepdim=True)
    pixels = plane * (1 + radial[0] * r2 + radial[1] * r2**2) * world.camera.focal_px
    pixels = pixels + world.camera.principal_point_px
    matches = matches_of(world, generator, wrong=0.1, views=range(VIEWS))
    start = world.disturbed_poses(generator, 0.003)
    config = replace(JointConfig(), bundle=replace(JointConfig().bundle, refine_radial=True))
    found = adjust(world, matches, pixels, start, config=config)
    assert (found.radial - radial).abs()[0] < 0.02
    assert world.pose_errors(found.cam_from_world)[0] < 0.1
    told = adjust(world, matches, pixels, start, radial=radial)
    assert world.pose_errors(told.cam_from_world)[0] < 0.1
    untold = adjust(world, matches, pixels, start)
    assert len(untold.view_index) < len(told.view_index)


def test_observations_beyond_the_last_threshold_are_dropped(world, generator):
    """One keypoint in ten lies three pixels off: near enough for a track, too far to stay."""
    pixels = seen_pixels(world, generator, noise_px=0.1)
    off = torch.rand(VIEWS, POINTS, generator=generator) < 0.1
    angle = 6.28 * torch.rand(VIEWS, POINTS, generator=generator)
    shift = 3 * torch.stack([angle.cos(), angle.sin()], dim=-1) * off[..., None]
    matches = matches_of(world, generator, wrong=0.0, views=range(VIEWS))
    result = adjust(world, matches, pixels + shift.to(pixels), world.cam_from_world)
    assert result.error_px.max() < JointConfig().max_error_px
    kept = torch.zeros(VIEWS, POINTS, dtype=torch.bool)
    kept[result.view_index.cpu(), result.keypoint_index.cpu()] = True
    assert kept[off].float().mean() < 0.1
    assert kept[~off].float().mean() > 0.95


def test_a_spread_choice_of_points_serves_as_well_as_all(world, generator, monkeypatch):
    """A third of the points adjusts the poses nearly as well; all points come back."""
    matches = matches_of(world, generator, wrong=0.1, views=range(VIEWS))
    pixels = seen_pixels(world, generator)
    start = world.disturbed_poses(generator, 0.01)
    sizes: list[int] = []

    def counted(problem: BundleProblem, config: BundleAdjustmentConfig) -> BundleAdjustmentResult:
        sizes.append(len(problem.points))
        return bundle_adjust(problem, config)

    monkeypatch.setattr(joint, "bundle_adjust", counted)
    every = adjust(world, matches, pixels, start)
    of_all = sizes[:3]
    sizes.clear()
    few = JointConfig(all_up_to=0, cells_per_side=3, points_per_cell=3)
    chosen = adjust(world, matches, pixels, start, config=few)
    assert max(sizes[:3]) < 0.5 * min(of_all)
    assert sizes[3] > 0.9 * of_all[-1], "in the end all points are fitted to the poses"
    assert abs(len(chosen.points) - len(every.points)) < 0.05 * POINTS
    exact, nearly = world.pose_errors(every.cam_from_world), world.pose_errors(chosen.cam_from_world)
    assert nearly[0] < 3 * exact[0] + 0.02
    assert nearly[1] < 3 * exact[1] + 0.002


@pytest.mark.parametrize("wrong", [0.0, 0.03, 1.0], ids=["no loss", "some", "everything"])
def test_points_placed_again_are_those_of_placing_all_again(world, generator, wrong):
    """Also tracks that lose one observation, and those that lose all."""
    matches = matches_of(world, generator, wrong=wrong, views=range(VIEWS))
    pixels = seen_pixels(world, generator)
    pixels[0, ::7] += 6.0  # lost alone
    pixels[1, ::11] += 40.0  # draws others along
    tracks = build_tracks(matches.view_a, matches.view_b, matches.keypoint_a, matches.keypoint_b, POINTS)
    start = joint._empty(world.cam_from_world, world.camera, torch.zeros_like(world.camera.focal_px))
    found = joint._triangulated(tracks, pixels, start, 2.0, 1.5, REFINEMENT_STEPS)
    points, *observations = triangulated_twice(tracks, pixels, start, 2.0, 1.5)
    exact = {"rtol": 0, "atol": 0} if points.device.type == "cpu" else {"rtol": 1e-5, "atol": 1e-4}
    torch.testing.assert_close(found.points, points, **exact)
    columns = (found.view_index, found.keypoint_index, found.point_index)
    assert all(torch.equal(a, b) for a, b in zip(columns, observations[:3], strict=True))
    torch.testing.assert_close(found.error_px, observations[3], **exact)
    lost = len(tracks) - len(found.view_index)
    assert lost > 0
    assert (len(points) > 0) == (wrong < 1)


def test_points_need_the_configured_angle(world, generator):
    """The cameras stand on an arc of 140 degrees."""
    matches = matches_of(world, generator, wrong=0.0, views=range(VIEWS))
    pixels = seen_pixels(world, generator)
    wide = adjust(world, matches, pixels, world.cam_from_world, config=JointConfig(min_angle_deg=60.0))
    wider = adjust(world, matches, pixels, world.cam_from_world, config=JointConfig(min_angle_deg=UNREACHED))
    assert len(wide.points) > 0.9 * POINTS
    assert len(wider.points) == 0
    assert torch.equal(wider.cam_from_world, world.cam_from_world)


@pytest.mark.parametrize(
    ("views", "min_angle_deg", "stay"), [(2, 8.0, True), (2, 75.0, False), (3, 75.0, True)]
)
def test_points_of_three_views_need_a_third_of_the_angle(world, generator, views, min_angle_deg, stay):
    """Neighbouring cameras see the points under 10 to 30 degrees."""
    matches = matches_of(world, generator, wrong=0.0, views=range(views))
    config = JointConfig(min_angle_deg=min_angle_deg)
    found = adjust(world, matches, seen_pixels(world, generator), world.cam_from_world, config=config)
    assert len(found.points) > 0.9 * POINTS if stay else len(found.points) < 0.1 * POINTS


def test_points_without_parallax_are_left_out(world, generator):
    """All cameras at one place: whatever the matches say, there is nothing to triangulate."""
    poses = world.cam_from_world[:1].repeat(VIEWS, 1, 1)
    still = replace(world, cam_from_world=poses)
    matches = matches_of(still, generator, wrong=0.0, views=range(VIEWS))
    result = adjust(still, matches, still.pixels(), poses)
    assert len(result.points) == 0
    assert torch.equal(result.cam_from_world, poses)


def test_all_points_that_fit_include_those_with_little_parallax(world, generator):
    """Exact poses and pixels: what the angle leaves out of an adjustment is found at its place all the same."""
    matches = matches_of(world, generator, wrong=0.1, views=range(VIEWS))
    config = JointConfig(min_angle_deg=UNREACHED)
    strict = adjust(world, matches, world.pixels(), world.cam_from_world, config=config)
    assert len(strict.points) == 0
    found = triangulate_views(matches, world.pixels(), strict, config, pixel_scale=1.0)
    assert len(found.points) > 0.5 * POINTS
    assert torch.equal(found.cam_from_world, world.cam_from_world)
    right = (found.points[found.point_index] - world.points[found.keypoint_index]).norm(dim=-1) < 1e-2
    assert right.float().mean() > 0.95
    moved = replace(strict, cam_from_world=world.cam_from_world.roll(1, 0))
    by_chance = triangulate_views(matches, world.pixels(), moved, config, pixel_scale=1.0)
    assert len(by_chance.view_index) < 0.2 * len(found.view_index)
