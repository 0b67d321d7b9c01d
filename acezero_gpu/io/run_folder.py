"""The folder that one run writes into: its file names, and what may be overwritten."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from acezero_gpu.runtime import InputError
from acezero_gpu.runtime.atomic import write_atomically

_RESULT = re.compile(
    r"poses_(final|mapped|(iteration)?\d+(_preliminary)?)\.txt|map_(iteration)?\d+\.safetensors|summary\.json"
)
"""Files whose presence means that the folder holds a finished or an interrupted run: no ``poses_known.txt``."""
RESULTS_BY_COMMON_NAMES = ("map.safetensors", "poses.txt", "point_cloud.ply")
"""Results of runs, too, but files of other origin may be called so."""
OTHER_FILES = (
    "config.toml",
    "log.txt",
    "history.json",
    "points.ply",
    "cameras.ply",
    "reconstruction.png",
    "reconstruction.mp4",
    "report.html",
    "tracks.safetensors",
)
"""Files of a run that alone do not forbid another one."""

REGISTERED_FROM = "registered_means_confidence_from"
"""Key of ``summary.json``: an image with less confidence is not registered."""
IMAGE_ROOT = "image_root"
"""Key of ``summary.json``: the folder from which the names of the images are paths."""
IMAGE_SIZE = "image_size_px"
"""Key of ``summary.json``: width and height of every image."""
_ROUND = re.compile(r"poses_(\d+)\.txt")


def is_result(path: Path) -> bool:
    """Whether the file has the name of a result of a run."""
    return bool(_RESULT.fullmatch(path.name)) or path.name in RESULTS_BY_COMMON_NAMES


class RunFolder:
    """Names and writes the files of a run; what is written here appears complete or not at all."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def poses_final(self) -> Path:
        """Poses of the last registration."""
        return self.path / "poses_final.txt"

    @property
    def log(self) -> Path:
        """What the terminal showed."""
        return self.path / "log.txt"

    @property
    def summary(self) -> Path:
        """Counts, times and settings of the finished run."""
        return self.path / "summary.json"

    @property
    def tracks(self) -> Path:
        """Points of the last joint adjustment, and which images see them where."""
        return self.path / "tracks.safetensors"

    @property
    def config(self) -> Path:
        """The settings that reproduce the run."""
        return self.path / "config.toml"

    @property
    def history(self) -> Path:
        """The rounds so far, and how each image fared."""
        return self.path / "history.json"

    @property
    def report(self) -> Path:
        """A page that shows the run."""
        return self.path / "report.html"

    @property
    def point_cloud(self) -> Path:
        """Coloured points of the last map."""
        return self.path / "point_cloud.ply"

    @property
    def video(self) -> Path:
        """A film of how the reconstruction grew."""
        return self.path / "reconstruction.mp4"

    def rounds(self) -> list[int]:
        """Indices of the steps whose poses are here, ascending."""
        matches = (_ROUND.fullmatch(file.name) for file in self.path.glob("poses_*.txt"))
        return sorted(int(match[1]) for match in matches if match)

    def poses(self, step: str | int) -> Path:
        """Poses after the registration of a step."""
        return self.path / f"poses_{step}.txt"

    def poses_preliminary(self, step: str | int) -> Path:
        """Poses after the mapping of a step, as refined there, before its registration."""
        return self.path / f"poses_{step}_preliminary.txt"

    def map(self, step: str | int) -> Path:
        """The scene map that a step trained."""
        return self.path / f"map_{step}.safetensors"

    def earlier_results(self) -> list[Path]:
        """Result files that lie here already; of other origin, perhaps, those with a common name."""
        files = sorted(self.path.iterdir()) if self.path.is_dir() else []
        return [file for file in files if is_result(file)]

    def files_of_a_run(self) -> list[Path]:
        """All that ``prepare`` removes to make room: what an earlier run wrote, and nothing else."""
        ours = [file for file in self.earlier_results() if file.name not in RESULTS_BY_COMMON_NAMES]
        if self.config.is_file():  # every run writes it first; without it files of common names are others'
            ours += [self.path / name for name in (*OTHER_FILES, *RESULTS_BY_COMMON_NAMES)]
        return [file for file in ours if file.is_file()]

    def prepare(self, overwrite: bool = False, reads: Sequence[str | Path] = ()) -> None:
        """Make the folder ready for a new run, which ``reads`` these files and folders.

        ``InputError`` if it holds results and ``overwrite`` is off, if what the run reads is among what would be
        removed, or if it cannot be written. With ``overwrite``, files of an earlier run are removed by their names,
        and nothing else.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            earlier = self.earlier_results()
            if earlier and not overwrite:
                raise InputError(
                    f"{self.path}: holds results already ({earlier[0].name}); "
                    "give another folder, or --overwrite to replace them."
                )
            if overwrite:
                self._remove_earlier(reads)
            probe = self.path / ".writable"
            write_atomically(probe, "")
            probe.unlink()
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror}); give a folder that you may write to."
            ) from error

    def _remove_earlier(self, reads: Sequence[str | Path]) -> None:
        going = {file.resolve(): file for file in self.files_of_a_run()}
        for source in map(Path, reads):
            lost = [file for place, file in going.items() if source.resolve() in (place, place.parent)]
            if lost:
                raise InputError(
                    f"{source}: --overwrite would remove {lost[0]} before it is read; write to another folder."
                )
        for file in going.values():
            file.unlink(missing_ok=True)

    def write_text(self, name: str, text: str) -> Path:
        """Write a text file of the run."""
        path = self.path / name
        write_atomically(path, text)
        return path

    def write_json(self, name: str, content: Mapping[str, Any]) -> Path:
        """Write a JSON file of the run; keys keep their order."""
        return self.write_text(name, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def write_toml(self, name: str, content: Mapping[str, Any]) -> Path:
        """Write a TOML file of the run; TOML has no null, so keys whose value is None are left out."""
        return self.write_text(name, tomli_w.dumps(_without_none(content)))


def _without_none(content: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, Mapping) else value
        for key, value in content.items()
        if value is not None
    }
