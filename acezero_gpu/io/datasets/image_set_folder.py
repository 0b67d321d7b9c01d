"""Writes one scene in the layout that docs/benchmarks.md describes."""

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from acezero_gpu.runtime import InputError
from acezero_gpu.runtime.atomic import write_atomically


@dataclass(slots=True)
class SceneFiles:
    """What one scene consists of; files are moved, not copied."""

    focal_px: tuple[float, float] | None
    """``fx, fy`` in pixels of the image files; None if not known."""
    unit: str
    """Of the poses: m, or arbitrary."""
    truth: str
    """Where the poses come from."""
    images: dict[str, Path] = field(default_factory=dict)
    """Image files by the stem that they get."""
    depth: dict[str, Path] = field(default_factory=dict)
    """Depth maps likewise."""
    world_from_cam: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    """4x4 camera to world, OpenCV axes, of the images that have one."""
    mapping: list[str] = field(default_factory=list)
    """Stems to reconstruct or train on; none if the set has no split."""
    queries: list[str] = field(default_factory=list)
    """Stems to judge by."""


def write_scene(folder: Path, scene: SceneFiles) -> int:
    """Move and write everything; the folder appears complete or not at all. How many images it has."""
    if not scene.images:
        raise InputError(f"{folder}: the archive holds no image of this scene.")
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    for name in ("images", "poses", "depth"):
        (unfinished / name).mkdir(parents=True)
    with Image.open(next(iter(scene.images.values()))) as picture:
        width, height = picture.size
    for stem, path in scene.images.items():
        shutil.move(path, unfinished / "images" / f"{stem}{path.suffix.lower()}")
    for stem, path in scene.depth.items():
        shutil.move(path, unfinished / "depth" / f"{stem}{path.suffix.lower()}")
    for stem, matrix in scene.world_from_cam.items():
        np.savetxt(unfinished / "poses" / f"{stem}.txt", matrix, fmt="%.12g")
    for name, stems in (("mapping.txt", scene.mapping), ("query.txt", scene.queries)):
        if stems:
            write_atomically(unfinished / name, "".join(f"{stem}\n" for stem in stems))
    if scene.mapping and scene.queries:
        write_atomically(unfinished / "split.json", _split(scene))
    facts: dict[str, object] = {"images": len(scene.images), "width": width, "height": height}
    if scene.focal_px is not None:
        facts |= {"fx": scene.focal_px[0], "fy": scene.focal_px[1], "cx": width / 2, "cy": height / 2}
    facts |= {"truth": scene.truth, "unit": scene.unit}
    write_atomically(unfinished / "set.json", json.dumps(facts, indent=1) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    unfinished.rename(folder)
    return len(scene.images)


def _split(scene: SceneFiles) -> str:
    """In the form that ACE0's view-synthesis benchmark reads."""

    def files(stems: Sequence[str]) -> list[str]:
        return [f"{stem}{scene.images[stem].suffix.lower()}" for stem in stems]

    content = {"train_filenames": files(scene.mapping), "test_filenames": files(scene.queries)}
    return json.dumps(content, indent=1) + "\n"


def every_eighth(stems: Iterable[str], first: int) -> tuple[list[str], list[str]]:
    """Mapping and query stems: of the sorted ones, every eighth is a query."""
    ordered = sorted(stems)
    queries = ordered[first::8]
    return [stem for stem in ordered if stem not in set(queries)], queries


def read_matrix(path: Path) -> NDArray[np.float64] | None:
    """A 4x4 matrix, None for a frame that was lost; ``InputError`` for anything else."""
    try:
        matrix = np.loadtxt(path, dtype=np.float64)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a 4x4 matrix ({error}).") from error
    if matrix.shape != (4, 4):
        raise InputError(f"{path}: not a 4x4 matrix, but one of shape {matrix.shape}.")
    return matrix if np.isfinite(matrix).all() else None


def read_text(path: Path) -> str:
    """A text file of a data set."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); is the archive complete?") from error
