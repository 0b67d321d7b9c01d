"""Solve 100,000 absolute poses from three points each, in one call, and check them against the truth.

Every problem has up to four solutions; ``p3p`` returns four slots and says which are real. A problem counts as
solved if one of its solutions is the true pose, up to the precision of float32. ``--compile`` solves them once more
through ``torch.compile``, which needs a C++ compiler on a CPU and up to a minute the first time.

Run: ``python examples/01_p3p.py [--compile]`` (seconds on a CPU, no data needed).
"""

import sys
import time

import torch
from torch import Tensor

from acezero_gpu.geometry import camera_centres, invert, retract, rotation_angle_deg, transform_points
from acezero_gpu.pnp import p3p

PROBLEMS = 100_000
SOLVED_DEG, SOLVED_DISTANCE = 0.1, 0.01


def make_problems(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Unit rays, the points on them two to six units away, in a world of their own, and the true poses."""
    slopes = 1.2 * (torch.rand(PROBLEMS, 3, 2, generator=generator) - 0.5)
    rays = torch.cat([slopes, torch.ones(PROBLEMS, 3, 1)], dim=-1)
    in_camera = rays * (2 + 4 * torch.rand(PROBLEMS, 3, 1, generator=generator))
    truth = retract(torch.eye(3, 4).expand(PROBLEMS, 3, 4), torch.randn(PROBLEMS, 6, generator=generator))
    return torch.nn.functional.normalize(rays, dim=-1), transform_points(invert(truth), in_camera), truth


def share_solved(bearings: Tensor, points: Tensor, truth: Tensor, compile: bool) -> tuple[float, float]:
    """Share of problems of which one solution is the truth; seconds of the second of two calls."""
    p3p(bearings, points, compile=compile)
    start = time.perf_counter()
    solutions = p3p(bearings, points, compile=compile)
    seconds = time.perf_counter() - start
    pose, truth = solutions.cam_from_world, truth[:, None]
    near = rotation_angle_deg(pose[..., :3], truth[..., :3]) < SOLVED_DEG
    near &= (camera_centres(pose) - camera_centres(truth)).norm(dim=-1) < SOLVED_DISTANCE
    return (near & solutions.valid).any(-1).float().mean().item(), seconds


def main(*, compile: bool = False) -> dict[str, float]:
    problems = make_problems(torch.Generator().manual_seed(0))
    solved, seconds = share_solved(*problems, compile=False)
    figures = {"solved": solved, "seconds": seconds}
    print(f"{PROBLEMS} problems, {100 * solved:.2f} % solved in {seconds:.2f} s")
    if compile:
        solved, seconds = share_solved(*problems, compile=True)
        figures |= {"solved_compiled": solved, "seconds_compiled": seconds}
        print(f"compiled:        {100 * solved:.2f} % solved in {seconds:.2f} s")
    return figures


if __name__ == "__main__":
    main(compile="--compile" in sys.argv[1:])
