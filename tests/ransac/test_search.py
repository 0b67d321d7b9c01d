"""Rounds and early stop, weights and given poses."""

import math
from dataclasses import replace

import pypose as pp
import pytest
import torch
from reference.pose_results import PRESETS, identical, pose_rows
from reference.posed_scene import make_scene
from reference.slow_absolute_pose import score_one

from acezero_gpu.geometry import PinholeCamera, matrix_from_se3, retract, se3_from_matrix
from acezero_gpu.pnp import PoseStatus
from acezero_gpu.ransac import RansacConfig, estimate_absolute_pose, search
from acezero_gpu.ransac.correspondences import make_correspondences
from acezero_gpu.ransac.sampling import ImageStreams

OK = PoseStatus.OK
BALANCED = RansacConfig.balanced()


def scene_of(outliers: float, batch: int = 4, **options):
    return make_scene(batch, outliers=outliers, noise_px=1.5, rows=24, columns=32, **options)


def mixed(device: torch.device | str = "cpu"):
    """Images 0, 2, ... have few outliers, images 1, 3, ... many; the poses are those of either scene."""
    easy, hard = scene_of(0.1, 6, device=device), scene_of(0.8, 6, device=device)
    points = easy.points.clone()
    points[1::2] = hard.points[1::2]
    return easy, points


@pytest.fixture
def solved(monkeypatch) -> list[tuple[int, int]]:
    """Images and samples of every call of the minimal solver."""
    calls: list[tuple[int, int]] = []
    solver = search.exhaustive_hypotheses

    def counted(data, samples, **options):
        calls.append(tuple(samples.shape[:2]))
        return solver(data, samples, **options)

    monkeypatch.setattr(search, "exhaustive_hypotheses", counted)
    return calls


def test_easy_images_take_one_round_and_hard_ones_go_on_alone(solved):
    easy, points = mixed()
    estimate_absolute_pose(easy.points, easy.pixels, easy.camera, BALANCED)
    assert solved == [(6, 256)]
    solved.clear()
    estimate_absolute_pose(points, easy.pixels, easy.camera, BALANCED)
    assert solved[0] == (6, 256)
    assert solved[1] == (3, 128)
    assert [samples for _, samples in solved] == list(BALANCED.rounds)[: len(solved)]


def test_images_without_points_do_not_prolong_the_search(solved):
    easy, points = mixed()
    points[1::2] = math.nan
    result = estimate_absolute_pose(points, easy.pixels, easy.camera, BALANCED)
    assert solved == [(6, 256)]
    assert result.status.tolist() == [OK, PoseStatus.TOO_FEW_POINTS] * 3


def test_images_that_are_done_do_not_change(monkeypatch):
    """The same result bit by bit, whether later rounds are computed for them, as on a GPU, or not."""
    easy, points = mixed()
    run = lambda: estimate_absolute_pose(points, easy.pixels, easy.camera, BALANCED)  # noqa: E731
    left_out = run()
    monkeypatch.setattr(search, "_may_look", lambda device: False)
    assert identical(run(), left_out)
    # Neither does it matter how hard the others are.
    alone = estimate_absolute_pose(easy.points, easy.pixels, easy.camera, BALANCED)
    assert identical(alone, left_out, [0, 2, 4])
    # Without an early stop later rounds do find others.
    monkeypatch.setattr(
        search, "_confident", lambda subset, *_: torch.zeros(len(subset.usable), dtype=torch.bool)
    )
    assert not identical(run(), left_out)


