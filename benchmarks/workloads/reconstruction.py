"""Several systems on the same pictures, judged alike."""

import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from acezero_gpu.cli.settings import Settings
from benchmarks.image_sets import TruthSet
from benchmarks.metrics import Figures, reconstruction_figures
from benchmarks.records import Record
from benchmarks.systems import run_system


@dataclass(frozen=True, slots=True)
class Repeats:
    """How often, and where the files of the runs stay."""

    count: int = 1
    """Runs of each system on each set; run number r has the seed of the settings plus r."""
    keep: Path | None = None
    """Folder for the files of all runs; None removes them."""


def compare(
    sets: Sequence[TruthSet], systems: Sequence[str], settings: Settings, repeats: Repeats, record: Record
) -> bool:
    """Adds a row to the record for each set, system and repeat; whether every one of them has a result."""
    complete = True
    for truth_set in sets:
        for system in systems:
            for repeat, seeded in seeded_settings(settings, repeats.count):
                row = measure(truth_set, system, seeded, repeats.keep, repeat)
                record.add(row)
                complete &= row["failure"] is None
                sys.stderr.write(_line(row))
    return complete


def measure(
    truth_set: TruthSet, system: str, settings: Settings, keep: Path | None, repeat: int = 0
) -> Figures:
    """One run of one system on one set."""
    with TemporaryDirectory(prefix="benchmark-") as temporary:
        folder = Path(temporary) if keep is None else keep
        place = folder / truth_set.name / f"{re.sub('[^a-z0-9.=]+', '_', system)}-{repeat}"
        result = run_system(system, truth_set, settings, place)
    head = {"set": truth_set.name, "system": system, "repeat": repeat, "seed": settings.config.seed}
    return {**head, **reconstruction_figures(result, truth_set), "truth": truth_set.truth_kind}


def seeded_settings(settings: Settings, count: int) -> Iterator[tuple[int, Settings]]:
    """The settings for each repeat: another seed each time, since the same one would give the same result."""
    for repeat in range(count):
        yield repeat, replace(settings, config=replace(settings.config, seed=settings.config.seed + repeat))


def _line(row: Figures) -> str:
    return (
        f"{row['set']}, {row['system']}: registered {row['registered']} of {row['images']} "
        f"in {row['seconds']:.1f} s{' – ' + row['failure'] if row['failure'] else ''}\n"
    )
