"""``--log-json``: what happens in a run, for programs to read while it goes on."""

import json
import math
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from acezero_gpu.runtime import InputError


class EventLog:
    """One JSON object per line, each on the disk as soon as it is written.

    Every object has ``time`` (UTC, ISO 8601), ``elapsed_s``, ``event`` and ``stage``; the others depend on the
    event: ``start``, ``stage``, ``stage end`` (``seconds``), ``progress``, ``registered``, ``line`` and ``warning``
    (``text``), ``end`` (``outcome``, ``text``). An earlier file is replaced.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w", encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"--log-json {path}: cannot be written ({error.strerror}); give a file that you may write to."
            ) from error

    def write(self, event: str, elapsed_s: float, stage: str, **fields: Any) -> None:
        """One event. Numbers that JSON does not know become null."""
        content = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "elapsed_s": elapsed_s,
            "event": event,
            "stage": stage,
            **fields,
        }
        line = json.dumps({key: _plain(value) for key, value in content.items()})
        with self._lock:
            if not self._file.closed:
                self._file.write(line + "\n")
                self._file.flush()

    def close(self) -> None:
        """Nothing is written after this."""
        with self._lock:
            self._file.close()


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
