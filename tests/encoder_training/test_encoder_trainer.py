"""Training goes down, goes on after an interruption, and loses nothing that was finished."""

import json
import math
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import pytest
import torch
from reference.progress_listener import Heard

from acezero_gpu.cli.app import main
from acezero_gpu.data.synthetic_textures import poster, wall
from acezero_gpu.encoder_training import (
    CHECKPOINT,
    LOG,
    WEIGHTS,
    EncoderTrainer,
    EncoderTrainingConfig,
    load_pictures,
    picture_paths,
)
from acezero_gpu.encoder_training.scene_pairs import SceneConfig
from acezero_gpu.encoder_training.trainer import learning_rate_share
from acezero_gpu.network.learned_encoder import (
    LearnedEncoderConfig,
    load_learned_encoder,
    read_learned_encoder,
)
from acezero_gpu.runtime import InputError
from acezero_gpu.runtime.progress import listening

TINY = EncoderTrainingConfig(
    network=LearnedEncoderConfig(channels=16, width=16, coarser_levels=1),
    scenes=SceneConfig(scenes=1, views=3, texels_per_m=30),
    side_px=64,
    pairs=4,
    anchors=32,
    steps=6,
    warmup_steps=2,
    held_out=3,
    validation_pairs=4,
    validate_every=3,
    checkpoint_every=2,
)
TINY_SETTINGS = """
network.channels=16 network.width=16 network.coarser_levels=1 scene_share=0.0 side_px=64 pairs=4
anchors=32 warmup_steps=2 held_out=3 validation_pairs=4 validate_every=3 checkpoint_every=2
"""
FLAGS = [f"--set={setting}" for setting in TINY_SETTINGS.split()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photographs")
    generator = torch.Generator().manual_seed(0)
    for index, paint in enumerate((poster, poster, lambda *size: wall(*size, 4), poster)):
        texture = paint(generator, 270, 300)
        iio.imwrite(path / f"{index}.png", (texture * 255).to(torch.uint8).permute(1, 2, 0).numpy())
    return path


def start(folder: Path, out: Path, config: EncoderTrainingConfig = TINY) -> EncoderTrainer:
    out.mkdir(exist_ok=True)
    pictures = load_pictures(picture_paths([folder]))
    return EncoderTrainer(pictures, out, config, torch.device("cpu"), lambda _: None)


def test_the_loss_goes_down(folder, tmp_path):
    config = replace(TINY, steps=60, validate_every=10, scene_share=0.0)
    best = start(folder, tmp_path / "run", config).run()
    entries = [json.loads(line) for line in (tmp_path / "run" / LOG).read_text().splitlines()]
    assert [entry["step"] for entry in entries] == [10, 20, 30, 40, 50, 60]
    # Chance is the logarithm of the 128 cells to choose from.
    assert entries[-1]["loss"] < 0.9 * entries[0]["loss"] < 0.9 * math.log(2 * 64) + 1
    assert best == max(entry["accuracy"]["homographies"] for entry in entries) > 0.1
    assert load_learned_encoder(tmp_path / "run" / WEIGHTS).channels == 16


def test_it_starts_from_other_weights(folder, tmp_path):
    """With a learning rate of nothing it stays where it started; another size is refused, and what is no encoder."""
    start(folder, tmp_path / "first").run()
    first = tmp_path / "first" / WEIGHTS
    further = start(folder, tmp_path / "second", replace(TINY, learning_rate=0.0, weight_decay=0.0))
    further.start_from(first)
    further.run()
    given = read_learned_encoder(first, "")
    torch.testing.assert_close(dict(further.encoder.named_parameters()), dict(given.named_parameters()))
    deeper = start(folder, tmp_path / "deep", replace(TINY, network=replace(TINY.network, coarser_levels=2)))
    deeper.start_from(first)
    image = torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = given.eval()(image)
        torch.testing.assert_close(deeper.encoder.eval()(image), expected)
    other = start(folder, tmp_path / "third", replace(TINY, network=replace(TINY.network, channels=8)))
    with pytest.raises(InputError, match="another size"):
        other.start_from(first)
    without = start(
        folder, tmp_path / "fourth", replace(TINY, network=replace(TINY.network, coarser_levels=0))
    )
    with pytest.raises(InputError, match="more levels"):
        without.start_from(first)
    with pytest.raises(InputError, match="--start-from .*0.png: not a readable"):
        other.start_from(folder / "0.png")


class Killed(Exception):
    """As if the process had been ended."""


def test_resumed_training_ends_where_an_uninterrupted_one_does(folder, tmp_path, monkeypatch):
    whole = start(folder, tmp_path / "whole")
    whole.run()
    first = start(folder, tmp_path / "parts")
    step = first._one_step

    def until_five() -> tuple[float, float]:
        if first.step == 5:
            raise Killed
        return step()

    monkeypatch.setattr(first, "_one_step", until_five)
    with pytest.raises(Killed):
        first.run()
    second = start(folder, tmp_path / "parts")
    second.resume()
    assert second.step == 4  # the last checkpoint: one step is lost
    heard = Heard()
    with listening(heard):
        second.run()
    left = TINY.steps - 4
    assert heard.stages == heard.ended == ["rendering", "validation views", "training"]
    assert [work.unit for work in heard.expected[0][1]] == ["rooms", "rooms", "further steps"]
    assert heard.reports[:2] == [(1, 1, "rooms")] * 2  # the room to train with, and the one to validate with
    assert heard.reports[2:] == [(step, left, "further steps") for step in range(1, left + 1)]
    for ours, theirs in zip(second.encoder.parameters(), whole.encoder.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
    again = start(folder, tmp_path / "parts")
    again.resume()
    assert again.step == TINY.steps and again.run() == second.best


def test_ctrl_c_keeps_the_last_step(folder, tmp_path, monkeypatch):
    stopped = start(folder, tmp_path / "run")
    step = stopped._one_step
    monkeypatch.setattr(
        stopped, "_one_step", lambda: step() if stopped.step < 3 else (_ for _ in ()).throw(KeyboardInterrupt)
    )
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    resumed = start(folder, tmp_path / "run")
    resumed.resume()
    assert resumed.step == 3


def test_a_full_disk_leaves_the_previous_checkpoint(folder, tmp_path, monkeypatch):
    trained = start(folder, tmp_path / "run", replace(TINY, steps=2, scene_share=0.0))
    trained.run()
    before = (tmp_path / "run" / CHECKPOINT).read_bytes()

    write_bytes = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        write_bytes(path, data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        trained.save_checkpoint()
    monkeypatch.undo()
    assert (tmp_path / "run" / CHECKPOINT).read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == sorted([CHECKPOINT, LOG, WEIGHTS])


def test_checkpoints_of_other_settings_and_broken_ones_are_refused(folder, tmp_path):
    config = replace(TINY, steps=2, scene_share=0.0)
    start(folder, tmp_path / "run", config).run()
    with pytest.raises(InputError, match="other settings"):
        start(folder, tmp_path / "run", replace(config, anchors=31)).resume()
    (tmp_path / "run" / CHECKPOINT).write_bytes(b"no checkpoint")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        start(folder, tmp_path / "run", config).resume()


def test_no_picture_both_trains_and_validates(folder, tmp_path):
    few = start(folder, tmp_path / "run", replace(TINY, held_out=20))
    assert (len(few.training), len(few.validation)) == (3, 1)
    assert all(picture is not few.validation[0] for picture in few.training)
    with pytest.raises(InputError, match="not enough"):
        EncoderTrainer(few.validation, tmp_path, TINY, torch.device("cpu"), lambda _: None)


def test_the_learning_rate_rises_then_falls():
    shares = [learning_rate_share(step, 100, 10) for step in range(100)]
    assert shares[0] == pytest.approx(0.1) and max(shares) == pytest.approx(1.0) and shares[-1] < 0.02
    assert shares.index(max(shares)) in (9, 10)


def test_the_command_trains_goes_on_and_starts_anew(folder, tmp_path, capsys):
    out = tmp_path / "out"
    command = [
        "train-encoder",
        str(out),
        "--pictures",
        str(folder),
        "--device",
        "cpu",
        "--steps",
        "3",
        *FLAGS,
    ]
    assert main(command) == 0
    assert str(out / WEIGHTS) in capsys.readouterr().out
    stamp = (out / CHECKPOINT).stat().st_mtime_ns
    assert main(command) == 0  # nothing left to do
    assert (out / CHECKPOINT).stat().st_mtime_ns == stamp
    assert main([*command[:-1], "--set=checkpoint_every=1"]) == 2
    assert "other settings" in capsys.readouterr().err
    assert main([*command[:-1], "--set=checkpoint_every=1", "--overwrite"]) == 0


def test_wrong_input_is_one_sentence(folder, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    for out, pictures, said in (
        ("new", tmp_path / "empty", "no training pictures"),
        ("new2", tmp_path / "nowhere", "no such folder"),
        ("other", folder, "no earlier training"),
        ("other/file", folder, "is not a folder"),
    ):
        assert main(["train-encoder", str(tmp_path / out), "--pictures", str(pictures)]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
    assert main(["train-encoder", str(tmp_path / "x"), "--pictures", str(folder), "--set", "anchor=3"]) == 2
    assert "did you mean anchors" in capsys.readouterr().err
