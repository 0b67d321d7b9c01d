"""The loop's end by ACE0's rules."""

import pytest

from acezero_gpu.reconstruction import StoppingConfig
from acezero_gpu.reconstruction.stopping import should_stop


@pytest.mark.parametrize(
    "share, best_before, iteration, reason",
    [
        (1.0, 0.2, 1, "all images are registered"),
        (0.99, 0.2, 1, "nearly all images are registered"),
        (0.989, 0.2, 1, None),
        (0.5, 0.2, 1, None),
        (0.5, 0.489, 5, None),
        (0.5, 0.491, 5, "no further images could be registered"),
        (0.4, 0.5, 5, "no further images could be registered"),
        (0.5, 0.2, 97, None),
        (0.5, 0.2, 98, "the iteration limit is reached"),
    ],
)
def test_the_rules_are_ace0s(share, best_before, iteration, reason):
    assert should_stop(share, best_before, iteration, StoppingConfig()) == reason


def test_the_bounds_are_the_configured_ones():
    config = StoppingConfig(max_iterations=5, registration_share=0.8, relative_gain=0.1)
    assert should_stop(0.8, 0.1, 1, config) == "nearly all images are registered"
    assert should_stop(0.5, 0.41, 1, config) == "no further images could be registered"
    assert should_stop(0.5, 0.3, 2, config) is None
    assert should_stop(0.5, 0.3, 3, config) == "the iteration limit is reached"
