"""The absolute pose solver beside others, its minimal solver, its batching and its memory."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import poselib
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from acezero_gpu.pnp import p3p
from acezero_gpu.ransac import RansacConfig, estimate_absolute_pose
from acezero_gpu.runtime import InputError
from benchmarks.metrics import Figures
from benchmarks.pose_cases import PoseCase, grid_case
from benchmarks.processes import Effort, timed_in_processes
from benchmarks.records import Record
from benchmarks.systems.pose_solvers import OURS, SLOW, SOLVERS, Ours, tensors

SUCCESS_M, SUCCESS_DEG = 0.05, 5.0


@dataclass(frozen=True, slots=True)
class Layout:
    """How the cores are used."""

    processes: int
    threads: int

    def __str__(self) -> str:
        return f"{self.processes} x {self.threads}"


PARTS = ("cases", "p3p", "batching", "throughput", "memory")
P3P_PROBLEMS = 100_000


def chosen_parts(names: str) -> list[str]:
    """The parts of a comma-separated list; ``InputError`` for an unknown one."""
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    if not chosen or not set(chosen) <= set(PARTS):
        raise InputError(f"--parts {names}: choose from {', '.join(PARTS)}.")
    return chosen


def measure_solver(
    cases: list[PoseCase], solvers: list[str], parts: list[str], device: str, repeats: int, record: Record
) -> None:
    """All that was asked for, each result on disk as soon as it is there."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if "p3p" in parts:
        measure_p3p(P3P_PROBLEMS, cores, device, record)
    if "memory" in parts:
        measure_memory((1, 64, 1024), device, record)
    if "batching" in parts:
        measure_batching((1, 8, 64), device, record)
    if "throughput" in parts:
        measure_throughput(1024, device, record)
    compare_solvers(cases, solvers, cores, device, repeats, record)


def compare_solvers(
    cases: list[PoseCase], solvers: list[str], cores: int, device: str, repeats: int, record: Record
) -> None:
    """A row for each solver, layout and case: on one core, on all by processes, ours also by threads."""
    for name in solvers if cases else []:
        # Solvers that take minutes for a case run once, on all cores.
        layouts = [Layout(cores, 1)] if name in SLOW else [Layout(1, 1), Layout(cores, 1)]
        layouts += [Layout(1, cores)] if name in OURS else []
        if name in OURS and device != "cpu":
            layouts = [Layout(1, 1)]  # one process has the device
        layouts = list(dict.fromkeys(layouts))
        effort = Effort(repeats=1 if name in SLOW else repeats, warm_ups=2 if name in OURS else 0)
        for layout in layouts:
            for row in _solver_rows(cases, name, layout, device, replace(effort, threads=layout.threads)):
                record.add({"part": "cases", "solver": name, **row})
                sys.stderr.write(
                    f"{row['case']}, {name}, {layout}: {row['frames_per_s']:.1f} frames/s, "
                    f"{100 * row['within']:.1f} % within 5 cm and 5°\n"
                )


def _solver_rows(
    cases: list[PoseCase], name: str, layout: Layout, device: str, effort: Effort
) -> Iterator[Figures]:
    jobs = [[case.part(start, layout.processes) for start in range(layout.processes)] for case in cases]
    results = timed_in_processes(partial(_solve, name, device), jobs, effort)
    for case, parts, timed in zip(cases, jobs, results, strict=True):
        errors = [part.errors(poses) for part, poses in zip(parts, timed.results, strict=True)]
        frames = len(case.points)
        yield {
            "case": case.name,
            "processes": layout.processes,
            "threads": layout.threads,
            "frames": frames,
            "repeats": effort.repeats,
            "frames_per_s": round(frames / timed.seconds, 3),
            **accuracy(*(np.concatenate(column) for column in zip(*errors, strict=True))),
        }


def _solve(name: str, device: str, case: PoseCase) -> NDArray[np.float64]:
    return SOLVERS[name](device)(case)


def accuracy(rotation_deg: NDArray[np.float64], distance_m: NDArray[np.float64]) -> Figures:
    """Medians, the share within 5 cm and 5°, and the number outside."""
    within = (rotation_deg < SUCCESS_DEG) & (distance_m < SUCCESS_M)
    medians = [float(np.median(errors)) for errors in (rotation_deg, 100 * distance_m)]
    rotation, distance = (value if np.isfinite(value) else None for value in medians)
    return {
        "median_rotation_deg": rotation,
        "median_translation_cm": distance,
        "within": float(within.mean()),
        "failures": int((~within).sum()),
    }


def measure_p3p(problems: int, cores: int, device: str, record: Record) -> None:
    """Share of random problems whose true pose is among the roots, and the time per problem."""
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.float32, 1e-3)):
        bearings, points, truth = random_p3p(problems, dtype, device)
        found = p3p(bearings, points)
        error = (found.cam_from_world - truth[:, None]).flatten(2).abs().amax(-1)
        error = torch.where(found.valid, error, torch.inf).amin(-1)
        finite = found.cam_from_world.isfinite().all(-1).all(-1)
        record.add(
            {
                "part": "p3p",
                "solver": "ours",
                "dtype": str(dtype).removeprefix("torch."),
                "problems": problems,
                "tolerance": tolerance,
                "solved": float((error < tolerance).double().mean()),
                "not_finite_but_valid": int((found.valid & ~finite).sum()),
            }
        )
    record.add(_poselib_p3p(problems))
    for threads in sorted({1, cores}):
        for compile in (False, True):
            run = partial(_p3p_seconds, problems, device, compile)
            seconds = timed_in_processes(run, [[None]], Effort(threads))[0].results[0]
            record.add(
                {
                    "part": "p3p speed",
                    "solver": "ours, compiled" if compile else "ours",
                    "dtype": "float32",
                    "threads": threads,
                    "problems_per_s": round(problems / seconds),
                }
            )


