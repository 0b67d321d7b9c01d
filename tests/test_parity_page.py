"""Settings and flags that docs/parity.md promises exist."""

import re
from fnmatch import fnmatchcase
from pathlib import Path

import typer

from acezero_gpu.cli import app
from acezero_gpu.config import ReconstructionConfig, setting_names

PAGE = (Path(__file__).parents[1] / "docs" / "parity.md").read_text(encoding="utf-8")
SECTIONS = re.findall(r"^### `\w+\.py` → `acezero (\w+)`\n(.*?)(?=^##)", PAGE, re.DOTALL | re.MULTILINE)


def ours(section: str) -> list[str]:
    """The cells that say what stands for a flag of ACE0's."""
    rows = [line.split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return [row[1] for row in rows[1:]]


def test_every_program_has_a_table() -> None:
    assert [command for command, _ in SECTIONS] == ["reconstruct", "map", "register", "evaluate"]
    assert all(len(ours(section)) >= 6 for _, section in SECTIONS)


def test_every_setting_exists() -> None:
    known = setting_names(ReconstructionConfig())
    found = 0
    for cell in (cell for _, section in SECTIONS for cell in ours(section)):
        prefix = ""
        for key in re.findall(r"`(?:--set )?([\w.*]+)=\S*?`", cell):
            prefix = key.rpartition(".")[0] or prefix
            dotted = f"{prefix}.{key.rpartition('.')[2]}"
            assert [name for name in known if fnmatchcase(name, dotted)], dotted
            found += 1
    assert found > 40


def test_every_flag_exists() -> None:
    commands = typer.main.get_command(app).commands
    for command, section in SECTIONS:
        known = {option for parameter in commands[command].params for option in parameter.opts}
        for cell in ours(section):
            named = set(re.findall(r"`(--[a-z-]+)[ `]", cell)) - {"--set"}
            assert named <= known, (command, named - known)
