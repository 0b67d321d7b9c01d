"""One run of a command: its folder, settings, log and clock, and the files that it leaves."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from acezero_gpu.cli.failure import as_input_error
from acezero_gpu.cli.run_log import RunLog
from acezero_gpu.cli.settings import Settings
from acezero_gpu.cli.versions import git_commit, versions
from acezero_gpu.config import as_toml
from acezero_gpu.data import ImageSet, load_grey
from acezero_gpu.io import RunFolder
from acezero_gpu.io.run_folder import IMAGE_ROOT, IMAGE_SIZE
from acezero_gpu.network import make_encoder
from acezero_gpu.reconstruction import ImageBank
from acezero_gpu.reconstruction.parallel import share_bank
from acezero_gpu.runtime import InputError, StageTimer, describe_device


@dataclass(frozen=True, slots=True)
class Run:
    """What every command that writes a folder shares."""

    command: str
    """The command line that makes the same run."""
    folder: RunFolder
    settings: Settings
    log: RunLog
    timer: StageTimer

    @classmethod
    def start(
        cls,
        out: Path,
        settings: Settings,
        log: RunLog,
        command: Sequence[str | Path],
        *,
        overwrite: bool,
        reads: Sequence[str | Path | None] = (),
    ) -> "Run":
        """Makes the folder ready and writes ``config.toml`` and the head of ``log.txt``.

        ``InputError`` if the folder holds results and ``overwrite`` is off, if ``overwrite`` would remove what the
        command ``reads``, or if it cannot be written.
        """
        folder = RunFolder(out)
        folder.prepare(overwrite, [source for source in reads if source is not None])
        settings_file = ["--preset", settings.preset, "--config", str(folder.config)]
        line = shlex.join(["acezero", *map(str, command), *settings_file])
        folder.write_text("config.toml", f"# {line}\n# preset {settings.preset}\n{as_toml(settings.config)}")
        log.open_file(folder.log)
        log.line(f" {line}")
        count = settings.ranks.count
        together = f", {count} processes" if count > 1 else ""
        log.line(f"device {describe_device(settings.device)}{together}, preset {settings.preset}")
        return cls(line, folder, settings, log, StageTimer(settings.device))

    def load_bank(self, image_set: ImageSet, *, keypoints: bool, minimum: int = 2) -> ImageBank:
        """The decoded images with their encoder.

        Without ``keypoints`` no image is decoded at the keypoints' own resolution.
        """
        config = self.settings.config
        with as_input_error():
            encoder = make_encoder(config.encoder, self.settings.device)
        bank = config.bank
        with self.timer.stage("loading"):
            images = load_grey(image_set, bank.shortest_side_px, minimum=minimum)
            keypoint_images = images
            # Enlarged images would have no more keypoints, only slower ones.
            side = min(bank.keypoint_side_px, images.image_set.width, images.image_set.height)
            if keypoints and side != bank.shortest_side_px:
                keypoint_images = load_grey(images.image_set, side, minimum=minimum)
        if len(keypoint_images) != len(images):
            raise InputError("An image file changed while it was read; start again.")
        height, width = images.pixels.shape[-2:]
        source = images.image_set
        self.log.line(
            f"{len(images)} images of {source.width}x{source.height} px, worked on at {width}x{height} px"
        )
        device, ranks = self.settings.device, self.settings.ranks
        with as_input_error():
            made = ImageBank(images, keypoint_images, encoder, bank, device, config.seed, ranks)
        self.log.line(
            f" features of {made.cache.kept} images are kept, {made.cache.device_bytes / 1e6:.0f} MB on the device; "
            f"{made.buffer.patches_per_frame} patches of each image, {made.buffer.bytes_needed / 1e6:.0f} MB"
        )
        share_bank(made, config.encoder)
        return made

    def with_bank_settings(self, **changes: Any) -> "Run":
        """The same run with other settings of the image bank."""
        config = self.settings.config
        config = replace(config, bank=replace(config.bank, **changes))
        return replace(self, settings=replace(self.settings, config=config))

    def write_summary(self, images: ImageSet, figures: Mapping[str, Any]) -> None:
        """``summary.json``: the command's figures, then what they were made with; it says that the run is finished."""
        content: dict[str, Any] = {"command": self.command, "images": len(images)}
        content |= figures
        content |= {
            IMAGE_ROOT: str(images.root),
            IMAGE_SIZE: [images.width, images.height],
            "skipped": [{"file": name, "reason": reason} for name, reason in images.skipped],
            "seconds": {name: round(value, 3) for name, value in self.timer.seconds.items()},
            "total_s": round(self.log.seconds, 3),
            "device": describe_device(self.settings.device),
            "processes": self.settings.ranks.count,
            "preset": self.settings.preset,
            "seed": self.settings.config.seed,
            "versions": versions(),
            "git_commit": git_commit(),
        }
        self.folder.write_json("summary.json", content)
