"""The compiled solver equals the eager one, and without a compiler the eager one takes over.

Each case runs in a process of its own: the shape checks of the tests stand in the way of the tracer.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

PRELUDE = """
import logging
import time
from dataclasses import replace
import torch
from reference.pose_results import PRESETS, pose_rows
from reference.posed_scene import make_scene
from acezero_gpu.ransac import estimate_absolute_pose
logging.basicConfig(format="%(message)s", level=logging.INFO)
torch.set_num_threads(1)

def compare(preset, score="msac", weighted=False, dtype=torch.float32, batch=5):
    scene = make_scene(batch, outliers=0.4, noise_px=1.5, rows=24, columns=30, dtype=dtype)
    weights = torch.rand(batch, 720, generator=torch.Generator().manual_seed(0)).to(dtype) if weighted else None
    config = replace(PRESETS[preset], score=score)
    eager, compiled = (
        estimate_absolute_pose(scene.points, scene.pixels, scene.camera, c, weights=weights)
        for c in (config, replace(config, compile=True))
    )
    off = (pose_rows(eager) - pose_rows(compiled)).abs().max().item()
    assert eager.status.eq(0).all() and torch.equal(eager.status, compiled.status)
    # Rounding may prefer another candidate, from which the same minimum is reached; a count jumps.
    assert off < (2e-2 if score == "count" else 2e-3), (preset, score, weighted, dtype, off)
    assert torch.allclose(eager.score, compiled.score, rtol=1e-2), (eager.score, compiled.score)
    print("compared", preset, score, weighted, dtype, off)
"""


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    return subprocess.run(
        [sys.executable, "-c", PRELUDE + program],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )


def test_without_a_compiler_a_warning_and_the_same_results(tmp_path):
    done = run(
        'compare("balanced")\ncompare("balanced", weighted=True, batch=2)',
        CXX="/nonexistent/compiler",
        TORCHINDUCTOR_CACHE_DIR=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("compared") == 2
    failed = [line for line in done.stderr.splitlines() if "torch.compile failed" in line]
    functions = [line for line in done.stderr.splitlines() if line.startswith("Compiling ")]
    assert functions
    assert len(failed) == len(set(functions)) == len(functions)  # once for each function
    assert all("going on without it" in line for line in failed)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_compiled_equals_eager():
    done = run(
        """
for preset in PRESETS:
    compare(preset)
for score in ("soft", "count"):
    compare("balanced", score)
compare("robust", weighted=True, batch=3)
"""
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("compared") == 6
    assert "failed" not in done.stderr
    functions = [line for line in done.stderr.splitlines() if line.startswith("Compiling ")]
    assert any("two_roots" in line for line in functions)
    assert len(functions) == len(set(functions))  # whatever the shapes, scores and weights: announced once
    assert sum(line.startswith("Compiled ") for line in done.stderr.splitlines()) == len(functions)
