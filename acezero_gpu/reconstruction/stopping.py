"""When the loop has done its work."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoppingConfig:
    """Bounds of the loop; the values are ACE0's."""

    max_iterations: int = 100
    """The most mapping rounds, the seed's and the final one included."""
    registration_share: float = 0.99
    """Enough: this share of the images is registered."""
    relative_gain: float = 0.01
    """No progress: a round raises the share of registered images by less than this over the best so far."""


def should_stop(share: float, best_before: float, iteration: int, config: StoppingConfig) -> str | None:
    """The reason to go to the final round after ``iteration``, or None to go on."""
    if share >= config.registration_share:
        return "all images are registered" if share >= 1 else "nearly all images are registered"
    if share - best_before < config.relative_gain:
        return "no further images could be registered"
    if iteration >= config.max_iterations - 2:
        return "the iteration limit is reached"
    return None
