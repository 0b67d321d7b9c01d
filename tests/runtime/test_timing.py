"""Stage times add up, also when a stage fails."""

import time

import pytest

from acezero_gpu.runtime import StageTimer


def test_seconds_add_up_per_stage(device, monkeypatch):
    clock = iter([0.0, 2.0, 10.0, 13.0, 20.0, 25.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    timer = StageTimer(device)
    for name in ("map", "register", "map"):
        with timer.stage(name):
            pass
    assert timer.seconds == {"map": 7.0, "register": 3.0}
    assert timer.total_s == 10.0


def test_a_stage_that_fails_is_timed_and_its_error_passes_through():
    timer = StageTimer()
    with pytest.raises(RuntimeError, match="inside"), timer.stage("broken"):
        raise RuntimeError("inside")
    assert timer.seconds["broken"] >= 0.0
