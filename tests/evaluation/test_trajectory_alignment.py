"""Robust alignment: exact truth, outliers, lines, points, and what it says when nothing can be found."""

import math

import numpy as np
import pycolmap
import pytest
import torch
from evaluation_trajectories import (
    cameras_at,
    inverse,
    jittered,
    normal,
    random_similarity,
    random_trajectory,
    rotations,
    straight_trajectory,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from acezero_gpu.evaluation import AlignmentConfig, AlignmentStatus, align_trajectory, trajectory_extent
from acezero_gpu.evaluation.similarity_ransac import draw_samples
from acezero_gpu.geometry import Similarity, camera_centres, rotation_angle_deg

QUICK = AlignmentConfig(samples=500)


def assert_same_similarity(found: Similarity, expected: Similarity, tolerance: float = 1e-7) -> None:
    close = {"rtol": tolerance, "atol": tolerance}
    torch.testing.assert_close(found.rotation.cpu(), expected.rotation, **close)
    torch.testing.assert_close(found.scale.cpu(), expected.scale, **close)
    torch.testing.assert_close(found.translation.cpu(), expected.translation, **close)


@pytest.mark.parametrize("n", [3, 5, 40])
def test_an_exact_trajectory_is_carried_onto_the_truth(n, device, generator):
    truth, moved = random_trajectory(generator, n), random_similarity(generator)
    estimate = inverse(moved).apply_to_cameras(truth)
    found = align_trajectory(estimate.to(device), truth.to(device), config=QUICK)
    assert found.status is AlignmentStatus.ALIGNED
    assert found.status.trustworthy
    assert found.inliers.all()
    assert_same_similarity(found.similarity, moved)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), outliers=st.integers(0, 24))
def test_wrong_cameras_have_no_influence(seed, outliers):
    generator = torch.Generator().manual_seed(seed)
    truth, moved = random_trajectory(generator, 40), random_similarity(generator)
    estimate = inverse(moved).apply_to_cameras(truth)
    estimate[:outliers] = random_trajectory(generator, outliers)
    found = align_trajectory(estimate, truth)
    assert found.inliers[outliers:].all() and not found.inliers[:outliers].any()
    assert_same_similarity(found.similarity, moved)


def test_a_camera_in_the_right_place_with_a_wrong_view_is_no_inlier(generator):
    truth = random_trajectory(generator, 12)
    estimate = truth.clone()
    turn = rotations(generator, 1, 1.0)[0]
    estimate[4] = torch.cat([turn @ truth[4, :, :3], turn @ truth[4, :, 3:]], dim=-1)
    found = align_trajectory(estimate, truth, config=QUICK)
    assert found.inliers.tolist() == [i != 4 for i in range(12)]


def test_under_noise_it_is_colmaps_fit_of_the_inliers(generator):
    truth = random_trajectory(generator, 60)
    estimate = inverse(random_similarity(generator)).apply_to_cameras(jittered(generator, truth, 0.01, 0.3))
    estimate[:10] = random_trajectory(generator, 10)
    found = align_trajectory(estimate, truth)
    assert found.inliers.sum() == 50
    expected = pycolmap.estimate_sim3d(
        camera_centres(estimate[found.inliers]).numpy(), camera_centres(truth[found.inliers]).numpy()
    )
    assert found.similarity.scale.item() == pytest.approx(expected.scale, rel=1e-9)
    np.testing.assert_allclose(found.similarity.rotation.numpy(), expected.rotation.matrix(), atol=1e-9)
    np.testing.assert_allclose(found.similarity.translation.numpy(), expected.translation, atol=1e-9)


def test_a_straight_trajectory_takes_its_roll_from_the_orientations(device, generator):
    truth, moved = straight_trajectory(generator, 30), random_similarity(generator)
    estimate = inverse(moved).apply_to_cameras(truth)
    estimate[:8] = random_trajectory(generator, 8)
    found = align_trajectory(estimate.to(device), truth.to(device))
    assert found.status is AlignmentStatus.ALIGNED_WITH_ORIENTATIONS
    assert found.inliers.tolist() == [False] * 8 + [True] * 22
    assert_same_similarity(found.similarity, moved)


def test_the_roll_of_a_noisy_line_is_far_better_than_centres_alone_could_tell(generator):
    truth = straight_trajectory(generator, 40)
    estimate = jittered(generator, truth, 0.02, 0.5)
    found = align_trajectory(estimate, truth)
    assert found.status is AlignmentStatus.ALIGNED_WITH_ORIENTATIONS
    # Forty orientations of about 0.9 degrees each average to some 0.15; the centres' own roll is arbitrary.
    assert rotation_angle_deg(found.similarity.rotation, torch.eye(3).double()) < 0.5
    assert found.similarity.scale.item() == pytest.approx(1.0, abs=0.01)


def test_two_cameras_are_aligned_on_their_orientations(generator):
    truth, moved = random_trajectory(generator, 2), random_similarity(generator)
    found = align_trajectory(inverse(moved).apply_to_cameras(truth), truth)
    assert found.status is AlignmentStatus.ALIGNED_WITH_ORIENTATIONS
    assert_same_similarity(found.similarity, moved)


def test_cameras_in_one_place_give_a_rotation_alone(generator):
    turns = rotations(generator, 9)
    truth = cameras_at(normal(generator, 1, 3).expand(9, 3), turns)
    world = rotations(generator, 1)[0]
    estimate = cameras_at(torch.zeros(9, 3).double(), turns @ world)
    estimate[:2] = cameras_at(torch.zeros(2, 3).double(), rotations(generator, 2, 2.0))
    found = align_trajectory(estimate, truth)
    assert found.status is AlignmentStatus.COINCIDENT
    assert not found.status.has_positions
    torch.testing.assert_close(found.similarity.rotation, world)
    assert found.similarity.scale.isnan() and found.similarity.translation.isnan().all()
    assert found.inliers.tolist() == [False] * 2 + [True] * 7


