"""Pose reports: exact synthetic truth, the loop over images, failed images, figures that may be infinite."""

import json
import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from evaluation_trajectories import (
    inverse,
    jittered,
    random_similarity,
    random_trajectory,
    straight_trajectory,
    views,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.pose_metrics import image_errors
from rich.console import Console
from rich.table import Table

from acezero_gpu.evaluation import (
    AlignmentConfig,
    AlignmentStatus,
    EvaluationConfig,
    evaluate_poses,
    report_table,
)

QUICK = EvaluationConfig(alignment=AlignmentConfig(samples=500))
METRIC = EvaluationConfig(alignment=AlignmentConfig(samples=500, truth_unit_m=1.0))


def shown(table: Table) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def test_a_perfect_estimate_in_another_frame_has_no_errors(device, generator):
    truth = random_trajectory(generator, 15)
    estimate = inverse(random_similarity(generator)).apply_to_cameras(truth)
    report = evaluate_poses(views(estimate.to(device), focal_px=510.0), views(truth.to(device)), QUICK)
    assert report.alignment.status is AlignmentStatus.ALIGNED
    assert report.rotation_error_deg.max() < 1e-5
    assert report.translation_error.max() < 1e-6
    assert report.share_within(1e-6, 1e-5) == 1.0
    figures = report.as_dict()
    assert figures["registered"] == figures["images"] == 15
    assert figures["rra"] == figures["rta"] == {"5": 1.0, "10": 1.0, "15": 1.0}
    assert figures["auc_30"] == 1.0
    assert figures["median_focal_ratio"] == pytest.approx(1.02)


def test_errors_agree_with_the_loop_over_images(device, generator):
    truth = random_trajectory(generator, 25)
    spoiled = jittered(generator, truth, 0.02, 1.0)
    spoiled[:5] = random_trajectory(generator, 5)
    estimate = inverse(random_similarity(generator)).apply_to_cameras(spoiled)
    confidence = torch.full((25,), 800.0).double()
    confidence[-3:] = 0.0
    report = evaluate_poses(views(estimate.to(device), confidence.to(device)), views(truth.to(device)), QUICK)

    similarity = report.alignment.similarity
    angles, distances = image_errors(
        estimate.numpy(),
        truth.numpy(),
        (confidence > 0).numpy(),
        similarity.scale.item(),
        similarity.rotation.cpu().numpy(),
        similarity.translation.cpu().numpy(),
    )
    np.testing.assert_allclose(report.rotation_error_deg.cpu().numpy(), angles, atol=1e-5)
    np.testing.assert_allclose(report.translation_error.cpu().numpy(), distances, atol=1e-9)
    figures = report.as_dict()
    assert figures["median_rotation_deg"] == pytest.approx(np.median(angles), abs=1e-5)
    assert figures["median_translation"] == pytest.approx(np.median(distances))
    assert figures["median_translation_registered"] == pytest.approx(np.median(distances[:-3]))
    near = np.mean((np.array(distances) < 0.03) & (np.array(angles) < 2.0))
    assert report.share_within(0.03, 2.0) == pytest.approx(near)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_the_frame_and_scale_of_the_estimate_do_not_matter(seed):
    generator = torch.Generator().manual_seed(seed)
    truth = random_trajectory(generator, 20)
    estimate = jittered(generator, truth, 0.02, 1.0)
    estimate[:6] = random_trajectory(generator, 6)
    plain = evaluate_poses(views(estimate), views(truth), QUICK)
    moved = evaluate_poses(
        views(random_similarity(generator).apply_to_cameras(estimate)), views(truth), QUICK
    )
    torch.testing.assert_close(moved.translation_error, plain.translation_error, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(moved.rotation_error_deg, plain.rotation_error_deg, rtol=1e-5, atol=1e-4)


def test_failed_images_are_infinitely_wrong_and_count_in_every_share(generator):
    truth = random_trajectory(generator, 10)
    confidence = torch.full((10,), 900.0).double()
    confidence[:6] = 20.0
    config = replace(METRIC, min_confidence=500.0)
    report = evaluate_poses(views(truth, confidence), views(truth), config)
    figures = report.as_dict()
    assert figures["registered_share"] == 0.4
    assert report.rotation_error_deg[:6].isinf().all() and report.translation_error[:6].isinf().all()
    assert figures["median_rotation_deg"] is None and figures["median_translation"] is None
    assert figures["median_rotation_registered_deg"] == pytest.approx(0.0, abs=1e-5)
    assert figures["accuracy"] == {"5cm_5deg": 0.4}
    assert figures["rra"]["5"] == pytest.approx(6 / 45)
    assert figures["auc_30"] == pytest.approx(6 / 45)
    assert report.focal_ratio.isnan().tolist() == [True] * 6 + [False] * 4


def test_images_are_matched_by_name_not_by_order(generator):
    truth = random_trajectory(generator, 8)
    full = views(truth)
    order = [5, 0, 7, 3, 1]
    part = replace(
        full,
        names=(*(full.names[i] for i in order), "stranger.jpg"),
        cam_from_world=full.cam_from_world[[*order, 2]],
        focal_px=full.focal_px[:6],
        confidence=full.confidence[:6],
    )
    report = evaluate_poses(part, full, QUICK)
    assert report.names == full.names
    assert report.registered.tolist() == [i in order for i in range(8)]
    assert report.translation_error[report.registered].max() < 1e-6
    assert report.without_truth == 1


def test_no_common_name_is_an_error_that_shows_both(generator):
    truth = views(random_trajectory(generator, 3))
    other = replace(truth, names=("a.png", "b.png", "c.png"))
    with pytest.raises(ValueError, match=r"begins with 'a.png', the truth with 'image0000.jpg'"):
        evaluate_poses(other, truth)


def test_a_true_pose_that_is_not_finite_is_an_error(generator):
    truth = views(random_trajectory(generator, 3))
    broken = truth.cam_from_world.clone()
    broken[1, 0] = math.nan
    with pytest.raises(ValueError, match="true pose is not finite"):
        evaluate_poses(truth, replace(truth, cam_from_world=broken))


def test_an_estimated_pose_that_is_not_finite_has_failed(generator):
    truth = views(random_trajectory(generator, 6))
    broken = truth.cam_from_world.clone()
    broken[1, 4] = math.nan
    report = evaluate_poses(replace(truth, cam_from_world=broken), truth, QUICK)
    assert report.registered.tolist() == [True, False, True, True, True, True]
    assert report.rotation_error_deg[report.registered].max() < 1e-5


def test_nothing_registered_gives_figures_that_say_so(generator):
    truth = random_trajectory(generator, 6)
    report = evaluate_poses(views(truth, 0.0), views(truth), QUICK)
    figures = report.as_dict()
    assert report.alignment.status is AlignmentStatus.TOO_FEW
    assert figures["registered"] == 0 and figures["auc_30"] == 0.0 and figures["accuracy"] == {"2%_5deg": 0.0}
    assert figures["median_rotation_registered_deg"] is None and figures["scale"] is None


def test_two_frames_and_straight_lines_are_evaluated(generator):
    for truth in (random_trajectory(generator, 2), straight_trajectory(generator, 20)):
        estimate = inverse(random_similarity(generator)).apply_to_cameras(truth)
        report = evaluate_poses(views(estimate), views(truth), QUICK)
        assert report.alignment.status is AlignmentStatus.ALIGNED_WITH_ORIENTATIONS
        assert report.rotation_error_deg.max() < 1e-4
        assert report.translation_error.max() < 1e-5
        assert report.as_dict()["auc_30"] == 1.0


def test_thresholds_follow_the_unit_of_the_truth(generator):
    truth = random_trajectory(generator, 30)
    estimate = jittered(generator, truth, 0.03, 0.1)
    in_metres = evaluate_poses(views(estimate), views(truth), METRIC)
    millimetres = replace(METRIC.alignment, truth_unit_m=0.001)
    truth_mm, estimate_mm = truth.clone(), estimate.clone()
    truth_mm[..., 3] *= 1000
    estimate_mm[..., 3] *= 1000
    in_millimetres = evaluate_poses(
        views(estimate_mm), views(truth_mm), replace(METRIC, alignment=millimetres)
    )
    assert 0.2 < in_metres.accuracies()["5cm_5deg"] < 0.9
    assert in_millimetres.accuracies() == in_metres.accuracies()


def test_without_a_unit_thresholds_are_shares_of_the_extent(generator):
    truth = random_trajectory(generator, 30)
    estimate = jittered(generator, truth, 0.1, 0.1)
    config = replace(QUICK, thresholds_share=((0.02, 5.0), (0.001, 5.0)))
    report = evaluate_poses(views(estimate), views(truth), config)
    assert report.alignment.extent > 3.0
    expected = (report.translation_error < 0.02 * report.alignment.extent).double().mean().item()
    assert 0.1 < expected < 0.9
    assert report.accuracies() == {"2%_5deg": pytest.approx(expected), "0.1%_5deg": 0.0}


def test_figures_are_strict_json(generator):
    truth = random_trajectory(generator, 5)
    confidence = torch.tensor([0.0, 0, 0, 9, 9]).double()
    report = evaluate_poses(views(truth, confidence), views(truth), QUICK)
    read = json.loads(json.dumps(report.as_dict(per_image=True), allow_nan=False))
    assert read["per_image"][0] == {
        "name": "image0000.jpg",
        "registered": False,
        "rotation_deg": None,
        "translation": None,
    }
    assert read["per_image"][4]["registered"] is True


def test_the_table_shows_the_figures_in_words_and_units(generator):
    truth = random_trajectory(generator, 10)
    estimate = views(jittered(generator, truth, 0.01, 0.1))
    half_metres = replace(METRIC, alignment=replace(METRIC.alignment, truth_unit_m=0.5))
    good = evaluate_poses(estimate, views(truth), half_metres)
    none = evaluate_poses(views(truth, 0.0), views(truth), half_metres)
    text = shown(report_table({"ours": good, "theirs": none}))
    assert f"{50 * good.as_dict()['median_translation']:.2f} cm" in text
    assert f"{good.as_dict()['median_rotation_deg']:.3f}°" in text
    assert "within 5 cm and 5°" in text and "10 / 10" in text and "0 / 10" in text
    assert "fewer than two usable cameras" in text

    without_unit = evaluate_poses(estimate, views(truth), QUICK)
    share = without_unit.as_dict()["median_translation_share"]
    text = shown(report_table(without_unit))
    assert f"{100 * share:.2f} % of extent" in text and "within 2 % of extent and 5°" in text


def test_a_thousand_images_take_seconds_at_most(generator):
    truth = random_trajectory(generator, 1000)
    estimate = views(jittered(generator, truth, 0.01, 0.5))
    start = time.perf_counter()
    report = evaluate_poses(estimate, views(truth))
    # About one second on two idle cores; the loop over half a million pairs would take minutes.
    assert time.perf_counter() - start < 20.0
    assert report.pairs.rotation_deg.shape == (499_500,)
    assert report.alignment.inliers.all()
