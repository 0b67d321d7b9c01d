"""The encoder of the package, from photographs to its weights file, in one command.

``python scripts/train_packaged_encoder.py OUT --pictures PICTURES``: three trainings, each in a folder of its own in
``OUT`` and from the weights before it, then ``OUT/encoder.safetensors`` with the second scale. Started again after an
interruption, it goes on where it was. ``docs/encoder.md`` tells the pictures and the figures.
"""

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from acezero_gpu.cli import main as acezero
from acezero_gpu.encoder_training import WEIGHTS
from acezero_gpu.network.learned_encoder import LearnedEncoder, encoder_bytes, read_learned_encoder
from acezero_gpu.runtime.atomic import write_atomically

SEED = 1305


@dataclass(frozen=True)
class Stage:
    """One training."""

    name: str
    steps: int
    settings: tuple[str, ...]


SHARP = ("homography.layered_share=0", "homography.min_zoom=1")
"""Of the first two stages: no foregrounds, and no view with fewer pixels than it shows."""
STAGES = (
    Stage("small_views", 12_000, ("network.coarser_levels=2", *SHARP)),
    Stage(
        "larger_views",
        4_000,
        ("network.coarser_levels=2", *SHARP, "side_px=320", "pairs=4", "scene_share=0.5"),
    ),
    Stage("foregrounds", 3_000, ("side_px=384", "pairs=3", "scene_share=0.334", "photometric.strength=0.6")),
)


def train(out: Path, pictures: list[Path], device: str, more: list[str], steps: int | None = None) -> Path:
    """The finished weights file; ``SystemExit`` with the code of a training that fails. ``steps`` of each stage
    replace its own, ``more`` are further settings."""
    weights: Path | None = None
    for stage in STAGES:
        arguments = ["train-encoder", str(out / stage.name), "--device", device, "--seed", str(SEED)]
        arguments += ["--steps", str(steps or stage.steps)]
        arguments += [word for folder in pictures for word in ("--pictures", str(folder))]
        arguments += [word for setting in (*stage.settings, *more) for word in ("--set", setting)]
        arguments += ["--start-from", str(weights)] if weights is not None else []
        print(f"stage {stage.name}", flush=True)
        if code := acezero(arguments):
            raise SystemExit(code)
        weights = out / stage.name / WEIGHTS
    assert weights is not None
    return with_second_scale(weights, out / WEIGHTS)


def with_second_scale(weights: Path, out: Path) -> Path:
    """The same weights, used at half the size of the image as well."""
    trained = read_learned_encoder(weights, "--start-from")
    encoder = LearnedEncoder(replace(trained.config, scales=2))
    encoder.load_state_dict(trained.state_dict())
    write_atomically(out, encoder_bytes(encoder))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for the trainings and the weights")
    parser.add_argument("--pictures", type=Path, action="append", required=True, help="repeatable")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--set", action="append", default=[], help="SECTION.KEY=VALUE for all stages")
    parser.add_argument("--steps", type=int, help="of each stage, for a trial")
    given = parser.parse_args()
    print(train(given.out, given.pictures, given.device, given.set, given.steps))


if __name__ == "__main__":
    sys.exit(main())
