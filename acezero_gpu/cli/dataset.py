"""``acezero dataset``: a published data set as image sets."""

from acezero_gpu.cli import dataset_options as published
from acezero_gpu.cli import options as opt
from acezero_gpu.cli.output import say
from acezero_gpu.cli.run_log import RunLog, verbosity
from acezero_gpu.io.archives import Progress
from acezero_gpu.io.datasets import DATASETS, fetch, prepare
from acezero_gpu.runtime import InputError

REPORT_BYTES = 64 << 20
"""A line is written each time that so much more has arrived."""


def dataset(
    name: published.DatasetName,
    folder: published.DatasetFolder,
    download: published.DatasetDownload = False,
    archive: published.DatasetArchive = None,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Unpack and convert a published data set: images, poses, calibration and lists, a folder for each scene."""
    chosen = DATASETS[name]
    archives = list(archive or chosen.archives)
    unknown = [item for item in archives if item not in chosen.archives]
    if unknown:
        raise InputError(f"--archive {unknown[0]}: {name} has {', '.join(chosen.archives)}.")
    if not download and not folder.is_dir():
        raise InputError(f"{folder}: no such folder; put the archives there, or give --download.")
    with RunLog(verbosity(quiet, verbose)) as log:
        if download:
            fetch(chosen, folder, archives, lambda item: _reporter(log, item))
        log.stage("unpacking")
        for scene in prepare(chosen, folder, archives):
            say(
                f"{scene.images} images, {scene.posed} with poses, {scene.mapping} to map, {scene.queries} queries "
                f"→ {scene.folder}"
            )


def _reporter(log: RunLog, name: str) -> Progress:
    told = 0

    def report(done: int, total: int | None) -> None:
        nonlocal told
        if done - told < REPORT_BYTES and done != total:
            return
        told = done
        size = "" if total is None else f" of {total / 2**20:.0f}"
        log.line(f"{name}: {done / 2**20:.0f}{size} MiB")

    return report
