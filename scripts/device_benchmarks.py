"""All benchmarks that a GPU is asked for, within a number of minutes; the most telling ones come first.

``python scripts/device_benchmarks.py RESULTS --data DATA --minutes 10``: a JSON file and a table for each benchmark in
``RESULTS``, and ``index.json``, which says how each of them ended. One that the time is over for is stopped, what it
has measured until then is kept, and those after it are named as left out.
"""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from acezero_gpu.runtime.atomic import write_atomically

PROGRAM = (sys.executable, "-m", "benchmarks")
LEAST_S = 15.0
"""A benchmark that would have less time is not begun."""


@dataclass(frozen=True)
class Task:
    """One command of ``python -m benchmarks``."""

    name: str
    """Of its result file."""
    arguments: tuple[str, ...]
    share: float = 1.0
    """The most that it may take of the time that is left."""


def tasks(data: Path, preset: str) -> list[Task]:
    """In the order in which they are run."""
    where = ("--data", str(data))
    throughput = ("throughput", *where, "--preset", preset, "--repeat", "2")
    return [
        Task("throughput_acezero", (*throughput, "--steps", "2500", "--set", "encoder=acezero"), 0.3),
        Task("throughput", throughput, 0.5),
        Task(
            "pipeline",
            ("pipeline", *where, "--preset", preset, "--systems", "ours", "--images", "125,1000"),
            0.6,
        ),
        Task("bundle", ("adjustment", "--parts", "bundle", "--repeat", "1"), 0.5),
        Task("encoder", ("encoder", "--encoders", "dense-sift,acezero"), 0.5),
        Task("solver", ("solver", "--parts", "p3p,batching,throughput,memory", "--repeat", "1")),
        Task("scaling", ("adjustment", *where, "--parts", "scaling", "--images", "125,250,500,1000")),
    ]


def run_all(
    chosen: Sequence[Task],
    folder: Path,
    seconds: float,
    more: Sequence[str],
    program: Sequence[str] = PROGRAM,
) -> int:
    """Runs them one after another, each with ``more`` arguments; how many of them did not end well."""
    end = time.monotonic() + seconds
    index: list[dict[str, object]] = []
    for task in chosen:
        left = end - time.monotonic()
        arguments = [*task.arguments, *more]
        entry: dict[str, object] = {"name": task.name, "command": shlex.join(["benchmarks", *arguments])}
        index.append(entry)
        if task.share * left < LEAST_S:
            entry["end"] = "left out, the time is over"
        else:
            entry |= run_one(task.name, [*program, *arguments], folder, task.share * left)
        print(f"{task.name}: {entry['end']}", flush=True)
        write_atomically(folder / "index.json", json.dumps(index, indent=1) + "\n")
    return sum(entry["end"] != "well" for entry in index)


def run_one(name: str, command: Sequence[str], folder: Path, seconds: float) -> dict[str, object]:
    """How one benchmark ended, after how many seconds; its output goes to a log beside its results."""
    start = time.monotonic()
    with (folder / f"{name}.log").open("w") as log:
        # In a session of its own: it starts processes, which must end with it.
        process = subprocess.Popen(
            [*command, "--out", str(folder / f"{name}.json")], stdout=log, stderr=log, start_new_session=True
        )
        try:
            code = process.wait(seconds)
            end = "well" if code == 0 else f"exit code {code}, see {name}.log"
        except subprocess.TimeoutExpired:
            end = f"stopped after its {seconds:.0f} s, the rows until then are kept"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return {"end": end, "seconds": round(time.monotonic() - start, 1)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="folder for the results")
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of the image sets, redkitchen among them"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="for all benchmarks together")
    parser.add_argument("--device", default="cuda", help="cuda or cpu")
    parser.add_argument("--preset", default="default", help="of mapping and of whole reconstructions")
    parser.add_argument("--only", help="names of benchmarks, with commas between")
    parser.add_argument("--commit", help="for copies that are no git checkout")
    given = parser.parse_args()
    chosen = tasks(given.data, given.preset)
    if given.only is not None:
        names = {name.strip() for name in given.only.split(",")}
        unknown = names - {task.name for task in chosen}
        if unknown:
            parser.error(f"--only {given.only}: choose from {', '.join(task.name for task in chosen)}")
        chosen = [task for task in chosen if task.name in names]
    given.results.mkdir(parents=True, exist_ok=True)
    more = ["--device", given.device, "--overwrite", *(["--commit", given.commit] if given.commit else [])]
    return min(1, run_all(chosen, given.results, 60.0 * given.minutes, more))


if __name__ == "__main__":
    sys.exit(main())
