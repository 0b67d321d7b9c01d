"""``acezero report``: one page about a run, for a browser."""

import shlex
from pathlib import Path

import torch

from acezero_gpu.cli import exchange_options as exchange
from acezero_gpu.cli import options as opt
from acezero_gpu.cli.failure import RunFailedError, as_input_error, sentence_and_code
from acezero_gpu.cli.output import say
from acezero_gpu.cli.report_content import report_content
from acezero_gpu.cli.run_log import RunLog
from acezero_gpu.io import RunFolder, open_run
from acezero_gpu.runtime import resolve_device
from acezero_gpu.viz.report import write_report


def report(
    run: exchange.RunDir,
    images: exchange.MovedImages = None,
    out: opt.ReportFile = None,
    device: opt.Device = "auto",
) -> None:
    """One page about a run: what has a pose, what failed and why, a 3D view, curves. It needs no network."""
    with as_input_error():
        place = resolve_device(device)
    say(f"report → {write_run_report(run, place, images=images, out=out)}")


def write_run_report(
    run: Path, device: torch.device, *, images: str | None = None, out: Path | None = None
) -> Path:
    """Read the folder of a run, finished or not, and write the page; its path."""
    path = out or RunFolder(run).report
    content = report_content(open_run(run, images=images, unfinished=True), device)
    try:
        write_report(path, content)
    except OSError as error:
        raise RunFailedError(
            f"{path}: cannot be written ({error.strerror}); give another place with --out."
        ) from error
    return path


def report_after_run(run: Path, device: torch.device, log: RunLog) -> Path | None:
    """The page of a run that has just ended; None, with a warning, if it cannot be made: no run is lost for that."""
    log.stage("report")
    try:
        path = write_run_report(run, device)
    except Exception as error:
        told = sentence_and_code(error)
        log.warn(
            f"no report ({told[0] if told else repr(error)}); "
            f"acezero report {shlex.quote(str(run))} tries again."
        )
        return None
    log.line(f" report → {path}")
    return path