def random_p3p(problems: int, dtype: torch.dtype, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """Bearings within a field of view of 90°, points 1 to 5 m away, true poses (problems, 3, 4)."""
    draw = np.random.default_rng(0)
    rotation = Rotation.random(problems, random_state=draw).as_matrix()
    translation = draw.uniform(-1, 1, (problems, 3, 1))
    plane = draw.uniform(-1, 1, (problems, 3, 2))
    rays = np.concatenate([plane, np.ones((problems, 3, 1))], axis=2)
    bearings = rays / np.linalg.norm(rays, axis=2, keepdims=True)
    in_camera = bearings * draw.uniform(1, 5, (problems, 3, 1))
    points = (in_camera - translation.transpose(0, 2, 1)) @ rotation
    truth = np.concatenate([rotation, translation], axis=2)
    bearings, points, truth = (torch.tensor(a, dtype=dtype, device=device) for a in (bearings, points, truth))
    return bearings, points, truth


def _poselib_p3p(problems: int) -> Figures:
    bearings, points, truth = (t.numpy() for t in random_p3p(problems, torch.float64, "cpu"))
    start = time.perf_counter()
    roots = [poselib.p3p(b, x) for b, x in zip(bearings, points, strict=True)]
    seconds = time.perf_counter() - start
    solved = 0
    for poses, true in zip(roots, truth, strict=True):
        errors = [np.abs(np.column_stack([pose.R, pose.t]) - true).max() for pose in poses]
        solved += min(errors, default=np.inf) < 1e-6
    return {
        "part": "p3p",
        "solver": "PoseLib",
        "dtype": "float64",
        "problems": problems,
        "tolerance": 1e-6,
        "solved": solved / problems,
        "not_finite_but_valid": 0,
        "problems_per_s": round(problems / seconds),
    }


def _p3p_seconds(problems: int, device: str, compile: bool, _: None) -> float:
    bearings, points, _truth = random_p3p(problems, torch.float32, device)
    return median_seconds(lambda: p3p(bearings, points, compile=compile), device, repeats=7)


def median_seconds(function: Callable[[], Any], device: str, repeats: int) -> float:
    """Of a call whose work may go on on the device; two calls come before the clock."""
    seconds = []
    for repeat in range(repeats + 2):
        start = time.perf_counter()
        function()
        if device != "cpu":
            torch.cuda.synchronize()
        if repeat >= 2:
            seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def measure_batching(sizes: tuple[int, ...], device: str, record: Record) -> None:
    """Frames per second by frames per call, on one thread of a CPU."""
    case = grid_case(max(sizes), 0.3)
    for preset in ("fast", "robust"):
        for compile in (False, True):
            run = partial(_batch_seconds, preset, compile, device)
            jobs = [[case.frames(slice(0, size))] for size in sizes]
            for size, timed in zip(sizes, timed_in_processes(run, jobs, Effort()), strict=True):
                figures = {"compiled": compile, "batch": size, "frames_per_s": size / timed.results[0]}
                record.add({"part": "batching", "preset": preset, **figures})


def _batch_seconds(preset: str, compile: bool, device: str, case: PoseCase) -> float:
    points, pixels, camera = tensors(case, device)
    config = Ours(preset, compile=compile).config
    return median_seconds(lambda: estimate_absolute_pose(points, pixels, camera, config), device, repeats=7)


def measure_throughput(frames: int, device: str, record: Record) -> None:
    """Frames per second in one large call, for devices that need one to be busy."""
    case = grid_case(frames, 0.3)
    points, pixels, camera = tensors(case, device)
    for preset in ("fast", "robust"):
        for compile in (False, True):
            config = Ours(preset, compile=compile).config
            solve = partial(estimate_absolute_pose, points, pixels, camera, config)
            seconds = median_seconds(solve, device, repeats=7)
            figures = {"compiled": compile, "batch": frames, "frames_per_s": frames / seconds}
            record.add({"part": "throughput", "preset": preset, **figures})


def measure_memory(sizes: tuple[int, ...], device: str, record: Record) -> None:
    """Peak memory without inputs and outputs by frames per call, each in a process of its own."""
    for preset in ("fast", "robust"):
        for size in sizes:
            run = partial(_peak_bytes, preset, device)
            temporary, total = timed_in_processes(run, [[size]], Effort())[0].results[0]
            figures = {"temporary_mb": temporary / 1e6, "total_mb": total / 1e6}
            record.add({"part": "memory", "preset": preset, "batch": size, **figures})


def _peak_bytes(preset: str, device: str, frames: int) -> tuple[int, int]:
    """What the call took at most, and what the process has taken at most in all."""
    config: RansacConfig = getattr(RansacConfig, preset)()
    few = tensors(grid_case(2, 0.6), device)
    estimate_absolute_pose(*few, config)  # libraries load
    points, pixels, camera = few[0][:1].repeat(frames, 1, 1), few[1], few[2]
    given = points.numel() * points.element_size()
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = estimate_absolute_pose(points, pixels, camera, config)
        peak = torch.cuda.max_memory_allocated()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: the highest mark starts anew
        before = _resident_bytes("VmRSS")
        result = estimate_absolute_pose(points, pixels, camera, config)
        peak = _resident_bytes("VmHWM")
    made = sum(t.numel() * t.element_size() for t in (result.inliers, result.score, result.cam_from_world))
    return max(0, peak - before - made), peak - given - made


def _resident_bytes(which: str) -> int:
    """Of this process, now or at most, as Linux tells it."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(which))
