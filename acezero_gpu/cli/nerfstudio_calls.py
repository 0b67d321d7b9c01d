"""Nerfstudio's own commands: a method trained on a folder of data, and its figures on the test images."""

import json
import math
import shutil
import subprocess
from pathlib import Path

from acezero_gpu.cli.benchmark_options import NvsMethod
from acezero_gpu.cli.failure import RunFailedError
from acezero_gpu.cli.run_log import RunLog

FIGURES = ("psnr", "ssim", "lpips")
"""What is taken from Nerfstudio's evaluation; only the first is always there."""
_MODELS, _EXPERIMENT, _TIMESTAMP = "models", "nvs", "run"


def missing_program() -> str | None:
    """The first of Nerfstudio's commands that is not on the PATH."""
    return next((name for name in ("ns-train", "ns-eval") if shutil.which(name) is None), None)


def train_and_evaluate(folder: Path, method: NvsMethod, log: RunLog) -> dict[str, float]:
    """Train on the data in ``folder`` with the cameras as they are, then measure on its test images.

    Models and logs of the two commands stay in ``folder``; models of an earlier call are removed first, lest their
    checkpoints be evaluated. ``RunFailedError``, naming the log, where a command fails or leaves no figures.
    """
    shutil.rmtree(folder / _MODELS, ignore_errors=True)
    evaluation = folder / "ns-eval.json"
    evaluation.unlink(missing_ok=True)
    log.stage(f"training {method}")
    train_log, eval_log = folder / "ns-train.log", folder / "ns-eval.log"
    _call(_training(folder, method), train_log)
    config = folder / _MODELS / _EXPERIMENT / method / _TIMESTAMP / "config.yml"
    if not config.is_file():
        raise RunFailedError(f"ns-train ended without {config}; {train_log} says why.")
    log.stage(f"evaluating {method}")
    _call(["ns-eval", "--load-config", str(config), "--output-path", str(evaluation)], eval_log)
    return _figures(evaluation, eval_log)


def _training(folder: Path, method: NvsMethod) -> list[str]:
    return [
        "ns-train", method,
        "--data", str(folder),
        "--output-dir", str(folder / _MODELS),
        "--experiment-name", _EXPERIMENT,
        "--timestamp", _TIMESTAMP,
        "--vis", "tensorboard",
        "--viewer.quit-on-train-completion", "True",
        "--pipeline.model.camera-optimizer.mode", "off",
        "nerfstudio-data",
        "--downscale-factor", "1",
        *(["--load-3D-points", "True"] if method == "splatfacto" else []),
    ]  # fmt: skip


def _call(command: list[str], log_file: Path) -> None:
    with log_file.open("w", encoding="utf-8") as file:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode:
        raise RunFailedError(f"{command[0]} failed (exit code {done.returncode}); {log_file} says why.")


def _figures(evaluation: Path, eval_log: Path) -> dict[str, float]:
    try:
        results = json.loads(evaluation.read_text(encoding="utf-8"))["results"]
        figures = {key: float(results[key]) for key in FIGURES if results.get(key) is not None}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunFailedError(f"{evaluation}: ns-eval wrote no results there; {eval_log} says why.") from error
    if not math.isfinite(figures.get("psnr", math.nan)):
        raise RunFailedError(f"{evaluation}: has no finite PSNR; {eval_log} may say why.")
    return figures
