"""Imports go down only: the layers drawn in docs/architecture.md are those of the code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "acezero_gpu"
ENTRANCES = {"__init__", "__main__"}
"""The package's own front doors, which may name anything."""


def documented_layers() -> list[list[str]]:
    """From the top layer down, as the first code block after the heading lists them."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    block = re.search(r"^## Layers.*?```\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    assert block is not None, "docs/architecture.md has lost its drawing of the layers"
    names = [re.split(r"\s{2,}", line.strip())[0] for line in block[1].splitlines() if line.strip()]
    return [[name.strip() for name in line.split("│")] for line in names]


LAYERS = documented_layers()
HEIGHT = {name: -row for row, layer in enumerate(LAYERS) for name in layer}


def top_level_name(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imported_modules(source: str, path: Path) -> Iterator[str]:
    """Dotted names of this package's modules that a source file imports, wherever the import stands."""
    package = [PACKAGE.name, *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            prefix = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*prefix, *([node.module] if node.module else [])])
            names = [base] if base != PACKAGE.name else [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] == PACKAGE.name)


def violations(source: str, path: Path) -> list[str]:
    own = top_level_name(path)
    found = []
    for name in imported_modules(source, path):
        other = [*name.split("."), ""][1]
        if other == own or other.startswith("__"):
            continue
        if other not in HEIGHT:
            found.append(f"{name} is in no layer")
        elif HEIGHT[other] >= HEIGHT[own]:
            found.append(f"{own} imports {name}")
    return found


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if top_level_name(path) not in ENTRANCES)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    assert top_level_name(path) in HEIGHT, f"{top_level_name(path)} has no layer in docs/architecture.md"
    assert violations(path.read_text(encoding="utf-8"), path) == []


def test_every_documented_layer_names_each_part_once():
    names = [name for layer in LAYERS for name in layer]
    assert len(names) == len(set(names))
    assert {"runtime", "geometry", "pnp", "ransac", "evaluation", "cli"} <= set(names)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("geometry/pose.py", "import acezero_gpu.pnp"),
        ("pnp/p3p.py", "from acezero_gpu import ransac"),
        ("pnp/p3p.py", "from acezero_gpu.ransac.scoring import score"),
        ("mapping/training.py", "def f():\n    from acezero_gpu.registration import register"),
        ("data/posed_views.py", "from ..network import head"),
        ("data/posed_views.py", "from ..network.head import Head"),
        ("runtime/device.py", "from acezero_gpu.utils import anything"),
    ],
)
def test_an_import_that_does_not_point_down_is_seen(file, source):
    assert len(violations(source, PACKAGE / file)) == 1


@pytest.mark.parametrize(
    ("file", "source"),
    [
        (
            "pnp/p3p.py",
            "from acezero_gpu.geometry import hat\nimport torch\nfrom acezero_gpu.pnp import status",
        ),
        ("cli.py", "import acezero_gpu.config"),
        ("ransac/scoring.py", "from .sampling import draw\nfrom . import hypotheses"),
    ],
)
def test_an_import_that_points_down_is_not(file, source):
    assert violations(source, PACKAGE / file) == []
