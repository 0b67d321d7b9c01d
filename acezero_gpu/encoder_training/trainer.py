"""Trains an encoder: steps, validation, checkpoints, resumption."""

import io
import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from acezero_gpu.encoder_training.config import EncoderTrainingConfig
from acezero_gpu.encoder_training.homography_pairs import homography_pairs
from acezero_gpu.encoder_training.loss import matching_accuracy, matching_loss
from acezero_gpu.encoder_training.pairs import TrainingPairs
from acezero_gpu.encoder_training.photometric import PhotometricChanges
from acezero_gpu.encoder_training.pictures import Picture
from acezero_gpu.encoder_training.scene_pairs import RenderedScenes, render_scenes, scene_pairs
from acezero_gpu.network.learned_encoder import LearnedEncoder, encoder_bytes, read_learned_encoder
from acezero_gpu.runtime import InputError, StageTimer, random_stream
from acezero_gpu.runtime.atomic import write_atomically
from acezero_gpu.runtime.progress import Work, expect, report

STRIDE = LearnedEncoder.stride
CHECKPOINT, WEIGHTS, LOG = "checkpoint.pt", "encoder.safetensors", "training.jsonl"
RENDERING, VALIDATION, TRAINING = "rendering", "validation views", "training"
RENDERED_S, PIXEL_S = 7e-6, 1.7e-6
"""Seconds for each pixel of a room's views, and in a step for each pixel of the pairs' first views, on one core of a
server's CPU."""
FIRST_TEMPERATURE = math.log(14.0)


