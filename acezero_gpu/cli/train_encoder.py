"""``acezero train-encoder``: photographs to the weights of an encoder."""

from pathlib import Path

from acezero_gpu.cli import options as opt
from acezero_gpu.cli.failure import as_input_error
from acezero_gpu.cli.output import say
from acezero_gpu.cli.run_log import RunLog, verbosity
from acezero_gpu.config import with_override
from acezero_gpu.encoder_training import (
    CHECKPOINT,
    LOG,
    WEIGHTS,
    EncoderTrainer,
    EncoderTrainingConfig,
    load_pictures,
    picture_paths,
)
from acezero_gpu.runtime import InputError, resolve_device


def train_encoder(
    out: opt.Out,
    pictures: opt.TrainingPictures,
    steps: opt.TrainingSteps = None,
    start_from: opt.TrainingStart = None,
    device: opt.Device = "auto",
    seed: opt.Seed = None,
    set_: opt.Set = None,
    overwrite: opt.TrainingOverwrite = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Train an encoder from photographs alone; started again, it goes on from its last checkpoint."""
    config = EncoderTrainingConfig()
    for key, value in (("steps", steps), ("seed", seed)):
        if value is not None:
            config = with_override(config, f"{key}={value}")
    for assignment in set_ or ():
        config = with_override(config, assignment)
    with as_input_error():
        place = resolve_device(device)
    with RunLog(verbosity(quiet, verbose)) as log:
        _prepare(out, overwrite)
        paths = picture_paths(pictures)
        log.line(f"reading {len(paths)} pictures …")
        trainer = EncoderTrainer(load_pictures(paths), out, config, place, log.line)
        if start_from is not None:
            trainer.start_from(start_from)
        trainer.resume()
        best = trainer.run()
        say(f"matched {100 * best:.1f} % of held-out cells → {out / WEIGHTS}")


def _prepare(out: Path, overwrite: bool) -> None:
    """An empty folder, or one that this command has written."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is not a folder; give another one.")
    out.mkdir(parents=True, exist_ok=True)
    ours = (out / CHECKPOINT).is_file() or (out / WEIGHTS).is_file()
    if any(out.iterdir()) and not ours and not overwrite:
        raise InputError(f"{out}: is not empty and no earlier training; give another folder, or --overwrite.")
    if overwrite:
        for name in (CHECKPOINT, WEIGHTS, LOG):
            (out / name).unlink(missing_ok=True)
