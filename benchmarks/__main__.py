"""``python -m benchmarks COMMAND``."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import torch
import typer

from acezero_gpu.cli import options as opt
from acezero_gpu.cli.failure import sentence_and_code
from acezero_gpu.cli.map import MAP_DEFAULTS
from acezero_gpu.cli.settings import Settings, Value, resolve_settings
from acezero_gpu.runtime import InputError
from benchmarks.adjustment_table import adjustment_table
from benchmarks.image_sets import TruthSet, read_mapping_set, read_set
from benchmarks.pose_cases import OUTLIER_SHARES, grid_case, predicted_case
from benchmarks.pose_refinement_table import pose_refinement_table
from benchmarks.records import Record, read_record
from benchmarks.solver_tables import solver_table
from benchmarks.systems import chosen_systems, settings_of
from benchmarks.systems.pose_solvers import chosen_solvers
from benchmarks.tables import TABLES as IMAGE_TABLES
from benchmarks.timing import environment, warm_up
from benchmarks.workloads import adjustment as adjustment_workload
from benchmarks.workloads.demo import render_demo_set
from benchmarks.workloads.pose_refinement import (
    DISTURBANCES,
    VARIANTS,
    Effort,
    chosen_names,
    refine_and_measure,
    thinned,
)
from benchmarks.workloads.reconstruction import Repeats, compare
from benchmarks.workloads.relocalisation import Maps, read_place, relocalise
from benchmarks.workloads.solver import chosen_parts, measure_solver

RESULTS = Path("benchmarks/results")
TABLES = {
    **IMAGE_TABLES,
    "solver": solver_table,
    "adjustment": adjustment_table,
    "pose-refinement": pose_refinement_table,
}

Data = Annotated[Path, typer.Option("--data", help="Folder of the image sets.")]
Sets = Annotated[str, typer.Option("--sets", help="Names of sets, with commas between.")]
Systems = Annotated[
    str,
    typer.Option("--systems", help="ours, ours[KEY=VALUE;...] for other settings, pycolmap; commas between."),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", help="Result file; the table lies beside it as .md.", show_default="in benchmarks/results"
    ),
]
SetName = Annotated[str, typer.Option("--set-name", help="A set with mapping.txt and query.txt.")]
Repeat = Annotated[int, typer.Option("--repeat", min=1, help="Runs of each, with seeds that count up.")]
Keep = Annotated[Path | None, typer.Option("--keep", help="Folder for the files of all runs.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads of every system.")]
Commit = Annotated[str | None, typer.Option("--commit", help="For copies that are no git checkout.")]
SelfSupervised = Annotated[
    str | None,
    typer.Option(
        "--self-supervised",
        metavar="RUN|none",
        help="Also with a map from pictures alone: that of a run folder of acezero reconstruct on the "
        "mapping images, or of a new run (none).",
    ),
]

OptionalData = Annotated[Path | None, typer.Option("--data", help="Folder of the image sets.")]
MapFile = Annotated[
    Path | None, typer.Option("--map", help="Map of the set, from its true poses: acezero map.")
]
Solvers = Annotated[
    str, typer.Option("--solvers", help="all, or names with semicolons between.", show_default="all")
]
Parts = Annotated[str, typer.Option("--parts", help="Of cases, p3p, batching, throughput, memory.")]
Frames = Annotated[int, typer.Option("--frames", min=1, help="Frames of each synthetic case.")]
MapSteps = Annotated[int, typer.Option("--map-steps", min=20, help="Steps of the map to start from.")]
Steps = Annotated[int, typer.Option("--steps", min=20, help="Training steps of each refinement.")]
MostImages = Annotated[
    int, typer.Option("--images", min=3, help="Images of a larger set, evenly spread, that are taken.")
]
Starts = Annotated[str, typer.Option("--starts", help="all, independent or drift.", show_default="all")]
Variants = Annotated[
    str, typer.Option("--variants", help="all, or names with semicolons between.", show_default="all")
]

app = typer.Typer(
    name="benchmarks",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help=__doc__,
)


@dataclass(frozen=True, slots=True)
class _Plan:
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
        _end(record, compare(sets, chosen, self.settings, self.repeats, record))


def _plan(
    kind: str,
    settings: Settings,
    repeats: Repeats,
    out: Path | None,
    overrides: Sequence[str] | None,
    commit: str | None,
    overwrite: bool,
) -> _Plan:
    path = RESULTS / f"{kind}.json" if out is None else out
    return _Plan(kind, settings, repeats, path, tuple(overrides or ()), commit, overwrite)


@app.command()
def reconstruction(
    sets: Sets,
    data: Data,
    systems: Systems = "ours,pycolmap",
    out: Out = None,
    repeat: Repeat = 1,
    device: opt.Device = "auto",
    preset: opt.Preset = "auto",
    set_: opt.Set = None,
    seed: opt.Seed = None,
    keep: Keep = None,
    threads: Threads = None,
    commit: Commit = None,
    overwrite: opt.Overwrite = False,
) -> None:
    """Poses from pictures alone, by several systems on the same images."""
    _use_threads(threads)
    names = [name.strip() for name in sets.split(",") if name.strip()]
    if not names:
        raise InputError(f"--sets {sets}: name at least one set.")
    truth_sets = [read_mapping_set(data / name) for name in names]
    settings = resolve_settings(device, preset, None, {"seed": seed}, set_)
    plan = _plan("reconstruction", settings, Repeats(repeat, keep), out, set_, commit, overwrite)
    plan.compare(["--sets", ",".join(names), "--data", "DATA"], truth_sets, systems)


@app.command()
def demo(
    systems: Systems = "ours",
    out: Out = None,
    repeat: Repeat = 1,
    device: opt.Device = "auto",
    preset: opt.Preset = "auto",
    set_: opt.Set = None,
    seed: opt.Seed = None,
    keep: Keep = None,
    threads: Threads = None,
    commit: Commit = None,
    overwrite: opt.Overwrite = False,
) -> None:
    """The scene of acezero demo, rendered anew."""
    _use_threads(threads)
    settings = resolve_settings(device, preset, None, {"seed": seed}, set_)
    plan = _plan("demo", settings, Repeats(repeat, keep), out, set_, commit, overwrite)
    with TemporaryDirectory(prefix="benchmark-") as temporary:
        plan.compare([], [render_demo_set(Path(temporary))], systems)


@app.command()
def relocalisation(
    data: Data,
    set_name: SetName = "redkitchen",
    self_supervised: SelfSupervised = None,
    out: Out = None,
    repeat: Repeat = 1,
    device: opt.Device = "auto",
    preset: opt.Preset = "auto",
    set_: opt.Set = None,
    seed: opt.Seed = None,
    keep: Keep = None,
    threads: Threads = None,
    commit: Commit = None,
    overwrite: opt.Overwrite = False,
) -> None:
    """Queries against a map from known poses, and against one from pictures alone."""
    _use_threads(threads)
    known: dict[str, Value] = {**MAP_DEFAULTS, "loop.fix_focal": True}
    settings = resolve_settings(device, preset, None, {"seed": seed}, set_, command_defaults=known)
    alone, run, arguments = None, None, ["--data", "DATA", "--set-name", set_name]
    if self_supervised is not None:
        alone = resolve_settings(device, preset, None, {"seed": seed}, set_)
        run = None if self_supervised == "none" else Path(self_supervised)
        arguments += ["--self-supervised", "none" if run is None else "RUN"]
    plan = _plan("relocalisation", settings, Repeats(repeat, keep), out, set_, commit, overwrite)
    place, record = read_place(data / set_name), plan.record(arguments)
    warm_up(settings.device)
    _end(record, relocalise(place, Maps(settings, alone, run), plan.repeats, record))


@app.command()
def solver(
    data: OptionalData = None,
    map_file: MapFile = None,
    set_name: SetName = "redkitchen",
    solvers: Solvers = "all",
    parts: Parts = "cases,p3p,batching,memory",
    frames: Frames = 200,
    out: Out = None,
    repeat: Repeat = 3,
    device: opt.Device = "auto",
    commit: Commit = None,
    overwrite: opt.Overwrite = False,
) -> None:
    """The absolute pose solver beside PoseLib, pycolmap and OpenCV, and its parts by themselves."""
    if (data is None) != (map_file is None):
        raise InputError("--data and --map belong together: the queries, and the map to predict them by.")
    settings = resolve_settings(device, "auto", None, {}, None)
    chosen, wanted = chosen_solvers(solvers), chosen_parts(parts)
    cases = [grid_case(frames, share) for share in OUTLIER_SHARES] if "cases" in wanted else []
    arguments = ["--solvers", solvers, "--parts", parts, "--frames", str(frames)]
    if data is not None and map_file is not None:
        cases.append(predicted_case(read_place(data / set_name), map_file, settings))
        arguments += ["--data", "DATA", "--map", "MAP", "--set-name", set_name]
    record = _plan("solver", settings, Repeats(repeat), out, None, commit, overwrite).record(arguments)
    measure_solver(cases, chosen, wanted, settings.device.type, repeat, record)
    _end(record, True)


@app.command()
def pose_refinement(
    sets: Sets,
    data: Data,
    map_steps: MapSteps = 800,
    steps: Steps = 400,
    images: MostImages = 32,
    starts: Starts = "all",
    variants: Variants = "all",
    out: Out = None,
    device: opt.Device = "auto",
    preset: opt.Preset = "auto",
    set_: opt.Set = None,
    seed: opt.Seed = None,
    commit: Commit = None,
    overwrite: opt.Overwrite = False,
) -> None:
    """Disturbed true poses, and what mapping with each kind of pose refinement makes of them."""
    names = [name.strip() for name in sets.split(",") if name.strip()]
    truth_sets = [thinned(read_mapping_set(data / name), images) for name in names]
    kinds = chosen_names(starts, list(DISTURBANCES), "--starts")
    chosen = chosen_names(variants, list(VARIANTS), "--variants")
    settings = resolve_settings(device, preset, None, {"seed": seed}, set_)
    plan = _plan("pose-refinement", settings, Repeats(), out, set_, commit, overwrite)
    arguments = ["--sets", ",".join(names), "--data", "DATA", "--map-steps", str(map_steps)]
    arguments += ["--steps", str(steps), "--images", str(images), "--starts", starts, "--variants", variants]
    record, effort = plan.record(arguments), Effort(map_steps, steps)
    warm_up(settings.device)
    _end(record, refine_and_measure(truth_sets, settings, effort, kinds, chosen, record))


@app.command()
def adjustment(
    data: OptionalData = None,
    set_name: SetName = "redkitchen",
    parts: Annotated[str, typer.Option("--parts", help="Of bundle, scaling.")] = "bundle,scaling",
    images: Annotated[
        str, typer.Option("--images", help="Numbers of images to scale over.")
    ] = "125,250,500,1000",
    threads: Threads = None,
    out: Out = None,
    repeat: Repeat = 3,
    device: opt.Device = "auto",
    set_: opt.Set = None,
    commit: Commit = None,
    overwrite: opt.Overwrite = False,
) -> None:
    """Bundle adjustment beside pycolmap's, and the cost of matching and adjustment over the number of images."""
    wanted = adjustment_workload.chosen_parts(parts)
    counts = adjustment_workload.chosen_counts(images)
    settings = resolve_settings(device, "auto", None, {}, set_)
    arguments = ["--parts", parts, "--images", images, *([] if data is None else ["--data", "DATA"])]
    record = _plan("adjustment", settings, Repeats(repeat), out, set_, commit, overwrite).record(arguments)
    if "bundle" in wanted:
        adjustment_workload.measure_bundle(settings.device, threads or 2, repeat, record)
    if "scaling" in wanted and data is not None:
        _use_threads(threads)
        adjustment_workload.measure_scaling(read_set(data / set_name), counts, settings, record)
    _end(record, True)


@app.command()
def table(files: Annotated[list[Path], typer.Argument(metavar="FILE.json…")]) -> None:
    """Print the tables of result files."""
    for path in files:
        content = read_record(path)
        print(TABLES[content["kind"]](content))


def _end(record: Record, complete: bool) -> None:
    print(record.markdown())
    if not complete:
        raise typer.Exit(1)


def _use_threads(threads: int | None) -> None:
    if threads is not None:
        torch.set_num_threads(threads)


def main(arguments: list[str] | None = None) -> int:
    """Run one command: 0 for success, 1 if a run has no result, 2 for wrong input."""
    try:
        code = app(args=arguments, standalone_mode=False)
    except Exception as error:
        told = sentence_and_code(error)
        if told is None:
            raise
        sentence, code = told
        if sentence:
            sys.stderr.write(f"benchmarks: {sentence}\n")
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    sys.exit(main())