class EncoderTrainer:
    """One training in one folder. ``run`` goes on where the folder's checkpoint ends."""

    def __init__(
        self,
        pictures: list[Picture],
        out: Path,
        config: EncoderTrainingConfig,
        device: torch.device,
        log: Callable[[str], None],
    ) -> None:
        self.config, self.device, self.out, self.log = config, device, out, log
        if len(pictures) < 2:
            raise InputError("one training picture is not enough: another is needed to validate with.")
        held = set(range(config.held_out - 1, len(pictures), config.held_out)) or {len(pictures) - 1}
        self.validation = [picture for index, picture in enumerate(pictures) if index in held]
        self.training = [picture for index, picture in enumerate(pictures) if index not in held]
        torch.manual_seed(config.seed)  # the network's own first weights
        self.encoder = LearnedEncoder(config.network).to(device)
        self.temperature = nn.Parameter(torch.tensor(FIRST_TEMPERATURE, device=device))
        groups: list[dict[str, Any]] = [
            {"params": list(self.encoder.parameters())},
            {"params": [self.temperature], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(
            groups,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        self.changes = PhotometricChanges(config.photometric)
        self.step, self.best = 0, -1.0
        self.rooms: RenderedScenes | None = None

    def start_from(self, path: Path) -> None:
        """First weights from a file of the same network, or of one with fewer coarser levels, not random ones."""
        try:
            given = read_learned_encoder(path, "--start-from")
        except ValueError as error:
            raise InputError(str(error)) from error
        levels = given.config.coarser_levels
        same = replace(self.config.network, coarser_levels=levels, scales=given.config.scales)
        if same != given.config:
            raise InputError(f"--start-from {path}: is of another size than network.* says ({given.config}).")
        # Strict but for the levels that the file's network does not have.
        loaded = self.encoder.load_state_dict(given.state_dict(), strict=False)
        if loaded.unexpected_keys:
            raise InputError(
                f"--start-from {path}: has more levels than network.coarser_levels says ({levels})."
            )
        self.log(f"starting from {path.name}")

    def resume(self) -> None:
        """Takes up the folder's checkpoint, if there is one."""
        path = self.out / CHECKPOINT
        if not path.is_file():
            return
        try:
            saved = torch.load(path, map_location=self.device, weights_only=True)
            if saved["config"] != asdict(self.config):
                raise InputError(
                    f"{path}: made with other settings; use the same, or another folder, or --overwrite."
                )
            self.encoder.load_state_dict(saved["encoder"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.temperature.data.copy_(saved["temperature"])
            self.step, self.best = int(saved["step"]), float(saved["best"])
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"{path}: not a readable checkpoint ({str(error).splitlines()[0]}); start anew with --overwrite."
            ) from error
        self.log(f"going on from step {self.step}, best accuracy {100 * self.best:.1f} %")

    def run(self) -> float:
        """Trains to the end; the best matching accuracy on the held-out pairs."""
        config, timer = self.config, StageTimer(self.device)
        if self.step >= config.steps:
            return self.best
        expect("", self._expected())
        if self._rooms:
            with timer.stage(RENDERING):
                self._render()
        with timer.stage(VALIDATION):
            held_out = self._validation_pairs()
        with timer.stage(TRAINING):
            self._train(held_out)
        return self.best

    @property
    def _rooms(self) -> int:
        """How many are to be rendered."""
        return self.config.scenes.scenes if self.config.scene_share > 0 else 0

    @property
    def _unit(self) -> str:
        """What the steps from here on are called: the log counts all of them."""
        return "further steps" if self.step > 0 else "steps"

    def _expected(self) -> list[Work]:
        config = self.config
        view = config.side_px**2
        room_s = RENDERED_S * config.scenes.views * view
        return [
            Work(RENDERING, room_s * self._rooms, "rooms"),
            Work(VALIDATION, room_s * min(1, self._rooms), "rooms"),
            Work(TRAINING, PIXEL_S * (config.steps - self.step) * config.pairs * view, self._unit),
        ]

    def _train(self, held_out: list[TrainingPairs]) -> None:
        config, first, unit = self.config, self.step, self._unit
        try:
            while self.step < config.steps:
                loss, share = self._one_step()
                self.step += 1
                report(self.step - first, config.steps - first, unit)
                last = self.step == config.steps
                if self.step % 50 == 0:
                    self.log(
                        f"  step {self.step} of {config.steps}: loss {loss:.3f}, learning rate "
                        f"{config.learning_rate * share:.5f}"
                    )
                if self.step % config.validate_every == 0 or last:
                    self._validate(held_out, loss)
                if self.step % config.checkpoint_every == 0 or last:
                    self.save_checkpoint()
        except KeyboardInterrupt:
            self.save_checkpoint()
            raise

    def save_checkpoint(self) -> None:
        """Replaces the folder's checkpoint once the new one is complete."""
        state = {
            "config": asdict(self.config),
            "encoder": self.encoder.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "temperature": self.temperature.detach(),
            "step": self.step,
            "best": self.best,
        }
        content = io.BytesIO()
        torch.save(state, content)
        write_atomically(self.out / CHECKPOINT, content.getvalue())

    def _render(self) -> None:
        config = self.config
        self.log(f"rendering {config.scenes.scenes} rooms …")
        self.rooms = render_scenes(self.training, config.side_px, config.scenes, config.seed)

    def _one_step(self) -> tuple[float, float]:
        config = self.config
        generator = random_stream(config.seed, "step", self.step)
        pairs = self._changed(self._pairs(generator), generator).to(self.device)
        share = learning_rate_share(self.step, config.steps, config.warmup_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * share
        self.encoder.train()
        a, b = self.encoder(torch.cat([pairs.a, pairs.b])).chunk(2)
        loss = self._loss(a, b, pairs.b_of_a, pairs.seen_a, generator)
        loss = 0.5 * (loss + self._loss(b, a, pairs.a_of_b, pairs.seen_b, generator))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.encoder.parameters(), 1.0)
        self.optimizer.step()
        value = float(loss.detach())
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss is not finite at step {self.step}")
        return value, share

    def _loss(self, a: Tensor, b: Tensor, where: Tensor, seen: Tensor, generator: torch.Generator) -> Tensor:
        temperature = self.temperature.clamp(0.0, math.log(100.0))
        return matching_loss(a, b, where, seen, temperature, STRIDE, self.config.anchors, generator)

    def _pairs(self, generator: torch.Generator) -> TrainingPairs:
        config = self.config
        rendered = round(config.scene_share * config.pairs) if self.rooms else 0
        rows = torch.randint(len(self.training), (config.pairs - rendered,), generator=generator).tolist()
        parts = (
            [homography_pairs(self.training, rows, config.side_px, STRIDE, config.homography, generator)]
            if rows
            else []
        )
        if self.rooms and rendered:
            parts.append(scene_pairs(self.rooms, rendered, STRIDE, config.scenes, generator))
        return TrainingPairs.concatenate(parts)

    def _changed(self, pairs: TrainingPairs, generator: torch.Generator) -> TrainingPairs:
        return pairs.with_views(self.changes(pairs.a, generator), self.changes(pairs.b, generator))

    def _validation_pairs(self) -> list[TrainingPairs]:
        """Of held-out pictures: under homographies, and, where rooms are rendered, on the walls of one more room."""
        config = self.config
        generator = random_stream(config.seed, "validation")
        rows = [index % len(self.validation) for index in range(config.validation_pairs)]
        sets = [homography_pairs(self.validation, rows, config.side_px, STRIDE, config.homography, generator)]
        if self.rooms:
            room = render_scenes(
                self.validation,
                config.side_px,
                replace(config.scenes, scenes=1),
                config.seed + config.scenes.scenes,
            )
            sets.append(scene_pairs(room, config.validation_pairs, STRIDE, config.scenes, generator))
        return [self._changed(pairs, generator) for pairs in sets]

    @torch.no_grad()
    def _validate(self, sets: list[TrainingPairs], loss: float) -> None:
        """The weights file is replaced when it is better on average."""
        self.encoder.eval()
        accuracy = []
        for pairs in sets:
            pairs = pairs.to(self.device)
            a, b = self.encoder(torch.cat([pairs.a, pairs.b])).chunk(2)
            accuracy.append(float(matching_accuracy(a, b, pairs.b_of_a, pairs.seen_a, STRIDE).mean()))
        mean = sum(accuracy) / len(accuracy)
        better = mean > self.best
        if better:
            self.best = mean
            write_atomically(self.out / WEIGHTS, encoder_bytes(self.encoder))
        kinds = dict(zip(("homographies", "rooms"), accuracy, strict=False))
        entry = {"step": self.step, "loss": loss, "accuracy": kinds, "temperature": float(self.temperature)}
        with (self.out / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        told = ", ".join(f"{name} {100 * value:.1f} %" for name, value in kinds.items())
        self.log(
            f"step {self.step} of {self.config.steps}: loss {loss:.3f}, matched {told}{' *' if better else ''}"
        )


def learning_rate_share(step: int, steps: int, warmup: int) -> float:
    """Of the highest learning rate: a linear rise, then half a cosine down to a hundredth."""
    if step < warmup:
        return (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))
