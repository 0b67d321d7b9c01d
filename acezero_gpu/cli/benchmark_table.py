"""Results of the view synthesis benchmark: their files, and one table of them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from acezero_gpu.cli.nerfstudio_calls import FIGURES
from acezero_gpu.runtime import InputError

RESULT = "nvs.json"
COUNTS = ("images", "registered", "train", "test")
"""Keys of a result beside its method and its figures."""
Result = dict[str, Any]


def read_results(folders: Sequence[Path]) -> dict[str, Result]:
    """Every ``nvs.json`` below these folders by the scene's name: the path of its run from there.

    ``InputError`` for a folder that is none, and for a file that is no result.
    """
    found: dict[Path, Result] = {}
    names: dict[Path, str] = {}
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; give one with results of acezero benchmark nvs.")
        for file in sorted(folder.rglob(RESULT)):
            key = file.resolve()
            found[key] = _read(file)
            below = file.parent.relative_to(folder)
            below = below.parent if below.name == "nvs" else below
            names[key] = below.as_posix() if below.parts else str(found[key]["scene"])
    twice = len(set(names.values())) < len(names)
    return {str(path.parent) if twice else names[path]: result for path, result in found.items()}


def _read(file: Path) -> Result:
    try:
        result = dict(json.loads(file.read_text(encoding="utf-8")))
        for key in ("scene", "method"):
            result[key] = str(result[key])
        for key in COUNTS:
            result[key] = int(result[key])
        result |= {key: float(result[key]) for key in FIGURES if key == "psnr" or key in result}
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}).") from error
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"{file}: not a result of acezero benchmark nvs; make it again, or remove it."
        ) from None
    return result


def result_table(results: dict[str, Result]) -> Table:
    """A row for each scene, and for each method the mean over its scenes."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("scene", "method"):
        table.add_column(heading)
    for heading in (*COUNTS, *(key.upper() for key in FIGURES)):
        table.add_column(heading, justify="right")
    for scene, result in results.items():
        table.add_row(scene, result["method"], *(str(result[key]) for key in COUNTS), *_shown(result))
    for method in sorted({result["method"] for result in results.values()}):
        rows = [result for result in results.values() if result["method"] == method]
        if len(rows) > 1:
            table.add_section()
            table.add_row("mean", method, *("" for _ in COUNTS), *_shown(_mean(rows)))
    return table


def _mean(rows: Sequence[Result]) -> Result:
    """Of those figures that all rows have."""
    everywhere = [key for key in FIGURES if all(key in row for row in rows)]
    return {key: sum(row[key] for row in rows) / len(rows) for key in everywhere}


def _shown(figures: Result) -> list[str]:
    digits = {"psnr": 2, "ssim": 3, "lpips": 3}
    return [f"{figures[key]:.{digits[key]}f}" if key in figures else "" for key in FIGURES]
