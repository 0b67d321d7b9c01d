"""Every example runs as a reader would run it, and what it says of itself holds."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def figures_of(name: str) -> dict:
    """What ``main`` of an example returns."""
    (path,) = (ROOT / "examples").glob(f"{name}*.py")
    return runpy.run_path(str(path))["main"]()


def test_p3p_solves_nearly_all_problems():
    assert figures_of("01")["solved"] > 0.999


def test_absolute_poses_of_a_batch():
    figures = figures_of("02")
    assert figures["fast"]["right"] >= 8
    for name in ("balanced", "robust", "prior"):
        assert figures[name]["right"] == 10, name
        assert figures[name]["rotation_deg"] < 0.1, name
        assert figures[name]["distance_cm"] < 0.5, name
    assert figures["failed"]["hopeless_inliers"] < 12
    assert figures["failed"]["almost_empty_status"] == 1


def test_scene_coordinates_get_better_through_the_pose_loss():
    figures = figures_of("03")
    assert figures["after"] < figures["before"] / 2


def test_learned_weights_are_nearly_ideal():
    figures = figures_of("04")
    assert figures["learned"] < figures["equal"] / 2
    assert figures["ideal"] <= figures["learned"] < 2 * figures["ideal"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_say_what_they_show_and_are_tested(path):
    text = path.read_text(encoding="utf-8")
    assert f"python examples/{path.name}" in text.split('"""')[1]
    assert f'figures_of("{path.name[:2]}")' in Path(__file__).read_text(encoding="utf-8")


def test_an_example_runs_as_a_program(tmp_path):
    """From any folder, by the line in its docstring."""
    script = ROOT / "examples" / "02_absolute_pose_for_a_batch.py"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "10 of 10 right" in done.stdout
