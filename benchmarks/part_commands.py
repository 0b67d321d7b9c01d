"""The commands that measure parts by themselves."""

from typing import Annotated

import typer

from acezero_gpu.cli import options as opt
from acezero_gpu.cli.settings import resolve_settings
from acezero_gpu.runtime import InputError
from benchmarks import options as bench
from benchmarks.image_sets import read_mapping_set, read_set
from benchmarks.plan import end, make_plan, use_threads
from benchmarks.pose_cases import OUTLIER_SHARES, grid_case, predicted_case
from benchmarks.systems.pose_solvers import chosen_solvers
from benchmarks.timing import warm_up
from benchmarks.workloads import adjustment as adjustment_workload
from benchmarks.workloads.encoder import label, measure_matching, measure_speed
from benchmarks.workloads.encoder_growth import measure_growth
from benchmarks.workloads.reconstruction import Repeats
from benchmarks.workloads.relocalisation import read_place
from benchmarks.workloads.solver import chosen_parts, measure_solver
from benchmarks.workloads.throughput import measure_throughput


def solver(
    data: bench.OptionalData = None,
    map_file: bench.MapFile = None,
    set_name: bench.SetName = "redkitchen",
    solvers: bench.Solvers = "all",
    parts: bench.Parts = "cases,p3p,batching,memory",
    frames: bench.Frames = 200,
    out: bench.Out = None,
    repeat: bench.Repeat = 3,
    device: opt.Device = "auto",
    preset: opt.Preset = "auto",
    seed: opt.Seed = None,
    commit: bench.Commit = None,
    overwrite: opt.Overwrite = False,
) -> None:
    """The absolute pose solver beside PoseLib, pycolmap and OpenCV, and its parts by themselves."""
    if (data is None) != (map_file is None):
        raise InputError("--data and --map belong together: the queries, and the map to predict them by.")
    settings = resolve_settings(device, preset, None, {"seed": seed}, None)
    chosen, wanted = chosen_solvers(solvers), chosen_parts(parts)
    cases = [grid_case(frames, share) for share in OUTLIER_SHARES] if "cases" in wanted else []
    arguments = ["--solvers", solvers, "--parts", parts, "--frames", str(frames)]
    if data is not None and map_file is not None:
        cases.append(predicted_case(read_place(data / set_name), map_file, settings))
        arguments += ["--data", "DATA", "--map", "MAP", "--set-name", set_name]
    record = make_plan("solver", settings, Repeats(repeat), out, None, commit, overwrite).record(arguments)
    measure_solver(cases, chosen, wanted, settings.device.type, repeat, record)
    end(record, True)


def adjustment(
    data: bench.OptionalData = None,
    set_name: bench.SetName = "redkitchen",
    parts: Annotated[str, typer.Option("--parts", help="Of bundle, scaling.")] = "bundle,scaling",
    images: bench.ImageCounts = "125,250,500,1000",
    threads: bench.Threads = None,
    out: bench.Out = None,
    repeat: bench.Repeat = 3,
    device: opt.Device = "auto",
    preset: opt.Preset = "auto",
    seed: opt.Seed = None,
    set_: opt.Set = None,
    commit: bench.Commit = None,
    overwrite: opt.Overwrite = False,
) -> None:
    """Bundle adjustment beside pycolmap's, and the cost of matching and adjustment over the number of images."""
    wanted = adjustment_workload.chosen_parts(parts)
    counts = adjustment_workload.chosen_counts(images)
    settings = resolve_settings(device, preset, None, {"seed": seed}, set_)
    arguments = ["--parts", parts, "--images", images, *([] if data is None else ["--data", "DATA"])]
    record = make_plan("adjustment", settings, Repeats(repeat), out, set_, commit, overwrite).record(
        arguments
    )
    if "bundle" in wanted:
        adjustment_workload.measure_bundle(settings.device, threads or 2, repeat, record)
    if "scaling" in wanted and data is not None:
        use_threads(threads)
        adjustment_workload.measure_scaling(read_set(data / set_name), counts, settings, record)
    end(record, True)


def throughput(
    data: bench.Data,
    set_name: bench.SetName = "redkitchen",
    steps: bench.Steps = 25_000,
    images: bench.MostImages = 1000,
    out: bench.Out = None,
    repeat: bench.Repeat = 3,
    device: opt.Device = "auto",
    preset: opt.Preset = "auto",
    set_: opt.Set = None,
    seed: opt.Seed = None,
    threads: bench.Threads = None,
    commit: bench.Commit = None,
    overwrite: opt.Overwrite = False,
) -> None:
    """Mapping steps, and images registered, in a second."""
    use_threads(threads)
    settings = resolve_settings(device, preset, None, {"seed": seed}, set_)
    mapping, everything = read_mapping_set(data / set_name), read_set(data / set_name)
    arguments = ["--data", "DATA", "--set-name", set_name, "--steps", str(steps), "--images", str(images)]
    record = make_plan("throughput", settings, Repeats(repeat), out, set_, commit, overwrite).record(
        arguments
    )
    warm_up(settings.device)
    measure_throughput(mapping, everything, steps, images, settings, repeat, record)
    end(record, True)


def encoder(
    encoders: bench.Encoders = "dense-sift",
    data: bench.OptionalData = None,
    set_name: bench.SetName = "redkitchen",
    angles_deg: bench.Angles = (5.0, 30.0),
    pairs: bench.FramePairs = 200,
    growth_seeds: bench.GrowthSeeds = 0,
    preset: opt.Preset = "auto",
    set_: opt.Set = None,
    out: bench.Out = None,
    repeat: bench.Repeat = 15,
    device: opt.Device = "auto",
    seed: opt.Seed = None,
    threads: bench.Threads = None,
    commit: bench.Commit = None,
    overwrite: opt.Overwrite = False,
) -> None:
    """Time per image; with --data cells matched between frames of a set with depth, and growth from one frame."""
    use_threads(threads)
    names = [name.strip() for name in encoders.split(",") if name.strip()]
    settings = resolve_settings(device, preset, None, {"seed": seed}, set_)
    arguments = ["--encoders", ",".join(label(name) for name in names)]
    if data is not None:
        arguments += ["--data", "DATA", "--set-name", set_name, "--pairs", str(pairs)]
        arguments += ["--angles-deg", *(f"{angle:g}" for angle in angles_deg)]
        arguments += ["--growth-seeds", str(growth_seeds)]
    record = make_plan("encoder", settings, Repeats(repeat), out, set_, commit, overwrite).record(arguments)
    warm_up(settings.device)
    measure_speed(names, settings.device, repeat, record)
    if data is not None:
        truth_set, truth_depth = read_mapping_set(data / set_name), data / set_name / "depth"
        measure_matching(
            names,
            truth_set,
            truth_depth,
            settings.device,
            angles_deg,
            pairs,
            settings.config.seed,
            record,
        )
        measure_growth(names, truth_set, truth_depth, settings, growth_seeds, record)
    end(record, True)