@pytest.mark.parametrize("usable", [0, 1])
def test_fewer_than_two_cameras_give_nothing(usable, generator):
    truth = random_trajectory(generator, 5)
    found = align_trajectory(truth, truth, torch.arange(5) < usable)
    assert found.status is AlignmentStatus.TOO_FEW
    assert found.similarity.rotation.isnan().all()
    assert not found.inliers.any()


def test_unrelated_trajectories_are_called_so(device, generator):
    truth, estimate = random_trajectory(generator, 40), random_trajectory(generator, 40)
    found = align_trajectory(estimate.to(device), truth.to(device), config=QUICK)
    assert found.status is AlignmentStatus.NO_CONSENSUS
    assert not found.status.trustworthy and found.status.has_positions
    assert found.similarity.rotation.isfinite().all()


def test_without_consensus_half_of_the_centres_still_come_near(generator):
    # Six centres in ten are right and all orientations are wrong: no inliers, but a sensible fallback.
    truth = random_trajectory(generator, 30)
    estimate = cameras_at(camera_centres(truth), rotations(generator, 30, 2.0))
    estimate[18:] = random_trajectory(generator, 12)
    found = align_trajectory(estimate, truth)
    assert found.status is AlignmentStatus.NO_CONSENSUS
    assert_same_similarity(found.similarity, align_trajectory(truth, truth).similarity)


def test_cameras_that_are_not_finite_or_not_usable_take_no_part(generator):
    truth, moved = random_trajectory(generator, 12), random_similarity(generator)
    estimate = inverse(moved).apply_to_cameras(truth)
    estimate[0, 0, 0] = math.nan
    truth[1, 2, 3] = math.inf
    usable = torch.arange(12) != 2
    found = align_trajectory(estimate, truth, usable, QUICK)
    assert found.inliers.tolist() == [False] * 3 + [True] * 9
    assert_same_similarity(found.similarity, moved)


def test_scale_may_be_kept(generator):
    truth = random_trajectory(generator, 20)
    rigid = Similarity(torch.tensor(1.0).double(), rotations(generator, 1)[0], normal(generator, 3))
    estimate = inverse(rigid).apply_to_cameras(truth)
    fixed = AlignmentConfig(samples=500, with_scale=False)
    assert_same_similarity(align_trajectory(estimate, truth, config=fixed).similarity, rigid)
    doubled = Similarity(torch.tensor(2.0).double(), torch.eye(3).double(), torch.zeros(3).double())
    found = align_trajectory(doubled.apply_to_cameras(estimate), truth, config=fixed)
    assert found.similarity.scale.item() == 1.0
    assert found.inliers.sum() < 20


def test_thresholds_are_in_units_of_the_truth(generator):
    truth = random_trajectory(generator, 30)
    shift = torch.zeros(30, 3).double()
    shift[0, 0] = 0.08
    estimate = cameras_at(camera_centres(truth) + shift, truth[..., :3])
    inliers = {
        unit: align_trajectory(estimate, truth, config=AlignmentConfig(truth_unit_m=unit)).inliers[0].item()
        for unit in (1.0, 0.5)
    }
    # 0.08 units are 8 cm if a unit is a metre, and 4 cm if it is half of one.
    assert inliers == {1.0: False, 0.5: True}


def test_without_a_unit_the_threshold_is_a_share_of_the_extent(generator):
    truth = random_trajectory(generator, 10)
    found = align_trajectory(truth, truth, config=QUICK)
    assert found.extent == trajectory_extent(camera_centres(truth))
    assert found.position_tolerance == pytest.approx(0.02 * found.extent)


def test_extent_is_the_diameter_of_a_circle():
    angle = torch.arange(0, 2 * math.pi, math.pi / 6, dtype=torch.float64)
    circle = torch.stack([3 * angle.cos(), 3 * angle.sin(), torch.ones_like(angle)], dim=-1)
    assert trajectory_extent(circle) == pytest.approx(6.0)


def test_the_same_seed_gives_the_same_alignment(generator):
    truth = random_trajectory(generator, 60)
    estimate = jittered(generator, truth, 0.05, 1.0)
    first, second = (
        align_trajectory(estimate, truth, config=QUICK, generator=torch.Generator().manual_seed(3))
        for _ in "ab"
    )
    assert torch.equal(first.similarity.rotation, second.similarity.rotation)


@given(cameras=st.integers(3, 60), size=st.integers(2, 3), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_samples_are_sets_of_different_cameras(cameras, size, seed):
    samples = draw_samples(cameras, size, 300, torch.Generator().manual_seed(seed))
    assert ((samples >= 0) & (samples < cameras)).all()
    assert (samples.sort(-1).values.diff(dim=-1) > 0).all()
    if math.comb(cameras, size) <= 300:
        assert len({frozenset(sample) for sample in samples.tolist()}) == math.comb(cameras, size)


def test_samples_are_drawn_evenly():
    samples = draw_samples(50, 3, 15_000, torch.Generator().manual_seed(0))
    counts = torch.bincount(samples.flatten(), minlength=50).double()
    # 900 expected for each camera; five standard deviations of a binomial count are about 146.
    assert ((counts - 900).abs() < 146).all()
