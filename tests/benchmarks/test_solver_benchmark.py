"""The comparison of pose solvers: its cases, its figures, its processes, its table."""

import math
import os
import time

import numpy as np
import pytest
import torch

from acezero_gpu.runtime import InputError
from benchmarks.pose_cases import grid_case
from benchmarks.processes import Effort, timed_in_processes
from benchmarks.solver_tables import solver_table
from benchmarks.systems.pose_solvers import SOLVERS, chosen_solvers
from benchmarks.workloads.solver import accuracy, chosen_parts, random_p3p


def test_a_case_has_the_outliers_and_the_noise_it_says():
    case = grid_case(3, 0.3)
    assert case.points.shape == (3, 4800, 3)
    in_camera = np.einsum("fij,fnj->fni", case.cam_from_world[:, :, :3], case.points)
    in_camera += case.cam_from_world[:, None, :, 3]
    rays = np.concatenate([(case.pixels - case.principal_point_px) / case.focal_px, np.ones((4800, 1))], 1)
    aside = np.linalg.norm(in_camera[:, :, :2] - in_camera[:, :, 2:] * rays[:, :2], axis=-1)
    near = (aside < 0.15) & (in_camera[:, :, 2] > 0.8)
    assert near.mean() == pytest.approx(0.7, abs=0.02)
    assert np.quantile(in_camera[near][:, 2], 0.99) < 5.1
    # Two coordinates of a noise of 2 cm, which an oblique ray makes a little wider.
    assert 0.02 < np.sqrt(np.mean(aside[near] ** 2) / 2) < 0.026


def test_the_true_poses_have_no_error_and_a_missing_one_an_infinite_error():
    case = grid_case(4, 0.3)
    estimate = case.cam_from_world.copy()
    estimate[1] = np.nan
    turn = np.radians(3.0)
    turned = np.array([[math.cos(turn), -math.sin(turn), 0], [math.sin(turn), math.cos(turn), 0], [0, 0, 1]])
    estimate[2] = turned @ estimate[2]  # about the camera's own axis: the centre stays
    estimate[3, :, 3] += 0.04 * estimate[3, :, 0]
    rotation_deg, distance_m = case.errors(estimate)
    np.testing.assert_allclose(rotation_deg, [0, np.inf, 3, 0], atol=1e-6)
    np.testing.assert_allclose(distance_m, [0, np.inf, 0, 0.04], atol=1e-9)
    figures = accuracy(rotation_deg, distance_m)
    assert figures["within"] == 0.75
    assert figures["failures"] == 1
    assert figures["median_translation_cm"] == pytest.approx(2.0)
    assert accuracy(np.array([np.inf]), np.array([np.inf]))["median_rotation_deg"] is None


def test_every_solver_solves_easy_frames():
    case = grid_case(2, 0.3)
    for name, make in SOLVERS.items():
        if "compiled" not in name:
            rotation_deg, distance_m = case.errors(make("cpu")(case))
            assert rotation_deg.max() < 1, name
            assert distance_m.max() < 0.02, name


def test_random_problems_are_exact():
    bearings, points, truth = random_p3p(50, torch.float64, "cpu")
    in_camera = points @ truth[:, :, :3].transpose(1, 2) + truth[:, None, :, 3]
    assert torch.allclose(torch.nn.functional.normalize(in_camera, dim=-1), bearings)


def test_names_that_do_not_exist_are_told():
    assert chosen_parts("p3p, memory") == ["p3p", "memory"]
    assert chosen_solvers("PoseLib; robust, compiled") == ["PoseLib", "robust, compiled"]
    with pytest.raises(InputError, match="choose from cases"):
        chosen_parts("p4p")
    with pytest.raises(InputError, match="OpenCV USAC"):
        chosen_solvers("EPnP")


def sleeping(seconds: float) -> int:
    """Runs in another process."""
    if seconds < 0:
        raise RuntimeError("no negative sleep")
    time.sleep(seconds)
    return os.getpid()


def test_processes_work_at_the_same_time_and_tell_their_failures():
    first, second = timed_in_processes(sleeping, [[0.5, 0.5], [0.1, 0.5]], Effort(repeats=2))
    assert first.results[0] != first.results[1] != os.getpid()
    assert first.results == second.results, "the same processes do all jobs"
    assert all(timed.seconds > 0.45 for timed in (first, second))
    with pytest.raises(InputError, match="no negative sleep"):
        timed_in_processes(sleeping, [[-1.0]], Effort())


def test_the_table_compares_all_cores_with_usac():
    def row(solver: str, processes: int, threads: int, speed: float) -> dict[str, object]:
        figures = accuracy(np.array([0.1, 0.2]), np.array([0.01, 0.02]))
        rest = {"processes": processes, "threads": threads, "frames": 2, "frames_per_s": speed}
        return {"part": "cases", "case": "easy", "solver": solver, **rest, **figures}

    rows = [row("robust", 1, 1, 100.0), row("robust", 2, 1, 190.0), row("robust", 1, 2, 150.0)]
    rows += [row("OpenCV USAC", 1, 1, 20.0), row("OpenCV USAC", 2, 1, 38.0)]
    environment = dict.fromkeys(
        ("commit", "date", "device", "cpu", "cores", "threads", "torch", "python"), "x"
    )
    head = {"command": "c", "preset": "fast", "environment": environment}
    lines = solver_table({**head, "rows": rows}).splitlines()
    ours = next(line for line in lines if line.startswith("| easy | robust"))
    assert ours.split("|")[-5:-1] == [" 100.0 ", " 190.0 ", " 150.0 ", " 5.0 "]
    assert "1.500 cm" in ours
