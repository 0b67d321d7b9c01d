"""The commands that run whole pictures through whole systems."""

from pathlib import Path
from tempfile import TemporaryDirectory

from acezero_gpu.cli import options as opt
from acezero_gpu.cli.map import MAP_DEFAULTS
from acezero_gpu.cli.settings import Value, resolve_settings
from acezero_gpu.runtime import InputError
from benchmarks import options as bench
from benchmarks.image_sets import read_mapping_set, read_set
from benchmarks.plan import end, make_plan, use_threads
from benchmarks.systems import chosen_systems, settings_of
from benchmarks.timing import warm_up
from benchmarks.workloads.adjustment import chosen_counts
from benchmarks.workloads.demo import render_demo_set
from benchmarks.workloads.pipeline import measure_pipeline
from benchmarks.workloads.pose_refinement import (
    DISTURBANCES,
    VARIANTS,
    Effort,
    chosen_names,
    refine_and_measure,
    thinned,
)
from benchmarks.workloads.reconstruction import Repeats
from benchmarks.workloads.relocalisation import Maps, read_place, relocalise


def reconstruction(
    sets: bench.Sets,
    data: bench.Data,
    systems: bench.Systems = "ours,pycolmap",
    out: bench.Out = None,
    repeat: bench.Repeat = 1,
    device: opt.Device = "auto",
    preset: opt.Preset = "auto",
    set_: opt.Set = None,
    seed: opt.Seed = None,
    keep: bench.Keep = None,
    threads: bench.Threads = None,
    commit: bench.Commit = None,
    overwrite: opt.Overwrite = False,
) -> None:
    """Poses from pictures alone, by several systems on the same images."""
    use_threads(threads)
    names = [name.strip() for name in sets.split(",") if name.strip()]
    if not names:
        raise InputError(f"--sets {sets}: name at least one set.")
    truth_sets = [read_mapping_set(data / name) for name in names]
    settings = resolve_settings(device, preset, None, {"seed": seed}, set_)
    plan = make_plan("reconstruction", settings, Repeats(repeat, keep), out, set_, commit, overwrite)
    plan.compare(["--sets", ",".join(names), "--data", "DATA"], truth_sets, systems)


def pipeline(
    data: bench.Data,
    set_name: bench.SetName = "redkitchen",
    images: bench.ImageCounts = "50,100,250,500,1000",
    systems: bench.Systems = "ours,pycolmap",
    out: bench.Out = None,
    device: opt.Device = "auto",
    preset: opt.Preset = "auto",
    set_: opt.Set = None,
    seed: opt.Seed = None,
    threads: bench.Threads = None,
    commit: bench.Commit = None,
    overwrite: opt.Overwrite = False,
) -> None:
    """Cost of the whole reconstruction, stage by stage, over the number of images."""
    use_threads(threads)
    counts = chosen_counts(images)
    chosen = chosen_systems(systems)
    settings = resolve_settings(device, preset, None, {"seed": seed}, set_)
    for name in chosen:
        settings_of(name, settings)  # a wrong setting is told before anything runs
    plan = make_plan("pipeline", settings, Repeats(), out, set_, commit, overwrite)
    arguments = ["--data", "DATA", "--set-name", set_name, "--images", images, "--systems", systems]
    record = plan.record(arguments)
    end(record, measure_pipeline(read_set(data / set_name), counts, chosen, settings, record))


def demo(
    systems: bench.Systems = "ours",
    out: bench.Out = None,
    repeat: bench.Repeat = 1,
    device: opt.Device = "auto",
    preset: opt.Preset = "auto",
    set_: opt.Set = None,
    seed: opt.Seed = None,
    keep: bench.Keep = None,
    threads: bench.Threads = None,
    commit: bench.Commit = None,
    overwrite: opt.Overwrite = False,
) -> None:
    """The scene of acezero demo, rendered anew."""
    use_threads(threads)
    settings = resolve_settings(device, preset, None, {"seed": seed}, set_)
    plan = make_plan("demo", settings, Repeats(repeat, keep), out, set_, commit, overwrite)
    with TemporaryDirectory(prefix="benchmark-") as temporary:
        plan.compare([], [render_demo_set(Path(temporary))], systems)


def relocalisation(
    data: bench.Data,
    set_name: bench.SetName = "redkitchen",
    self_supervised: bench.SelfSupervised = None,
    out: bench.Out = None,
    repeat: bench.Repeat = 1,
    device: opt.Device = "auto",
    preset: opt.Preset = "auto",
    set_: opt.Set = None,
    seed: opt.Seed = None,
    keep: bench.Keep = None,
    threads: bench.Threads = None,
    commit: bench.Commit = None,
    overwrite: opt.Overwrite = False,
) -> None:
    """Queries against a map from known poses, and against one from pictures alone."""
    use_threads(threads)
    known: dict[str, Value] = {**MAP_DEFAULTS, "loop.fix_focal": True}
    settings = resolve_settings(device, preset, None, {"seed": seed}, set_, command_defaults=known)
    alone, run, arguments = None, None, ["--data", "DATA", "--set-name", set_name]
    if self_supervised is not None:
        alone = resolve_settings(device, preset, None, {"seed": seed}, set_)
        run = None if self_supervised == "none" else Path(self_supervised)
        arguments += ["--self-supervised", "none" if run is None else "RUN"]
    plan = make_plan("relocalisation", settings, Repeats(repeat, keep), out, set_, commit, overwrite)
    place, record = read_place(data / set_name), plan.record(arguments)
    warm_up(settings.device)
    end(record, relocalise(place, Maps(settings, alone, run), plan.repeats, record))


def pose_refinement(
    sets: bench.Sets,
    data: bench.Data,
    map_steps: bench.MapSteps = 800,
    steps: bench.Steps = 400,
    images: bench.MostImages = 32,
    starts: bench.Starts = "all",
    variants: bench.Variants = "all",
    out: bench.Out = None,
    device: opt.Device = "auto",
    preset: opt.Preset = "auto",
    set_: opt.Set = None,
    seed: opt.Seed = None,
    commit: bench.Commit = None,
    overwrite: opt.Overwrite = False,
) -> None:
    """Disturbed true poses, and what mapping with each kind of pose refinement makes of them."""
    names = [name.strip() for name in sets.split(",") if name.strip()]
    truth_sets = [thinned(read_mapping_set(data / name), images) for name in names]
    kinds = chosen_names(starts, list(DISTURBANCES), "--starts")
    chosen = chosen_names(variants, list(VARIANTS), "--variants")
    settings = resolve_settings(device, preset, None, {"seed": seed}, set_)
    plan = make_plan("pose-refinement", settings, Repeats(), out, set_, commit, overwrite)
    arguments = ["--sets", ",".join(names), "--data", "DATA", "--map-steps", str(map_steps)]
    arguments += ["--steps", str(steps), "--images", str(images), "--starts", starts, "--variants", variants]
    record, effort = plan.record(arguments), Effort(map_steps, steps)
    warm_up(settings.device)
    end(record, refine_and_measure(truth_sets, settings, effort, kinds, chosen, record))
