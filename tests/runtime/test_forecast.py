"""The time left of a run whose stages take what they typically take, or much longer, on a clock of our own."""

import pytest

from acezero_gpu.runtime.forecast import Forecast
from acezero_gpu.runtime.progress import Work

PLAN = [
    Work("seeds", 40.0),
    Work("mapping", 20.0, "steps"),
    Work("adjustment", 30.0),
    Work("mapping", 100.0, "steps"),
    Work("points", 10.0, "images"),
]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def run(seconds: list[float], announced: list[Work] = PLAN) -> list[tuple[float, float, float]]:
    """(elapsed, told, true) seconds at a hundred moments of each stage."""
    clock = Clock()
    forecast = Forecast(clock)
    forecast.expect(announced)
    moments = []
    for work, takes in zip(PLAN, seconds, strict=True):
        start = clock.now
        forecast.begin(work.stage)
        for step in range(100):
            clock.now = start + takes * step / 100
            forecast.advance(step, 100, work.unit)
            forecast.advance(step * 7 % 100, 100, "something else")
            told = forecast.left_s()
            assert told is not None
            moments.append((clock.now, told, sum(seconds) - clock.now))
        clock.now = start + takes
        forecast.end()
    assert forecast.left_s() == 0
    return moments


@pytest.mark.parametrize(
    "pace",
    [
        (1, 1, 1, 1, 1),
        (10, 10, 10, 10, 10),
        (0.05, 0.05, 0.05, 0.05, 0.05),  # a GPU
        (2, 6, 3, 6, 4),
        (0.4, 2.0, 0.4, 2.0, 2.0),
    ],
    ids=str,
)
def test_from_half_way_on_it_is_within_a_factor_of_two(pace: tuple[float, ...]) -> None:
    seconds = [work.typical_s * factor for work, factor in zip(PLAN, pace, strict=True)]
    total = sum(seconds)
    late = [
        (told, true) for elapsed, told, true in run(seconds) if elapsed > total / 2 and true > 0.02 * total
    ]
    assert len(late) > 50
    assert all(true / 2 < told < 2 * true for told, true in late)


def test_the_end_of_a_stage_that_counts_follows_from_its_own_pace() -> None:
    # The last mapping is thrice as slow as the first one was: after a quarter of it that has been noticed.
    moments = run([40.0, 20.0, 30.0, 300.0, 10.0])
    elapsed, told, true = moments[3 * 100 + 25]
    assert elapsed == 90 + 75
    assert told == pytest.approx(true, rel=0.15)


def test_what_was_not_expected_has_no_length_and_skipped_stages_are_forgotten() -> None:
    clock = Clock()
    forecast = Forecast(clock)
    assert forecast.left_s() is None
    forecast.begin("loading")
    assert forecast.left_s() is None
    forecast.end()
    forecast.expect(PLAN)
    assert forecast.left_s() == pytest.approx(200.0)
    forecast.begin("adjustment")  # without seeds and mapping
    assert forecast.left_s() == pytest.approx(140.0)
    forecast.expect(PLAN[-1:])
    assert forecast.left_s() == pytest.approx(40.0)


def test_a_stage_that_overruns_is_not_said_to_end_at_once() -> None:
    clock = Clock()
    forecast = Forecast(clock)
    forecast.expect([Work("seeds", 10.0)])
    forecast.begin("seeds")
    clock.now = 100.0
    assert forecast.left_s() == pytest.approx(10.0)
