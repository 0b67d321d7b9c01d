import math

import pytest
import torch
from benchmark_sets import estimate_in_another_frame, write_set

from acezero_gpu.geometry import Similarity
from benchmarks.image_sets import TruthSet, read_set
from benchmarks.metrics import (
    SystemResult,
    errors_in_frame,
    median_row,
    reconstruction_figures,
    relocalisation_figures,
)


@pytest.fixture
def place(tmp_path) -> tuple[TruthSet, torch.Tensor]:
    world_from_cam = write_set(tmp_path / "place")
    return read_set(tmp_path / "place"), world_from_cam


def figures_of(place, confidence, focal_px=31.0, world_from_cam=None, names=None, **result):
    truth_set, true = place
    names = list(truth_set.stems) if names is None else names
    poses = true if world_from_cam is None else world_from_cam
    views = estimate_in_another_frame(poses, names, confidence, focal_px)
    return reconstruction_figures(SystemResult(views, 5.0, 12.0, **result), truth_set)


def test_a_perfect_estimate_in_another_frame_has_no_errors(place):
    row = figures_of(place, torch.full((12,), 9.0), focal_px=31.0 * 1.1)
    assert row["registered"] == 12 and row["failed"] == []
    assert row["median_rotation_deg"] < 1e-4 and row["median_translation"] < 1e-2
    assert (row["rra_5"], row["rta_5"], row["auc_30"], row["within_5cm_5deg"]) == (1.0, 1.0, 1.0, 1.0)
    assert row["focal_ratio"] == pytest.approx(1.1, rel=1e-5)


def test_images_below_the_confidence_fail_in_every_figure(place):
    confidence = torch.full((12,), 9.0)
    confidence[[1, 4, 9]] = 4.9
    row = figures_of(place, confidence)
    assert row["registered"] == 9 and row["failed"] == ["img_01", "img_04", "img_09"]
    good_pairs = (9 * 8) / (12 * 11)
    assert row["rra_5"] == pytest.approx(good_pairs) and row["auc_30"] == pytest.approx(good_pairs)
    assert row["within_5cm_5deg"] == pytest.approx(9 / 12)


def test_an_image_that_the_estimate_lacks_fails_too(place):
    truth_set, true = place
    row = figures_of(place, torch.full((10,), 9.0), world_from_cam=true[2:], names=list(truth_set.stems[2:]))
    assert row["images"] == 12 and row["registered"] == 10 and row["failed"] == ["img_00", "img_01"]


def test_errors_are_in_units_of_the_truth(place):
    _, true = place
    moved = true.clone()
    moved[::2, 2, 3] += 2.0  # millimetres; the other half stays, so no alignment can take all of it away
    row = figures_of(place, torch.full((12,), 9.0), world_from_cam=moved)
    assert 0.5 < row["median_translation"] < 1.5
    assert row["median_translation_share"] == pytest.approx(row["median_translation"] / row["extent"])
    assert 1500 < row["extent"] < 2500


def test_most_images_failed_means_no_median(place):
    confidence = torch.zeros(12)
    confidence[:5] = 9.0
    row = figures_of(place, confidence)
    assert row["median_rotation_deg"] is None and row["median_translation"] is None
    assert row["median_rotation_registered_deg"] < 1e-4


def test_no_result_at_all_is_a_row_of_failures(place):
    truth_set, _ = place
    row = reconstruction_figures(SystemResult(None, 1.0, 3.0, failure="because"), truth_set)
    assert row["registered"] == 0 and len(row["failed"]) == 12 and row["failure"] == "because"
    assert row["rra_5"] == 0.0 and row["auc_30"] == 0.0 and row["focal_ratio"] is None


def test_errors_in_a_given_frame(place):
    truth_set, true = place
    truth = truth_set.truth()
    moved = true.clone()
    moved[:, 0, 3] += 20.0
    confidence = torch.full((12,), 9.0)
    confidence[3] = 1.0
    estimate = estimate_in_another_frame(moved, list(truth_set.stems), confidence, 31.0)
    # The inverse of the helper's change of frame, found from two known frames: its own truth.
    there = estimate_in_another_frame(true, list(truth_set.stems), confidence, 31.0).matrices
    rotation = truth.matrices[0, :, :3].T @ there[0, :, :3]
    centre = (-there[..., :3].transpose(-1, -2) @ there[..., 3:])[0, :, 0]
    similarity = Similarity(
        torch.tensor(1000.0, dtype=torch.float64), rotation, true[0, :, 3] - 1000.0 * rotation @ centre
    )
    angle, distance = errors_in_frame(estimate, truth, 5.0, similarity)
    good = [row for row in range(12) if row != 3]
    assert math.isinf(angle[3]) and math.isinf(distance[3])
    torch.testing.assert_close(
        distance[good], torch.full((11,), 20.0, dtype=torch.float64), atol=1e-3, rtol=0
    )
    assert float(angle[good].max()) < 1e-3
    without_alignment = errors_in_frame(estimate, truth, 5.0)[1]
    assert float(without_alignment[good].min()) > 500


def test_relocalisation_shares_are_of_all_queries():
    rotation = torch.tensor([1.0, 1.0, 6.0, math.inf])
    millimetres = torch.tensor([10.0, 70.0, 10.0, math.inf])
    row = relocalisation_figures(rotation, millimetres, 0.001)
    assert row["registered"] == 3 and row["images"] == 4
    assert (row["within_2cm_2deg"], row["within_5cm_5deg"], row["within_10cm_5deg"]) == (0.25, 0.25, 0.5)
    assert row["median_translation_m"] == pytest.approx(0.04)
    assert relocalisation_figures(rotation[3:], millimetres[3:], 1.0)["median_translation_m"] is None


def test_repeats_become_medians_in_which_a_failure_is_worst():
    rows = [
        {"set": "a", "registered": count, "median_rotation_deg": error, "stages_s": {"a": count}, "images": 9}
        for count, error in ((9, 0.3), (0, None), (8, 0.1))
    ]
    merged = median_row(rows)
    assert merged["median_rotation_deg"] == 0.3 and merged["registered"] == 8
    assert merged["set"] == "a" and merged["stages_s"] == {"a": 8}
    assert merged["registered_range"] == [0, 9] and merged["runs"] == 3
    assert median_row(rows[:2])["median_rotation_deg"] is None
    assert median_row(rows[:1])["images"] == 9
