"""Which files belong together: an image, its pose, its depth map."""

import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from os.path import commonpath
from pathlib import Path, PurePath

from acezero_gpu.runtime import InputError

LOG = logging.getLogger(__name__)


def frame_key(name: str | PurePath) -> str:
    """What the files of one frame share: the stem without a trailing ``color``, ``depth`` or ``pose``.

    ``frame-000000.color.png``, ``frame-000000.depth.png`` and ``frame-000000.pose.txt`` all give
    ``frame-000000``.
    """
    stem = PurePath(name).stem
    for word in ("color", "colour", "rgb", "depth", "pose"):
        for separator in "._-":
            if stem.lower().endswith(separator + word):
                return stem[: -len(word) - 1]
    return stem


def is_depth_map(file: Path) -> bool:
    """Whether the name says so, as 7-Scenes' ``frame-000000.depth.png`` does."""
    return file.stem.lower().endswith((".depth", "_depth", "-depth"))


def match_by_key(names: Sequence[str], candidates: Sequence[str]) -> list[int | None]:
    """For every image name the candidate of the same frame, or None.

    The strictest rule that finds anything decides for the whole set: full name; path below the folder that all of
    one side share, then the same without suffix, and with ``frame_key`` as its name; file name, stem, ``frame_key``
    alone, and that with ``_`` for white space. A key that occurs twice on either side matches nothing, so no file
    serves two images.
    """
    for rule in _RULES:
        ours, theirs = rule(names), rule(candidates)
        our_index, their_index = _unique_index(ours), _unique_index(theirs)
        if our_index.keys() & their_index.keys():
            return [their_index.get(key) if key in our_index else None for key in ours]
    return [None] * len(names)


def match_files(
    names: Sequence[str], files: Sequence[Path], *, spec: str | Path, kind: str
) -> list[Path | None]:
    """For every image the file that belongs to it, or None.

    Where ``match_by_key`` finds nothing at all, images and files are paired in order, with a warning; numbers in
    names count as numbers, 2 before 10. ``InputError`` if there are not as many of both.
    """
    matches = match_by_key(names, [str(file) for file in files])
    if all(match is None for match in matches):
        if len(files) != len(names):
            raise InputError(
                f"{spec}: {len(files)} {kind} for {len(names)} images, and no name in common; "
                "name them like the images, or give one per image."
            )
        rows = sorted(range(len(names)), key=lambda row: _by_number(names[row]))
        order = sorted(range(len(files)), key=lambda row: _by_number(str(files[row])))
        for row, match in zip(rows, order, strict=True):
            matches[row] = match
        if names:
            LOG.warning(
                "%s: %s have no name in common with the images and are paired in order: %s with %s, … %s with %s",
                spec,
                kind,
                *(word for end in (0, -1) for word in (names[rows[end]], files[order[end]].name)),
            )
    return [None if match is None else files[match] for match in matches]


def _unique_index(keys: Sequence[str]) -> dict[str, int]:
    """Position of each key that occurs once."""
    counts = Counter(keys)
    return {key: i for i, key in enumerate(keys) if counts[key] == 1}


def _below_shared_folder(names: Sequence[str]) -> list[PurePath]:
    """The paths from the folder that all share; as they are where there is none."""
    paths = [PurePath(name) for name in names]
    try:
        shared = commonpath([path.parent for path in paths])
        return [path.relative_to(shared) for path in paths]
    except ValueError:  # none at all, or some are absolute and some are not
        return paths


def _each(key: Callable[[str], str]) -> Callable[[Sequence[str]], list[str]]:
    return lambda names: [key(name) for name in names]


_RULES: tuple[Callable[[Sequence[str]], list[str]], ...] = (
    list,
    lambda names: [str(path) for path in _below_shared_folder(names)],
    lambda names: [str(path.with_suffix("")) for path in _below_shared_folder(names)],
    lambda names: [str(path.parent / frame_key(path)) for path in _below_shared_folder(names)],
    _each(lambda name: PurePath(name).name),
    _each(lambda name: PurePath(name).stem),
    _each(frame_key),
    _each(lambda name: "_".join(frame_key(name).split())),
)


def _by_number(name: str) -> list[tuple[int, str]]:
    """A key to sort by in which runs of digits count as numbers."""
    return [(int(word), "") if word.isdecimal() else (-1, word) for word in re.split(r"(\d+)", name)]
