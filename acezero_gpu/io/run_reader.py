"""A finished reconstruction, read back from its folder."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from acezero_gpu.data.file_matching import match_by_key
from acezero_gpu.data.image_set import IMAGE_SUFFIXES, files_of, resolve_images
from acezero_gpu.data.posed_views import PosedViews
from acezero_gpu.io.history_file import read_history
from acezero_gpu.io.pose_file import read_pose_file
from acezero_gpu.io.run_folder import IMAGE_ROOT, IMAGE_SIZE, REGISTERED_FROM, RunFolder
from acezero_gpu.reconstruction.history import RunHistory
from acezero_gpu.runtime import InputError

_OTHER_COMMANDS = {"poses.txt": "register", "poses_mapped.txt": "map"}
"""Pose files of commands that are no reconstruction."""


@dataclass(frozen=True, slots=True)
class RunRound:
    """The files of one round; nothing is read until it is asked for."""

    index: int
    """0 for the seed, then upwards."""
    poses: Path
    """Poses of all images after its registration."""
    scene_map: Path | None
    """The map that it trained, if it is still there."""

    def views(self) -> PosedViews:
        """Poses of all images after its registration; ``InputError`` if the file is damaged."""
        return read_pose_file(self.poses)


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """What a folder of ``acezero reconstruct`` holds."""

    path: Path
    views: PosedViews
    """Final poses of all images."""
    rounds: tuple[RunRound, ...]
    """From the seed to the last; empty if somebody has removed their files."""
    summary: Mapping[str, Any]
    """``summary.json``; empty if the run did not finish."""
    history: RunHistory | None
    """``history.json``, which runs of earlier versions lack."""
    min_confidence: float
    """An image with less confidence is not registered; 1 where no file says it."""
    point_cloud: Path | None
    """``point_cloud.ply``, if it is there."""
    image_paths: tuple[Path | None, ...]
    """Where the file of each image lies now; None where it is gone."""

    @property
    def missing_images(self) -> int:
        """How many image files are not where the run found them, nor at the place that was given."""
        return sum(path is None for path in self.image_paths)

    @property
    def registered(self) -> tuple[bool, ...]:
        """Which images have a pose."""
        return tuple(self.views.registered(self.min_confidence).tolist())

    @property
    def image_size_px(self) -> tuple[int, int] | None:
        """Width and height of every image file, as the run wrote them down or as a file that is there has them."""
        if self.history is not None:
            return self.history.image_size_px
        if IMAGE_SIZE in self.summary:
            width, height = self.summary[IMAGE_SIZE]
            return int(width), int(height)
        for path in filter(None, self.image_paths):
            found = resolve_images(path, minimum=0)
            if len(found):
                return found.width, found.height
        return None


def open_run(
    path: str | Path,
    *,
    images: str | Path | None = None,
    points: bool = False,
    rounds: bool = False,
    unfinished: bool = False,
) -> FinishedRun:
    """Read the folder of a finished reconstruction.

    ``images`` is a folder or glob where the images lie now, if they have been moved; images are then found by
    path, else file name, else stem. ``points`` and ``rounds`` demand the point cloud and the poses of the rounds.
    ``unfinished`` takes a run that was interrupted or failed as well, with the poses of its last round.
    ``InputError``, naming the file and the command that makes it, for a folder that is none of a reconstruction or
    is incomplete, for a damaged file, and for ``images`` that name no image of the run.
    """
    folder = RunFolder(path)
    if not folder.path.is_dir():
        raise InputError(f"{path}: no such folder; give the OUT of an earlier acezero reconstruct.")
    found = rounds_of(folder)
    poses = folder.poses_final
    if unfinished and found and not poses.is_file():
        poses = found[-1].poses
    _require(folder, poses)
    if not unfinished:
        _require(folder, folder.summary)
    summary = _read_summary(folder) if folder.summary.is_file() else {}
    history = read_history(folder.history) if folder.history.is_file() else None
    views = read_pose_file(poses)
    if rounds and not found:
        _require(folder, folder.poses(0))
    if points:
        _require(folder, folder.point_cloud)
    return FinishedRun(
        folder.path,
        views,
        found,
        summary,
        history,
        float(summary.get(REGISTERED_FROM, history.min_confidence if history else 1.0)),
        folder.point_cloud if folder.point_cloud.is_file() else None,
        _image_paths(
            views.names, str(summary.get(IMAGE_ROOT, history.image_root if history else "")), images
        ),
    )


def _require(folder: RunFolder, file: Path) -> None:
    if file.is_file():
        return
    other = next((name for name in _OTHER_COMMANDS if (folder.path / name).is_file()), None)
    if other is not None:
        raise InputError(
            f"{folder.path}: the folder of an acezero {_OTHER_COMMANDS[other]} (it has {other}, but no {file.name}); "
            "give the OUT of an acezero reconstruct."
        )
    if not any((folder.earlier_results(), folder.config.is_file(), folder.log.is_file())):
        raise InputError(
            f"{folder.path}: not the folder of a reconstruction (no {file.name}); acezero reconstruct IMAGES "
            f"{shlex.quote(str(folder.path))} makes one."
        )
    raise InputError(
        f"{folder.path}: {file.name} is missing, as after a run that was interrupted; make it with: "
        f"{_command_of(folder)}"
    )


def _command_of(folder: RunFolder) -> str:
    """The command that makes the run again: the first line of its settings says it."""
    try:
        first = folder.config.read_text(encoding="utf-8", errors="surrogateescape").split("\n", 1)[0]
    except OSError:
        first = ""
    command = first.removeprefix("# ")
    if not command.startswith("acezero reconstruct"):
        command = f"acezero reconstruct IMAGES {shlex.quote(str(folder.path))}"
    return f"{command} --overwrite"


def _read_summary(folder: RunFolder) -> dict[str, Any]:
    try:
        summary = json.loads(folder.summary.read_text(encoding="utf-8", errors="surrogateescape"))
        float(summary[REGISTERED_FROM])
    except OSError as error:
        raise InputError(f"{folder.summary}: cannot be read ({error.strerror}).") from error
    except (ValueError, TypeError, KeyError):
        raise InputError(
            f"{folder.summary}: not the summary of a reconstruction; make it with: {_command_of(folder)}"
        ) from None
    return dict(summary)


def rounds_of(folder: RunFolder) -> tuple[RunRound, ...]:
    """The rounds whose poses are in the folder, from the seed on."""
    return tuple(
        RunRound(index, folder.poses(index), folder.map(index) if folder.map(index).is_file() else None)
        for index in folder.rounds()
    )


def _image_paths(names: tuple[str, ...], root: str, images: str | Path | None) -> tuple[Path | None, ...]:
    if images is not None:
        files = files_of(images, IMAGE_SUFFIXES)
        matches = match_by_key(names, [str(file) for file in files])
        if all(match is None for match in matches):
            raise InputError(
                f"--images {images}: no image of the run there; its first is {names[0]}."
                if names
                else f"--images {images}: the run has no image."
            )
        return tuple(None if match is None else files[match] for match in matches)
    # From elsewhere first: the working directory is a guess, for folders that were moved together.
    places = (Path(root), Path())
    return tuple(next((place / name for place in places if (place / name).is_file()), None) for name in names)
