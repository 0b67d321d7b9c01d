"""What all measuring commands share: the record, its tables, the end."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import typer

from acezero_gpu.cli.settings import Settings
from benchmarks.adjustment_table import adjustment_table
from benchmarks.encoder_table import encoder_table
from benchmarks.image_sets import TruthSet
from benchmarks.pipeline_table import pipeline_table
from benchmarks.pose_refinement_table import pose_refinement_table
from benchmarks.records import Record
from benchmarks.solver_tables import solver_table
from benchmarks.systems import chosen_systems, settings_of
from benchmarks.tables import TABLES as IMAGE_TABLES
from benchmarks.throughput_table import throughput_table
from benchmarks.timing import environment, warm_up
from benchmarks.workloads.reconstruction import Repeats, compare

RESULTS = Path("benchmarks/results")
TABLES = {
    **IMAGE_TABLES,
    "solver": solver_table,
    "adjustment": adjustment_table,
    "pose-refinement": pose_refinement_table,
    "encoder": encoder_table,
    "pipeline": pipeline_table,
    "throughput": throughput_table,
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What all measuring commands share."""

    kind: str
    """The command."""
    settings: Settings
    repeats: Repeats
    out: Path
    overrides: tuple[str, ...]
    """As given with ``--set``."""
    commit: str | None
    overwrite: bool

    def record(self, arguments: Sequence[str]) -> Record:
        """The file for the results, with a command in it that names no folder of this machine."""
        settings = self.settings
        words = ["python", "-m", "benchmarks", self.kind, *arguments, "--preset", settings.preset]
        words += ["--device", settings.device.type, "--seed", str(settings.config.seed)]
        words += [word for override in self.overrides for word in ("--set", override)]
        words += ["--repeat", str(self.repeats.count)] if self.repeats.count > 1 else []
        head = {
            "kind": self.kind,
            "command": shlex.join(words),
            "preset": settings.preset,
            "settings": list(self.overrides),
            "environment": environment(settings.device, self.commit),
        }
        return Record(self.out, head, TABLES[self.kind], overwrite=self.overwrite)

    def compare(self, arguments: Sequence[str], sets: Sequence[TruthSet], systems: str) -> None:
        """Run the systems on the sets and print the table."""
        chosen = chosen_systems(systems)
        for name in chosen:
            settings_of(name, self.settings)  # a wrong setting is told before anything runs
        record = self.record([*arguments, "--systems", systems])
        if any(name.startswith("ours") for name in chosen):
            warm_up(self.settings.device)
        end(record, compare(sets, chosen, self.settings, self.repeats, record))


def make_plan(
    kind: str,
    settings: Settings,
    repeats: Repeats,
    out: Path | None,
    overrides: Sequence[str] | None,
    commit: str | None,
    overwrite: bool,
) -> Plan:
    path = RESULTS / f"{kind}.json" if out is None else out
    return Plan(kind, settings, repeats, path, tuple(overrides or ()), commit, overwrite)


def end(record: Record, complete: bool) -> None:
    print(record.markdown())
    if not complete:
        raise typer.Exit(1)


def use_threads(threads: int | None) -> None:
    if threads is not None:
        torch.set_num_threads(threads)
