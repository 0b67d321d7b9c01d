"""Seconds, and what they were measured on."""

import datetime
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import acezero_gpu
from acezero_gpu.cli.versions import git_commit, versions
from acezero_gpu.runtime import describe_device


class Stages:
    """Seconds of each stage by name, by any clock, in the order they were entered."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = {}
        self._clock = clock

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = self._clock()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self._clock() - start


def warm_up(device: torch.device) -> None:
    """Load the device's libraries, so that the first set does not pay for what all sets share."""
    x = torch.rand(64, 64, device=device)
    torch.linalg.svd(x @ x)
    torch.linalg.solve(x + 64 * torch.eye(64, device=device), x)
    torch.nn.functional.conv2d(x[None, None], x[None, None, :3, :3])
    wait(device)


def wait(device: torch.device) -> None:
    """Until the device has done all that it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def environment(device: torch.device, commit: str | None = None) -> dict[str, Any]:
    """Machine, versions, commit and date. ``commit`` speaks where there is no checkout to ask."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": git_commit() or commit,
        "uncommitted_changes": _has_changes(),
        "device": describe_device(device),
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        **versions(),
    }


def _has_changes() -> bool | None:
    """Whether the package or the benchmarks differ from the commit; None outside a checkout."""
    root = Path(acezero_gpu.__file__).parents[1]
    if git_commit() is None:
        return None
    command = ["git", "-C", str(root), "status", "--porcelain", "--", "acezero_gpu", "benchmarks/*.py"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return bool(done.stdout.strip()) if done.returncode == 0 else None


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
