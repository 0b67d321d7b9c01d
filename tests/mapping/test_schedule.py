"""Learning rates: key steps of ACE0's schedule, PyTorch's own one-cycle schedule, and the early way down."""

from dataclasses import replace

import pytest
import torch

from acezero_gpu.mapping import ScheduleConfig
from acezero_gpu.mapping.schedule import LearningRateSchedule


@pytest.mark.parametrize(
    "iteration, expected",
    [
        (0, 0.0005),
        (500, 0.00175),
        (1000, 0.003),
        (19999, 0.003),
        (20000, 0.003),
        (22500, 0.00175),
        (25000, 0.0005),
    ],
)
def test_without_early_end_it_goes_up_holds_and_goes_down(iteration, expected):
    schedule = LearningRateSchedule(ScheduleConfig())
    assert schedule.learning_rate(iteration) == pytest.approx(expected)
    assert schedule.last_iteration == 25000


def test_a_good_map_starts_the_way_down():
    schedule = LearningRateSchedule(ScheduleConfig())
    assert not schedule.observe_inlier_share(900, 0.9), "not during the way up"
    assert not schedule.observe_inlier_share(2000, 0.7), "not at the threshold itself"
    assert schedule.observe_inlier_share(3000, 0.71)
    assert schedule.last_iteration == 8000
    rates = [schedule.learning_rate(step) for step in (3000, 5500, 8000)]
    assert rates == pytest.approx([0.003, 0.00175, 0.0005])
    assert not schedule.observe_inlier_share(3100, 0.9), "only once"
    assert schedule.last_iteration == 8000


def test_too_late_for_an_early_end():
    schedule = LearningRateSchedule(ScheduleConfig())
    assert not schedule.observe_inlier_share(20000, 1.0)
    assert schedule.last_iteration == 25000


@pytest.mark.parametrize("name", ["circle", "constant"])
def test_the_other_schedules_have_a_fixed_length(name):
    schedule = LearningRateSchedule(ScheduleConfig(name=name, iterations=300))
    assert not schedule.observe_inlier_share(250, 1.0)
    assert schedule.last_iteration == 300


def test_constant_is_constant():
    schedule = LearningRateSchedule(ScheduleConfig(name="constant", iterations=300, lr_max=0.002))
    assert {schedule.learning_rate(step) for step in range(300)} == {0.002}


@pytest.mark.parametrize("iterations", [30, 137, 2500])
def test_the_circle_is_pytorchs_one_cycle(iterations):
    ours = LearningRateSchedule(ScheduleConfig(name="circle", iterations=iterations, lr_max=0.005))
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=0.005, total_steps=iterations, cycle_momentum=False
    )
    for step in range(iterations):
        assert ours.learning_rate(step) == pytest.approx(theirs.get_last_lr()[0], rel=1e-6, abs=1e-9)
        optimiser.step()
        if step < iterations - 1:
            theirs.step()


@pytest.mark.parametrize("iterations, warmup, cooldown", [(10, 100, 5), (10, 2, 50), (1, 0, 0), (100, 0, 30)])
def test_rates_of_short_schedules_stay_between_their_bounds(iterations, warmup, cooldown):
    config = ScheduleConfig(iterations=iterations, warmup_iterations=warmup, cooldown_iterations=cooldown)
    schedule = LearningRateSchedule(config)
    assert 1 <= schedule.last_iteration <= iterations
    for step in range(schedule.last_iteration + 1):
        assert config.lr_min <= schedule.learning_rate(step) <= config.lr_max


def test_few_patches_are_seen_a_bounded_number_of_times():
    """4,000 patches, each 10 times, in batches of 50: 800 steps, in the shape of the whole schedule."""
    whole = ScheduleConfig(iterations=2000, warmup_iterations=100, cooldown_iterations=500, max_epochs=10)
    bounded = whole.bounded(patches=4000, batch_size=50)
    assert (bounded.iterations, bounded.warmup_iterations, bounded.cooldown_iterations) == (800, 40, 200)
    assert whole.bounded(patches=4_000_000, batch_size=50) == whole
    assert whole.bounded(patches=4, batch_size=50).iterations == whole.min_iterations
    unbounded = replace(whole, max_epochs=0)
    assert unbounded.bounded(patches=4, batch_size=50) == unbounded