@pytest.mark.parametrize("outliers", [0.1, 0.5, 0.75])
def test_early_stop_loses_nothing(device, outliers):
    scene = scene_of(outliers, 16, device=device, seed=3)
    run = lambda config: estimate_absolute_pose(scene.points, scene.pixels, scene.camera, config)  # noqa: E731
    stopped, full = run(BALANCED), run(replace(BALANCED, first_round=None))
    assert (stopped.score > 0.98 * full.score).all()
    assert stopped.score.mean() > 0.998 * full.score.mean()
    _, distance = scene.errors(matrix_from_se3(stopped.cam_from_world))
    assert distance.max() < 0.05


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("preset", ["fast", "balanced"])
def test_confidence_equals_the_slow_twin(preset, weighted):
    """Done if the chance that no sample was free of outliers is below what is left of the confidence."""
    batch, n = 12, 48
    scenes = [
        make_scene(1, outliers=0.08 * k, noise_px=1.0, rows=6, columns=8, dtype=torch.float64, seed=k)
        for k in range(batch)
    ]
    points, pose = (torch.cat([getattr(s, field) for s in scenes]) for field in ("points", "cam_from_world"))
    g = torch.Generator().manual_seed(0)
    weights = torch.rand(batch, n, generator=g, dtype=torch.float64) if weighted else None
    mask = torch.rand(batch, n, generator=g) < 0.8
    camera, pixels = scenes[0].camera, scenes[0].pixels
    wide = PinholeCamera(camera.focal_px.expand(batch, 2), camera.principal_point_px.expand(batch, 2))
    data = make_correspondences(points, pixels.expand(batch, n, 2), wide, mask, weights)
    config = replace(PRESETS[preset], confidence=0.99)
    numbers = (camera.focal_px.numpy(), camera.principal_point_px.numpy(), config.max_error_px, "count")
    seen = set()
    for drawn in (1, 5, 30, 200, 2000, 50_000):
        done = search._confident(data, pose, drawn, config)
        for i in range(batch):
            weight = mask[i].double() if weights is None else weights[i] * mask[i]
            good = [
                score_one(
                    pose[i].numpy(), points[i, j : j + 1].numpy(), pixels[j : j + 1].numpy(), [True], *numbers
                )
                for j in range(n)
            ]
            share = float((weight * torch.tensor(good)).sum() / weight.sum())
            missed = (1 - share**config.sample_size) ** drawn
            assert done[i].item() == (missed < 1 - config.confidence)
            seen.add(done[i].item())
    assert seen == {True, False}


@pytest.mark.parametrize("preset", PRESETS)
def test_zero_weight_is_a_mask(device, preset):
    scene = scene_of(0.4, device=device)
    mask = torch.rand(4, 768, generator=torch.Generator().manual_seed(1)).to(device) < 0.5
    ones = torch.ones(4, 768, device=device)

    def run(points, weights, mask=None):
        return estimate_absolute_pose(
            points, scene.pixels, scene.camera, PRESETS[preset], mask=mask, weights=weights
        )

    masked = run(scene.points, ones, mask)
    assert identical(run(scene.points, torch.where(mask, ones, 0)), masked)
    garbage = torch.where(mask[..., None], scene.points, -1e6)
    for unused in (-1.0, math.nan, math.inf, -math.inf):
        assert identical(run(garbage, torch.where(mask, ones, unused)), masked)
    assert not masked.inliers[~mask].any()


def test_points_are_drawn_by_weight_and_only_usable_ones(device):
    weights = torch.tensor([[1.0, 2, 3, 4, 0, 0, 0, 0, 0, 0]], device=device)
    scene = make_scene(1, rows=6, columns=8, device=device)
    data = make_correspondences(
        scene.points[:, :10],
        scene.pixels[None, :10],
        PinholeCamera(scene.camera.focal_px[None], scene.camera.principal_point_px[None]),
        torch.ones(1, 10, dtype=torch.bool, device=device),
        weights,
    )
    config = replace(BALANCED, subset_points=0, prescore_points=0)
    streams = ImageStreams.draw(1, torch.Generator().manual_seed(0), torch.device(device))
    images = search._Images.of(data, config, streams)
    share = images.draw(0, 40_000, config).flatten().bincount(minlength=10) / 120_000
    assert (share - weights[0] / 10).abs().max() < 0.01
    assert (share[4:] == 0).all()


