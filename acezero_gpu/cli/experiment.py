"""``acezero experiment``: a published experiment, reconstructed, evaluated and collected."""

import json
import time
from pathlib import Path
from typing import Any

import typer

from acezero_gpu.cli import dataset_options as published
from acezero_gpu.cli import options as opt
from acezero_gpu.cli.evaluate import evaluation_config, judge
from acezero_gpu.cli.experiment_file import Experiment, read_experiment
from acezero_gpu.cli.experiment_table import Row, as_markdown
from acezero_gpu.cli.failure import RunFailedError, sentence_and_code
from acezero_gpu.cli.given import confidence_of_run
from acezero_gpu.cli.output import say
from acezero_gpu.cli.reconstruct import reconstruct_folder
from acezero_gpu.cli.register import register_folder
from acezero_gpu.cli.run_log import RunLog, Verbosity, verbosity
from acezero_gpu.cli.settings import Settings, resolve_settings
from acezero_gpu.data.image_set import IMAGE_SUFFIXES, files_of
from acezero_gpu.io import read_pose_file
from acezero_gpu.runtime import InputError
from acezero_gpu.runtime.atomic import write_atomically

experiment = typer.Typer(no_args_is_help=True, help="Published experiments, from one file each.")
RESULTS, TABLE = "results.json", "results.md"


@experiment.command("run")
def run(
    file: published.ExperimentFile,
    data: published.ExperimentData,
    out: published.ExperimentOut,
    scene: published.ExperimentScene = None,
    device: opt.Device = "auto",
    preset: opt.Preset = "auto",
    set_: opt.Set = None,
    overwrite: published.ExperimentOverwrite = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Reconstruct every scene of an experiment, evaluate it, and write one table beside the published figures."""
    wanted = read_experiment(file)
    if unknown := [name for name in scene or () if name not in wanted.scenes]:
        raise InputError(f"--scene {unknown[0]}: {file} has {', '.join(wanted.scenes)}.")
    chosen = scene or list(wanted.scenes)
    absent = [name for name in chosen if not (data / name / "set.json").is_file()]
    if absent:
        raise InputError(
            f"{data}: the scene {absent[0]} is not there; make it with acezero dataset {wanted.dataset} {data}, or "
            "choose others with --scene."
        )
    flags = {"loop.fix_focal": True if wanted.focal == "fixed" else None}
    settings = resolve_settings(device, preset, None, flags, [*wanted.settings, *(set_ or ())])
    rows = _run_scenes(wanted, chosen, data, out, settings, overwrite, verbosity(quiet, verbose))
    say(as_markdown(wanted, rows).rstrip())
    say(f"→ {out / TABLE}")
    failed = [row["scene"] for row in rows if row["failure"]]
    if failed:
        raise RunFailedError(f"{len(failed)} of {len(rows)} scenes have no result, {failed[0]} first.")


def _run_scenes(
    wanted: Experiment,
    chosen: list[str],
    data: Path,
    out: Path,
    settings: Settings,
    overwrite: bool,
    shown: Verbosity,
) -> list[Row]:
    """A row for each scene, kept as soon as it is there; scenes that have one already are not run again.

    Rows of scenes that are not chosen stay.
    """
    out.mkdir(parents=True, exist_ok=True)
    every_one = overwrite and set(chosen) == set(wanted.scenes)
    done = {} if every_one else _earlier(out / RESULTS)
    rows: list[Row] = []
    for scene in wanted.scenes:
        if scene in chosen and (overwrite or scene not in done):
            done[scene] = _run_scene(wanted, data / scene, out / scene, settings, shown)
        rows = [done[name] for name in wanted.scenes if name in done]
        write_atomically(out / RESULTS, json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
        write_atomically(out / TABLE, as_markdown(wanted, rows))
    return rows


def _earlier(path: Path) -> dict[str, Row]:
    if not path.is_file():
        return {}
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return {row["scene"]: row for row in rows if not row["failure"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: no results of an experiment ({error}); remove it, or give --overwrite."
        ) from error


def _run_scene(wanted: Experiment, scene: Path, out: Path, settings: Settings, shown: Verbosity) -> Row:
    """The figures, or the sentence that says why there are none: the other scenes go on."""
    start = time.perf_counter()
    row: Row = {"scene": scene.name, "failure": None}
    try:
        facts = _facts(scene)
        focal_px = None if wanted.focal == "guess" else _focal_px(scene, facts)
        out.mkdir(parents=True, exist_ok=True)
        images = _images(scene, out, "mapping.txt") if wanted.images == "mapping" else str(scene / "images")
        with RunLog(shown) as log:
            outcome = reconstruct_folder(
                images, out / "run", settings, log, focal_px=focal_px, overwrite=True
            )
        row["seconds"] = round(time.perf_counter() - start, 1)
        row["registered"] = outcome.registered / len(outcome.views.names)
        poses = str(scene / "poses")
        thresholds = ["5cm/5deg"] if facts.get("unit") == "m" else None
        if not any((scene / "poses").glob("*.txt")):
            return row
        config = evaluation_config(thresholds, min_confidence=outcome.min_confidence)
        judged = judge(outcome.views, poses, config)
        row |= _figures(judged.figures(), "", accuracy=thresholds is not None)
        if wanted.relocalise:
            queries = _images(scene, out, "query.txt")
            with RunLog(shown) as log:
                register_folder(queries, out / "run", out / "queries", settings, log, focal_px, True)
            found = out / "queries" / "poses.txt"
            config = evaluation_config(thresholds, min_confidence=confidence_of_run(found))
            views, alignment = read_pose_file(found), judged.report.alignment
            row |= _figures(
                judge(views, poses, config, alignment=alignment).figures(), "queries_", accuracy=True
            )
            own = _figures(judge(views, poses, config).figures(), "", accuracy=True)
            row["queries_accuracy_own_alignment"] = own["accuracy"]
    except Exception as error:
        told = sentence_and_code(error)
        if told is None:
            raise
        row["failure"] = told[0]
    return row


def _figures(figures: dict[str, Any], prefix: str, *, accuracy: bool) -> Row:
    chosen = {
        "rotation_deg": figures["median_rotation_deg"],
        "position": figures["median_translation"],
        "accuracy": next(iter(figures["accuracy"].values())) if accuracy else None,
    }
    chosen |= {"auc_30": figures["auc_30"]} if not prefix else {}
    return {f"{prefix}{key}": value for key, value in chosen.items()}


def _facts(scene: Path) -> dict[str, Any]:
    path = scene / "set.json"
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: not the facts of an image set ({error}).") from error


def _focal_px(scene: Path, facts: dict[str, Any]) -> float:
    try:
        return (float(facts["fx"]) + float(facts["fy"])) / 2
    except (KeyError, TypeError, ValueError):
        raise InputError(f"{scene / 'set.json'}: has no focal length fx, fy.") from None


def _images(scene: Path, out: Path, name: str) -> str:
    """A list of the image files whose stems stand in the scene's list."""
    try:
        stems = (scene / name).read_text(encoding="utf-8").split()
    except OSError as error:
        raise InputError(f"{scene / name}: cannot be read ({error.strerror}).") from error
    by_stem = {file.stem: file for file in files_of(scene / "images", IMAGE_SUFFIXES)}
    absent = [stem for stem in stems if stem not in by_stem]
    if absent:
        raise InputError(f"{scene / name}: there is no image {absent[0]} in {scene / 'images'}.")
    write_atomically(out / name, "".join(f"{by_stem[stem].resolve()}\n" for stem in stems))
    return str(out / name)
