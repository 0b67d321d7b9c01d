"""Steps that fail and input that is wrong: it comes back, said so, and harms no one."""

from dataclasses import fields, replace

import pytest
import torch
from adjustment_scenes import CONVERGED, on_device

from acezero_gpu.adjustment import (
    AdjustmentStatus,
    BundleProblem,
    bundle_adjust,
    bundle_adjustment,
)
from acezero_gpu.geometry import PinholeCamera


def test_steps_that_raise_the_cost_are_taken_back(start, monkeypatch):
    right = bundle_adjustment.solve_damped

    def wrong(*arguments):
        step = right(*arguments)
        return replace(step, poses=-step.poses, points=-step.points)

    monkeypatch.setattr(bundle_adjustment, "solve_damped", wrong)
    result = bundle_adjust(start, replace(CONVERGED, point_steps=0))
    assert result.status == AdjustmentStatus.STALLED
    assert result.cost_final == result.cost_initial
    torch.testing.assert_close(result.cam_from_world, start.cam_from_world, rtol=0, atol=1e-12)
    assert "raised the cost" in result.status.explanation


def test_one_wrong_step_is_survived(start, monkeypatch):
    right, calls = bundle_adjustment.solve_damped, []

    def wrong_once(*arguments):
        step = right(*arguments)
        calls.append(arguments[2])
        return replace(step, poses=100 + step.poses) if len(calls) == 2 else step

    monkeypatch.setattr(bundle_adjustment, "solve_damped", wrong_once)
    result = bundle_adjust(start, CONVERGED)
    monkeypatch.undo()
    assert calls[2] > calls[1]
    assert result.cost_final == pytest.approx(bundle_adjust(start, CONVERGED).cost_final, rel=1e-6)


def test_a_singular_system_is_a_status_with_a_sentence(start):
    huge = torch.full((len(start.pixels),), 1e306, dtype=torch.float64)
    result = bundle_adjust(replace(start, weights=huge), CONVERGED)
    assert result.status == AdjustmentStatus.SINGULAR
    assert "singular" in result.status.explanation
    torch.testing.assert_close(result.points, start.points, rtol=0, atol=1e-12)


def test_every_status_has_a_sentence():
    for status in AdjustmentStatus:
        assert status.explanation.endswith(".")
        assert len(status.explanation) > 40


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("where", ["cam_from_world", "points", "pixels", "weights"])
def test_what_is_not_finite_comes_back_and_spoils_nothing_else(start, where, value, device):
    start = replace(start, weights=torch.ones(len(start.pixels)).double())
    bad = getattr(start, where).clone()
    bad[4] = value
    result = bundle_adjust(on_device(replace(start, **{where: bad}), device), CONVERGED)
    excluded = {
        "cam_from_world": start.view_index == 4,
        "points": start.point_index == 4,
    }.get(where, torch.arange(len(start.pixels)) == 4)
    kept = bundle_adjust(replace(start, weights=(~excluded).double()), CONVERGED)
    poses, points = result.cam_from_world.cpu(), result.points.cpu()
    if where == "cam_from_world":
        assert torch.equal(poses[4].nan_to_num(7.0), bad[4].nan_to_num(7.0))
        poses[4] = kept.cam_from_world[4]
    if where == "points":
        assert torch.equal(points[4].nan_to_num(7.0), bad[4].nan_to_num(7.0))
        points[4] = kept.points[4]
    torch.testing.assert_close(poses, kept.cam_from_world, rtol=0, atol=1e-6)
    torch.testing.assert_close(points, kept.points, rtol=0, atol=1e-6)
    assert result.cost_final == pytest.approx(kept.cost_final, rel=1e-9)
    assert result.residuals_px.isfinite().all()


def test_nothing_finite_at_all(start):
    bad = replace(start, pixels=torch.full_like(start.pixels, torch.nan))
    result = bundle_adjust(bad, CONVERGED)
    assert result.status == AdjustmentStatus.EMPTY
    assert torch.equal(result.points, start.points)
    assert result.num_components == 0


def unchecked(problem: BundleProblem, **changes) -> BundleProblem:
    """A problem that the test run's own check of shapes has not seen, as in any other program."""
    made = object.__new__(BundleProblem)
    for field in fields(BundleProblem):
        object.__setattr__(made, field.name, changes.get(field.name, getattr(problem, field.name)))
    return made


CAMERA = PinholeCamera.centred(500.0, 640, 480, dtype=torch.float64)


WRONG = {
    "cam_from_world must have the shape": {"cam_from_world": torch.zeros(8, 4, 4)},
    "points must have the shape": {"points": torch.zeros(60, 2)},
    "pixels must have the shape": {"pixels": torch.zeros(300, 3)},
    "view_index must have the shape": {"view_index": torch.zeros(299, dtype=torch.long)},
    "view_index must be integer": {"view_index": torch.zeros(300)},
    "points must be floating point": {"points": torch.zeros(60, 3, dtype=torch.long)},
    "weights must have the shape": {"weights": torch.ones(300, 1)},
    "radial must have the shape": {"radial": torch.zeros(3)},
    "fixed_views must be bool": {"fixed_views": torch.zeros(8, dtype=torch.long)},
    "view_index must lie between 0 and 7, got 0 to 8": {"view_index": torch.arange(300) % 9},
    "point_index must lie between 0 and 59, got -1 to 59": {"point_index": torch.arange(300) % 61 - 1},
    "camera must be finite with a positive focal": {
        "camera": PinholeCamera(torch.tensor([500.0, torch.nan]), torch.zeros(2))
    },
    "must be finite with a positive focal": {
        "camera": PinholeCamera(torch.tensor([0.0, 500.0]), torch.zeros(2))
    },
    "must be finite with": {"radial": torch.tensor([0.0, torch.inf])},
}


@pytest.mark.parametrize("sentence", WRONG)
def test_wrong_problems_raise_one_sentence(start, sentence):
    with pytest.raises(ValueError, match=sentence):
        bundle_adjust(unchecked(start, **WRONG[sentence]), CONVERGED)