@pytest.mark.parametrize("preset", PRESETS)
def test_the_unit_of_the_weights_does_not_matter(device, dtype, preset):
    scene = scene_of(0.4, device=device, dtype=dtype)
    weights = torch.rand(4, 768, generator=torch.Generator().manual_seed(1)).to(device, dtype) + 0.01

    def run(weights):
        return estimate_absolute_pose(
            scene.points, scene.pixels, scene.camera, PRESETS[preset], weights=weights
        )

    result = run(weights)
    for unit in (2.0**-100, 0.3, 2.0**60, 1e37):
        other = run(weights * unit)
        assert (pose_rows(other) - pose_rows(result)).abs().max() < (1e-4 if dtype == torch.float32 else 1e-6)
        assert torch.allclose(other.score, result.score * unit, rtol=1e-4)
        assert (other.status == OK).all()
    # Weights that are all the same are no weights, but for the draws.
    same = run(torch.full_like(weights, 4.0))
    assert identical(run(torch.ones_like(weights)), replace(same, score=same.score / 4))


@pytest.mark.parametrize("preset", ["fast", "balanced"])
def test_weights_that_know_the_outliers_bear_more_of_them(device, preset):
    scene = scene_of(0.95, 8, device=device)
    weights = torch.where(scene.outlier, 0.01, 1.0)

    def distance(**options):
        result = estimate_absolute_pose(scene.points, scene.pixels, scene.camera, PRESETS[preset], **options)
        return scene.errors(matrix_from_se3(result.cam_from_world))[1]

    assert distance(weights=weights).max() < 0.1
    assert distance().median() > 0.5


def off_by(scene, size: float):
    """The true poses after a turn and a move of about ``size`` radians and metres, as SE3."""
    step = torch.randn(len(scene.points), 6, generator=torch.Generator().manual_seed(9)).double()
    step = size * step / step.norm(dim=-1, keepdim=True)
    pose = retract(scene.cam_from_world.cpu(), step)
    return pp.SE3(se3_from_matrix(pose).tensor().to(scene.points))


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize(
    ("size", "outliers"), [(0.0, 0.95), (0.02, 0.9), (0.08, 0.5)], ids=["exact", "10 px", "40 px"]
)
def test_a_given_pose_is_refined_without_hypotheses(device, dtype, preset, size, outliers):
    """Up to several times the threshold of 10 px away."""
    scene = scene_of(outliers, 8, device=device, dtype=dtype)
    config = replace(PRESETS[preset], hypotheses=0)
    result = estimate_absolute_pose(
        scene.points, scene.pixels, scene.camera, config, initial=off_by(scene, size)
    )
    assert (result.status == OK).all()
    _, distance = scene.errors(matrix_from_se3(result.cam_from_world))
    assert distance.max() < 0.06


@pytest.mark.parametrize("preset", PRESETS)
def test_a_good_given_pose_wins_and_a_wrong_one_never_hurts(device, preset):
    scene = scene_of(0.4, 8, device=device)
    run = lambda **options: estimate_absolute_pose(  # noqa: E731
        scene.points, scene.pixels, scene.camera, PRESETS[preset], **options
    )
    without, wrong = run(), run(initial=off_by(scene, 3.0))
    assert (wrong.status == OK).all()
    assert (wrong.score > 0.99 * without.score).all()
    assert scene.errors(matrix_from_se3(wrong.cam_from_world))[1].max() < 0.05

    hard = scene_of(0.95, 8, device=device)
    few = replace(PRESETS[preset], hypotheses=2)
    result = estimate_absolute_pose(hard.points, hard.pixels, hard.camera, few, initial=off_by(hard, 0.01))
    assert hard.errors(matrix_from_se3(result.cam_from_world))[1].max() < 0.1


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("preset", PRESETS)
def test_given_poses_that_are_not_finite_are_ignored(device, preset, value):
    scene = scene_of(0.4, 4, device=device)
    config = PRESETS[preset]
    initial = off_by(scene, 0.02).tensor()
    initial[1, 3], initial[3] = value, value
    result = estimate_absolute_pose(scene.points, scene.pixels, scene.camera, config, initial=pp.SE3(initial))
    without = estimate_absolute_pose(scene.points, scene.pixels, scene.camera, config)
    assert identical(result, without, [1, 3])
    only = estimate_absolute_pose(
        scene.points, scene.pixels, scene.camera, replace(config, hypotheses=0), initial=pp.SE3(initial)
    )
    assert only.status.tolist() == [OK, PoseStatus.NO_HYPOTHESIS] * 2
