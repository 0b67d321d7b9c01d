"""The commands and their flags are a promise: a change here is a change for every script that calls them."""

from typing import Any

import pytest
import typer

from acezero_gpu.cli import app

SHARED = {"--device", "--preset", "--set", "--overwrite", "--quiet", "-q", "--verbose", "-v"}
TRAINED = (
    SHARED
    | {"--log-json"}
    | {"--config", "--seed", "--encoder", "--buffer-device", "--focal-px", "--fix-focal"}
)
STRETCHES = {"--fps", "--every", "--min-sharpness", "--max-frames"}
FLAGS = {
    "reconstruct": [
        "images",
        "out",
        *sorted(
            TRAINED
            | STRETCHES
            | {"--memory-budget", "--heads"}
            | {"--depth", "--poses", "--fix-poses", "--seed-map", "--refine-joint", "--no-report", "--video"}
        ),
    ],
    "map": [
        "images",
        "out",
        *sorted(
            TRAINED
            | {
                "--memory-budget",
                "--poses",
                "--allow-missing",
                "--pose-refinement",
                "--pose-refinement-wait",
                "--refine-joint",
                "--heads",
            }
        ),
    ],
    "register": [
        "images",
        "map_file",
        "out",
        *sorted(SHARED | {"--config", "--seed", "--encoder", "--focal-px", "--log-json"}),
    ],
    "evaluate": [
        "poses",
        "truth",
        *sorted(
            {
                "--no-align",
                "--no-scale",
                "--align-on",
                "--threshold",
                "--truth-focal-px",
                "--min-confidence",
                "--json",
            }
        ),
    ],
    "report": ["run", *sorted({"--images", "--out", "--device"})],
    "frames": [
        "videos",
        "out",
        *sorted(STRETCHES | {"--min-side", "--overwrite", "--quiet", "-q", "--verbose", "-v"}),
    ],
    "export": [
        "run",
        "out",
        *sorted(
            SHARED - {"--preset", "--set"}
            | {
                "--to",
                "--images",
                "--min-confidence",
                "--dense",
                "--opengl",
                "--copy-images",
                "--camera-size",
            }
        ),
    ],
    "import": ["format_", "model", "out", "--overwrite"],
    "dataset": [
        "name",
        "folder",
        *sorted({"--download", "--archive", "--quiet", "-q", "--verbose", "-v"}),
    ],
    "demo": ["out", *sorted(SHARED)],
    "video": ["run", *sorted({"--images", "--device", "--quiet", "-q", "--verbose", "-v"})],
    "view": ["run", *sorted({"--images", "--host", "--port", "--max-points", "--no-browser"})],
    "train-encoder": [
        "out",
        *sorted(SHARED - {"--preset"} | {"--pictures", "--start-from", "--steps", "--seed"}),
    ],
    "experiment run": ["file", *sorted(SHARED | {"--data", "--out", "--scene"})],
    "benchmark nvs": [
        "run",
        "out",
        *sorted(
            SHARED - {"--device", "--preset", "--set"}
            | {"--images", "--method", "--split", "--convert-only", "--steps", "--seed"}
        ),
    ],
    "benchmark show": ["folders"],
}


def command_of(name: str) -> Any:
    """The command of this name; a space stands between a group and its command."""
    command = typer.main.get_command(app)
    for part in name.split(" "):
        command = command.commands[part]
    return command


def flags_of(name: str) -> list[str]:
    command = command_of(name)
    names = [option for parameter in command.params for option in parameter.opts]
    arguments = [option for option in names if not option.startswith("-")]
    return [*arguments, *sorted(option for option in names if option.startswith("-"))]


def test_the_commands() -> None:
    names = []
    for name, command in typer.main.get_command(app).commands.items():
        names += [f"{name} {part}" for part in command.commands] if hasattr(command, "commands") else [name]
    assert names == list(FLAGS)


@pytest.mark.parametrize("name", FLAGS)
def test_the_flags(name: str) -> None:
    assert [flag for flag in flags_of(name) if flag != "--help"] == FLAGS[name]


@pytest.mark.parametrize("name", FLAGS)
def test_every_flag_is_explained(name: str) -> None:
    parameters = command_of(name).params
    assert [parameter.name for parameter in parameters if not parameter.help] == []
