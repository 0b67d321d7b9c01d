"""Learning rate over the training, with an early end when the map is good."""

import math
from dataclasses import dataclass, replace
from typing import Literal


@dataclass(frozen=True, slots=True)
class ScheduleConfig:
    """How long a mapping round trains and with which learning rates."""

    name: Literal["1cyclepoly", "circle", "constant"] = "1cyclepoly"
    """``1cyclepoly``: linear up, hold, linear down, where the way down starts early once enough of the batch are
    inliers; ``circle``: one cosine cycle of fixed length; ``constant``: the maximum throughout."""
    iterations: int = 25000
    """The most optimisation steps."""
    lr_min: float = 0.0005
    """Learning rate at the start and the end."""
    lr_max: float = 0.003
    """Learning rate in between."""
    warmup_iterations: int = 1000
    """Steps of the linear way up."""
    cooldown_iterations: int = 5000
    """Steps of the linear way down."""
    cooldown_inlier_share: float = 0.7
    """The way down starts when the smallest inlier share of the last 100 steps exceeds this."""
    max_epochs: int = 0
    """With few images fewer steps: each patch is seen at most this many times on average; 0: no such bound."""
    min_iterations: int = 400
    """Steps that ``max_epochs`` leaves in any case."""

    def bounded(self, patches: int, batch_size: int) -> "ScheduleConfig":
        """The schedule for so many different patches: the same shape in fewer steps where ``max_epochs`` says so."""
        most = max(self.min_iterations, -(-self.max_epochs * patches // batch_size))
        if self.max_epochs == 0 or most >= self.iterations:
            return self
        share = most / self.iterations
        return replace(
            self,
            iterations=most,
            warmup_iterations=round(share * self.warmup_iterations),
            cooldown_iterations=round(share * self.cooldown_iterations),
        )


class LearningRateSchedule:
    """Gives the learning rate of each step and says when to stop."""

    def __init__(self, config: ScheduleConfig) -> None:
        self.config = config
        self._cooldown_start = max(0, config.iterations - config.cooldown_iterations)
        self._early = False

    @property
    def last_iteration(self) -> int:
        """Steps in total, as far as known now."""
        if self.config.name != "1cyclepoly":
            return self.config.iterations
        return min(self.config.iterations, self._cooldown_start + self.config.cooldown_iterations)

    def observe_inlier_share(self, iteration: int, smallest_recent_share: float) -> bool:
        """Starts the cool-down at ``iteration`` if the map is good enough; True if this call started it."""
        if self.config.name != "1cyclepoly" or self._early or iteration >= self._cooldown_start:
            return False
        if (
            iteration < self.config.warmup_iterations
            or smallest_recent_share <= self.config.cooldown_inlier_share
        ):
            return False
        self._cooldown_start = iteration
        self._early = True
        return True

    def learning_rate(self, iteration: int) -> float:
        """At step ``iteration`` (from 0)."""
        config = self.config
        if config.name == "constant":
            return config.lr_max
        if config.name == "circle":
            return _one_cycle(iteration, config)
        up = min(1.0, iteration / max(1, config.warmup_iterations))
        down = max(0.0, (iteration - self._cooldown_start) / max(1, config.cooldown_iterations))
        share = min(up, 1.0 - min(1.0, down))
        return config.lr_min + share * (config.lr_max - config.lr_min)


def _one_cycle(iteration: int, config: ScheduleConfig) -> float:
    """Cosine from max/25 up to max over 30 % of the steps, then down to max/250000 (Smith & Topin 2018)."""
    start, end = config.lr_max / 25, config.lr_max / 25e4
    turn = 0.3 * config.iterations - 1
    if iteration <= turn:
        progress = iteration / max(1.0, turn)
        return config.lr_max + (start - config.lr_max) * (1 + math.cos(math.pi * progress)) / 2
    progress = (iteration - turn) / max(1.0, config.iterations - 1 - turn)
    return end + (config.lr_max - end) * (1 + math.cos(math.pi * min(1.0, progress))) / 2
