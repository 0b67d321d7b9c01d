"""Result files: JSON with every figure, Markdown with the table, both complete after every single result."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from acezero_gpu.runtime import InputError
from acezero_gpu.runtime.atomic import write_atomically
from benchmarks.metrics import Figures

FORMAT = 1
"""Counts up when a key changes its meaning."""

TableWriter = Callable[[dict[str, Any]], str]
"""From the content of a result file to its Markdown."""


class Record:
    """A growing result file and its table beside it, under the same name with the suffix ``.md``."""

    def __init__(self, path: Path, head: dict[str, Any], table: TableWriter, *, overwrite: bool) -> None:
        """``InputError`` if results are there already and ``overwrite`` is off, or no file can be made."""
        self.path = path
        self._table = table
        if path.suffix != ".json":
            raise InputError(f"--out {path}: give a name that ends in .json.")
        if path.exists() and not overwrite:
            raise InputError(f"--out {path}: exists; give another name, or --overwrite.")
        self.content: dict[str, Any] = {"format": FORMAT, **head, "rows": []}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._write()
        except OSError as error:
            raise InputError(f"--out {path}: cannot be written ({error.strerror}).") from error

    def add(self, row: Figures) -> None:
        """One more result, on disk before this returns."""
        self.content["rows"].append(row)
        self._write()

    def markdown(self) -> str:
        """The table of what there is so far."""
        return self._table(self.content)

    def _write(self) -> None:
        write_atomically(self.path, json.dumps(self.content, indent=1, ensure_ascii=False) + "\n")
        write_atomically(self.path.with_suffix(".md"), self.markdown())


def read_record(path: Path) -> dict[str, Any]:
    """The content of a result file; ``InputError`` if it is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error}).") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT or "rows" not in content:
        raise InputError(f"{path}: not a result file of this version of the benchmarks.")
    return content
