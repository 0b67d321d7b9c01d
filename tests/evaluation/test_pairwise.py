"""Errors of relative poses against the loop over pairs, and their edge cases."""

import math

import numpy as np
import pytest
import torch
from evaluation_trajectories import (
    cameras_at,
    jittered,
    normal,
    random_similarity,
    random_trajectory,
    rotations,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.pose_metrics import area_under_curve, pair_errors

from acezero_gpu.evaluation import PairwiseErrors, pairwise_errors

ALL = {n: torch.ones(n, dtype=torch.bool) for n in range(1, 41)}


@pytest.mark.parametrize("signed", [False, True])
def test_it_agrees_with_the_loop_over_pairs(signed, device, generator):
    truth = random_trajectory(generator, 14)
    estimate = jittered(generator, truth, 0.5, 20.0)
    registered = torch.arange(14) % 5 != 3
    rotation, direction = pair_errors(estimate.numpy(), truth.numpy(), registered.numpy(), signed=signed)

    found = pairwise_errors(
        estimate.to(device), truth.to(device), registered.to(device), signed_directions=signed
    )

    np.testing.assert_allclose(found.rotation_deg.cpu().numpy(), rotation, atol=1e-6)
    np.testing.assert_allclose(found.direction_deg.cpu().numpy(), direction, atol=1e-5)
    assert found.area_under_curve() == pytest.approx(area_under_curve(rotation, direction))
    for threshold in (5.0, 15.0, 45.0):
        assert found.rotation_accuracy(threshold) == np.mean(np.array(rotation) < threshold)
        assert found.direction_accuracy(threshold) == np.mean(np.array(direction) < threshold)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_it_is_blind_to_world_frame_and_scale(seed):
    generator = torch.Generator().manual_seed(seed)
    truth = random_trajectory(generator, 8)
    estimate = jittered(generator, truth, 0.2, 5.0)
    plain = pairwise_errors(estimate, truth, ALL[8])
    moved = pairwise_errors(random_similarity(generator).apply_to_cameras(estimate), truth, ALL[8])
    torch.testing.assert_close(moved.rotation_deg, plain.rotation_deg, rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(moved.direction_deg, plain.direction_deg, rtol=1e-6, atol=1e-5)


def test_small_angles_are_exact(generator):
    truth = random_trajectory(generator, 6)
    same = pairwise_errors(truth, truth, ALL[6])
    assert same.rotation_deg.max() < 1e-6 and same.direction_deg.max() < 1e-6
    assert same.area_under_curve() == 1.0


def test_two_images_make_one_pair(generator):
    truth = random_trajectory(generator, 2)
    found = pairwise_errors(truth, truth, ALL[2])
    assert found.rotation_deg.shape == (1,)
    assert found.area_under_curve() == 1.0


def test_one_image_makes_no_pair_and_no_figure(generator):
    truth = random_trajectory(generator, 1)
    found = pairwise_errors(truth, truth, ALL[1])
    assert math.isnan(found.area_under_curve()) and math.isnan(found.rotation_accuracy(5.0))


def test_a_direction_reversed_is_right_up_to_sign_only(generator):
    turns = rotations(generator, 2)
    truth = cameras_at(torch.tensor([[0.0, 0, 0], [1, 0, 0]]).double(), turns)
    estimate = cameras_at(torch.tensor([[0.0, 0, 0], [-1, 0, 0]]).double(), turns)
    assert pairwise_errors(estimate, truth, ALL[2]).direction_deg.item() == pytest.approx(0.0, abs=1e-6)
    signed = pairwise_errors(estimate, truth, ALL[2], signed_directions=True)
    assert signed.direction_deg.item() == pytest.approx(180.0)


def test_pairs_without_a_true_baseline_count_by_their_rotation_alone(generator):
    centres = torch.tensor([[0.0, 0, 0], [0, 0, 0], [1, 0, 0]]).double()
    truth = cameras_at(centres, rotations(generator, 3))
    estimate = cameras_at(centres + 1e-3 * normal(generator, 3, 3), truth[..., :3])
    found = pairwise_errors(estimate, truth, ALL[3])
    assert found.direction_deg.isnan().tolist() == [True, False, False]
    assert found.direction_accuracy(5.0) == 1.0
    assert found.area_under_curve() == 1.0


def test_a_lost_baseline_is_a_failure_not_a_gap(generator):
    truth = random_trajectory(generator, 3)
    found = pairwise_errors(cameras_at(torch.zeros(3, 3).double(), truth[..., :3]), truth, ALL[3])
    assert found.direction_deg.tolist() == [180.0] * 3
    assert found.rotation_deg.max() < 1e-6
    assert found.direction_accuracy(90.1) == 0.0


@pytest.mark.parametrize("failed", [0, 1, 3])
def test_every_pair_with_a_failed_image_has_failed(failed, generator):
    truth = random_trajectory(generator, 6)
    estimate = truth.clone()
    estimate[:failed] = math.nan
    found = pairwise_errors(estimate, truth, ALL[6])
    good = 6 - failed
    assert found.rotation_accuracy(5.0) == pytest.approx(math.comb(good, 2) / 15)
    assert found.direction_accuracy(5.0) == pytest.approx(math.comb(good, 2) / 15)
    assert found.area_under_curve() == pytest.approx(math.comb(good, 2) / 15)


def test_the_area_counts_the_worse_of_both_errors_in_whole_degrees():
    found = PairwiseErrors(torch.tensor([0.0, 2.5, 29.9, 30.0]), torch.tensor([0.5, 1.0, 3.0, 0.0]))
    # Below 1, 2, ... 30 degrees: the first always, the second 28 times, the third once, the fourth never.
    assert found.area_under_curve() == pytest.approx((30 + 28 + 1 + 0) / 30 / 4)


def test_chunks_do_not_show(generator, monkeypatch):
    truth = random_trajectory(generator, 20)
    estimate = jittered(generator, truth, 0.2, 5.0)
    whole = pairwise_errors(estimate, truth, ALL[20])
    monkeypatch.setattr("acezero_gpu.evaluation.pairwise.PAIRS_PER_CHUNK", 7)
    parts = pairwise_errors(estimate, truth, ALL[20])
    # Blocks of another size are multiplied in another order: the last bits may differ, no more.
    torch.testing.assert_close(parts.rotation_deg, whole.rotation_deg, rtol=0, atol=1e-11)
    torch.testing.assert_close(parts.direction_deg, whole.direction_deg, rtol=0, atol=1e-11)
