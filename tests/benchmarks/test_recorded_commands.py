"""The commands in the result files can be typed: every option in them exists."""

import json
import shlex
from pathlib import Path

import pytest
import typer

from benchmarks.__main__ import app

RESULTS = sorted((Path(__file__).parents[2] / "benchmarks" / "results").glob("*.json"))


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_options_of_recorded_commands_exist(path):
    words = shlex.split(json.loads(path.read_text())["command"])
    assert words[:3] == ["python", "-m", "benchmarks"]
    command = typer.main.get_command(app).commands[words[3]]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {word for word in words[4:] if word.startswith("--")} <= known
