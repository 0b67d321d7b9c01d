"""This program, by the functions behind its command line."""

import json
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from acezero_gpu.cli import reconstruct as command
from acezero_gpu.cli.failure import sentence_and_code
from acezero_gpu.cli.run_log import RunLog
from acezero_gpu.cli.settings import Settings
from acezero_gpu.data import PosedViews
from benchmarks.image_sets import TruthSet, named_by_stem
from benchmarks.metrics import SystemResult

COPIED = ("iterations", "stop_reason", "focal_px", "radial", "registered_by_map")
"""What a run's ``summary.json`` says beyond poses and times, where it says it."""


def reconstruct_set(truth_set: TruthSet, settings: Settings, folder: Path) -> SystemResult:
    """``acezero reconstruct`` on the set's images; the run folder is ``folder/run``."""
    folder.mkdir(parents=True, exist_ok=True)
    images = truth_set.write_list(folder / "images.txt")
    views: PosedViews | None = None
    min_confidence, failure = 1.0, None
    if settings.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(settings.device)
    start = time.perf_counter()
    try:
        with RunLog("quiet") as log:
            outcome = command.reconstruct_folder(str(images), folder / "run", settings, log, overwrite=True)
        views, min_confidence = named_by_stem(outcome.views), outcome.min_confidence
    except Exception as error:  # one set that fails must not end the comparison of the others
        failure = failure_sentence(error, folder)
    seconds = time.perf_counter() - start
    summary = read_summary(folder / "run")
    details: dict[str, Any] = {key: summary[key] for key in COPIED if key in summary}
    if settings.device.type == "cuda":
        details["gpu_memory_gib"] = round(torch.cuda.max_memory_allocated(settings.device) / 2**30, 2)
    return SystemResult(views, min_confidence, seconds, summary.get("seconds", {}), failure, details)


def failure_sentence(error: Exception, folder: Path) -> str:
    """One sentence for the result file, without the folder of the run; a defect also shows its traceback."""
    told = sentence_and_code(error)
    if told is None:
        traceback.print_exception(error, file=sys.stderr)
        sentence = f"defect: {type(error).__name__}: {error}"
    else:
        sentence = told[0]
    return " ".join(sentence.replace(f"{folder}/", "").split())


def read_summary(run_folder: Path) -> dict[str, Any]:
    """``summary.json`` of a run; nothing if the run did not get that far."""
    path = run_folder / "summary.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
