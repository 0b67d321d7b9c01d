"""Wall-clock seconds per named stage."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from acezero_gpu.runtime.progress import begin_stage, end_stage


class StageTimer:
    """Adds up seconds per stage name, and says when stages begin and end.

    On CUDA it waits for the device at the end of a stage.
    """

    def __init__(self, device: torch.device | None = None) -> None:
        self._device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        begin_stage(name)
        start = time.perf_counter()
        try:
            yield
        finally:
            if self._device is not None and self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            seconds = time.perf_counter() - start
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
            end_stage(name, seconds)

    @property
    def total_s(self) -> float:
        return sum(self.seconds.values())
