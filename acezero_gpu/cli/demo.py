"""``acezero demo``: a synthetic room, reconstructed from its pictures alone and compared with the truth."""

from pathlib import Path

from rich.table import Table

from acezero_gpu.cli import options as opt
from acezero_gpu.cli.evaluate import Judgement, evaluation_config, judge
from acezero_gpu.cli.failure import RunFailedError
from acezero_gpu.cli.output import say, show
from acezero_gpu.cli.reconstruct import Outcome, reconstruct_folder
from acezero_gpu.cli.report import report_after_run
from acezero_gpu.cli.run_log import RunLog, verbosity
from acezero_gpu.cli.settings import resolve_settings
from acezero_gpu.data.synthetic import walk_camera, write_dataset
from acezero_gpu.runtime import InputError, StageTimer

IMAGES, WIDTH, HEIGHT = 40, 480, 360
MARKER = "set.json"
"""The synthetic data set writes it; a folder that has it is a demonstration's own."""


def demo(
    out: opt.DemoOut = Path("demo_output"),
    device: opt.Device = "auto",
    preset: opt.Preset = "auto",
    set_: opt.Set = None,
    overwrite: opt.Overwrite = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Render a small room, reconstruct it from the pictures alone, and compare with the truth."""
    settings = resolve_settings(device, preset, None, {}, set_)
    with RunLog(verbosity(quiet, verbose)) as log:
        _refuse_foreign_folder(out, overwrite)
        with StageTimer().stage("rendering"):
            write_dataset(out, IMAGES, WIDTH, HEIGHT)
        outcome = reconstruct_folder(str(out / "images"), out, settings, log, overwrite=True)
        page = report_after_run(out, settings.device, log)
        config = evaluation_config(["0.05/5", "0.1/5"], min_confidence=outcome.min_confidence)
        focal_px = float(walk_camera(WIDTH, HEIGHT).focal_px[0])
        judged = judge(outcome.views, str(out / "poses"), config, focal_px)
    show(_table(outcome, judged))
    for name in ("reconstruction.png", "point_cloud.ply", "summary.json"):
        say(f"{out / name}")
    say(outcome.line)
    if page is not None:
        say(f"To look at it, open {page} in a browser.")
    if 2 * outcome.registered < IMAGES:
        raise RunFailedError(
            f"Only {outcome.registered} of {IMAGES} images were registered; please report this."
        )


def _refuse_foreign_folder(out: Path, overwrite: bool) -> None:
    """An earlier demonstration may be replaced without a word, other people's files may not."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is not a folder; give another one.")
    ours = overwrite or (out / MARKER).is_file()
    if out.is_dir() and not ours and any(out.iterdir()):
        raise InputError(f"{out}: is not empty; give another folder, or --overwrite.")


def _table(outcome: Outcome, judged: Judgement) -> Table:
    figures = judged.figures()
    table = Table("against the exact truth", "", title="A synthetic room, from its pictures alone")
    table.add_row("registered", f"{figures['registered']} / {figures['images']}")
    for key, unit, factor in (("median_rotation_deg", "°", 1), ("median_translation", " cm", 100)):
        value = figures[key]
        shown = "none" if value is None else f"{factor * value:.2f}{unit}"
        table.add_row(key.removesuffix("_deg").replace("_", " "), shown)
    for key, share in figures["accuracy"].items():
        table.add_row(f"within {key.replace('_', ' and ')}", f"{100 * share:.0f} %")
    ratio = figures["median_focal_ratio"]
    table.add_row("focal length, estimate / truth", "none" if ratio is None else f"{ratio:.4f}")
    table.add_row("seconds", f"{outcome.seconds:.0f}")
    return table
