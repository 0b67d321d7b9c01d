"""``acezero benchmark``: poses judged by the views of a scene that they let another program synthesise."""

import json
from pathlib import Path

import typer

from acezero_gpu.cli import benchmark_options as nvs_opt
from acezero_gpu.cli import exchange_options as exchange
from acezero_gpu.cli import options as opt
from acezero_gpu.cli.benchmark_table import RESULT, read_results, result_table
from acezero_gpu.cli.failure import RunFailedError
from acezero_gpu.cli.given import cells_of_run, settings_of_run
from acezero_gpu.cli.nerfstudio_calls import missing_program, train_and_evaluate
from acezero_gpu.cli.output import say, show_plain
from acezero_gpu.cli.run_log import RunLog, verbosity
from acezero_gpu.cli.splat_calls import SPLATS, train_and_evaluate_splats
from acezero_gpu.cli.versions import package_version, version_of
from acezero_gpu.config import ReconstructionConfig
from acezero_gpu.io import FinishedRun, open_run
from acezero_gpu.io.nerfstudio import TRANSFORMS
from acezero_gpu.io.view_synthesis import (
    MIN_TRAIN_SHARE,
    ViewSplit,
    read_split,
    trusted_split,
    usual_split,
    write_view_synthesis,
)
from acezero_gpu.runtime import InputError
from acezero_gpu.runtime.atomic import write_atomically
from acezero_gpu.runtime.progress import report
from acezero_gpu.splatting import SplatConfig, gsplat_backend, missing_requirement

benchmark = typer.Typer(no_args_is_help=True, help="Poses judged by view synthesis.")


@benchmark.command("nvs")
def nvs(
    run: exchange.RunDir,
    out: nvs_opt.NvsOut = None,
    images: exchange.MovedImages = None,
    method: nvs_opt.NvsMethodChoice = "nerfacto",
    split: nvs_opt.NvsSplit = None,
    steps: nvs_opt.NvsSteps = None,
    seed: opt.Seed = None,
    convert_only: nvs_opt.ConvertOnly = False,
    overwrite: opt.Overwrite = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """PSNR and SSIM (by Nerfstudio also LPIPS) of held-back images, after training on the others."""
    folder = out or run / "nvs"
    for flag, value in (("--steps", steps), ("--seed", seed)):
        if value is not None and method != "gsplat":
            raise InputError(f"{flag} {value}: goes with --method gsplat only; leave it out for {method}.")
    with RunLog(verbosity(quiet, verbose)) as log:
        finished = open_run(run, images=images)
        chosen = _split_of(finished, split)
        _prepare(folder, overwrite)
        log.stage("images")
        size = write_view_synthesis(folder, finished, chosen, lambda done, of: report(done, of, "images"))
        spoilt = sum(not finished.registered[row] for row in chosen.test)
        counts = {
            "images": len(finished.views.names),
            "registered": sum(finished.registered),
            "train": len(chosen.train),
            "test": len(chosen.test),
            "test_unregistered": spoilt,
        }
        if spoilt:
            log.warn(
                f"{spoilt} of {len(chosen.test)} test images are not registered, and count all the same."
            )
        data = f"{counts['train']} images to train on, {counts['test']} to test, {size[0]}x{size[1]} px"
        if convert_only:
            say(f"{data} → {folder}")
            return
        log.line(data)
        figures, made_with = _trained(folder, method, steps, seed, log)
        backend = "gsplat" if method == "gsplat" else "nerfstudio"
        result = {
            "scene": run.resolve().name,
            "method": method if steps is None else f"{method}, {steps} steps",
            **counts,
            "size_px": list(size),
            **figures,
            **made_with,
            "seconds": round(log.seconds, 1),
            "versions": {"acezero_gpu": package_version(), backend: version_of(backend)},
        }
        write_atomically(folder / RESULT, json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    said = ", ".join(f"{key.upper()} {value:.3f}" for key, value in figures.items())
    say(f"{said} on {counts['test']} test images by {method} → {folder / RESULT}")


@benchmark.command("show")
def show(folders: nvs_opt.NvsFolders) -> None:
    """The results below some folders as one table."""
    results = read_results(folders)
    if not results:
        where = ", ".join(str(folder) for folder in folders)
        raise RunFailedError(f"{where}: no {RESULT} there; acezero benchmark nvs RUN makes one.")
    show_plain(result_table(results))


def _trained(
    folder: Path, method: nvs_opt.NvsMethod, steps: int | None, seed: int | None, log: RunLog
) -> tuple[dict[str, float], dict[str, int]]:
    """The method's figures and what it was told; ``RunFailedError`` where what it runs on is missing."""
    untrained = f"so nothing was trained (the data is in {folder})"
    again = "give the same command with --overwrite"
    if method == "gsplat":
        missing = missing_requirement()
        if missing is not None:
            raise RunFailedError(f"{missing}, {untrained}; when that is mended, {again}.")
        config = SplatConfig() if steps is None else SplatConfig(steps=steps)
        seed = ReconstructionConfig().seed if seed is None else seed
        return train_and_evaluate_splats(folder, config, gsplat_backend(), seed, log)
    program = missing_program()
    if program is not None:
        raise RunFailedError(
            f"{program}: not found on the PATH, {untrained}; pip install nerfstudio, and {again}."
        )
    return train_and_evaluate(folder, method, log), {}


def _split_of(run: FinishedRun, file: Path | None) -> ViewSplit:
    """Images to train on and to test; ``RunFailedError`` if there are none of either."""
    if not any(run.registered):
        raise RunFailedError(f"{run.path}: no image is registered there, so there is nothing to judge.")
    names = run.views.names
    needed = MIN_TRAIN_SHARE * cells_of_run(run, settings_of_run(run))
    wanted = usual_split(names) if file is None else read_split(file, names)
    chosen = trusted_split(run, wanted, needed)
    if not chosen.test:
        raise RunFailedError(
            f"{run.path}: no test image among {len(names)} images; give a split of your own with --split."
        )
    if not chosen.train:
        raise RunFailedError(
            f"{run.path}: none of the {len(wanted.train)} training images has the confidence {needed:.0f} that "
            f"training needs; the most is {float(run.views.confidence.max()):.0f}."
        )
    return chosen


def _prepare(folder: Path, overwrite: bool) -> None:
    """Make the folder; a result of an earlier call is removed, as it would not belong to the new data."""
    earlier = next((folder / name for name in (RESULT, TRANSFORMS) if (folder / name).exists()), None)
    if earlier is not None and not overwrite:
        raise InputError(f"{earlier}: is there already; give another folder, or --overwrite to replace it.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for made in (RESULT, SPLATS):
            (folder / made).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror}); give another folder.") from error
