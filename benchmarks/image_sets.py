"""Image sets with true poses: ``images/``, ``poses/<stem>.txt`` (camera to world), ``set.json``, lists."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pypose as pp
import torch

from acezero_gpu.data import PosedViews
from acezero_gpu.data.image_set import IMAGE_SUFFIXES, files_of
from acezero_gpu.io.pose_file import read_pose_folder
from acezero_gpu.runtime import InputError

UNIT_M = {"m": 1.0, "cm": 0.01, "mm": 0.001}
"""Metres per unit of a truth; any other word in ``set.json`` is a truth without a unit."""


@dataclass(frozen=True, slots=True)
class TruthSet:
    """Images of one place, and where they were truly taken."""

    name: str
    """The folder's name."""
    images: tuple[Path, ...]
    """Image files, all in one folder, in alphabetical order or in that of the list that chose them."""
    poses: Path
    """Folder of the true poses."""
    focal_px: float
    """True focal length in pixels of the image files, the mean of both axes."""
    unit_m: float | None
    """Metres per unit of the true poses; None if their unit is arbitrary."""
    truth_kind: str
    """Where the truth comes from."""

    @property
    def stems(self) -> tuple[str, ...]:
        """Names of the images that no folder of this machine appears in."""
        return tuple(path.stem for path in self.images)

    def truth(self) -> PosedViews:
        """True poses of the images that have one, in float64, named by stem."""
        read = read_pose_folder(
            self.poses, self.stems, self.focal_px, allow_missing=True, dtype=torch.float64
        )
        return rows_of(read, (read.confidence > 0).nonzero()[:, 0])

    def write_list(self, path: Path) -> Path:
        """A text file that names the images, as the command line takes it."""
        path.write_text("".join(f"{image.resolve()}\n" for image in self.images), encoding="utf-8")
        return path


def read_set(folder: Path, list_name: str | None = None) -> TruthSet:
    """The set in a folder: the images that ``list_name`` lists by stem, or all without a list.

    ``InputError`` for a folder that is not laid out like this, or a listed image that does not exist.
    """
    facts_file = folder / "set.json"
    try:
        facts = json.loads(facts_file.read_text(encoding="utf-8"))
        focal_px = (float(facts["fx"]) + float(facts["fy"])) / 2
    except OSError as error:
        raise InputError(
            f"{facts_file}: cannot be read ({error.strerror}); is {folder} an image set?"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{facts_file}: not JSON with the focal lengths fx and fy ({error!r}).") from error
    images = files_of(folder / "images", IMAGE_SUFFIXES)
    if list_name is not None:
        images = _listed(folder / list_name, images)
    if len(images) < 2:
        raise InputError(f"{folder / 'images'}: {len(images)} image(s); at least 2 are needed.")
    unit = facts.get("unit", "arbitrary")
    return TruthSet(
        folder.name,
        tuple(images),
        folder / "poses",
        focal_px,
        UNIT_M.get(unit),
        facts.get("truth", "unknown"),
    )


def read_mapping_set(folder: Path) -> TruthSet:
    """The images of ``mapping.txt`` where the set has one, else all of them."""
    return read_set(folder, "mapping.txt" if (folder / "mapping.txt").is_file() else None)


def rows_of(views: PosedViews, rows: torch.Tensor) -> PosedViews:
    """The views at these positions."""
    pose = pp.SE3(torch.as_tensor(views.cam_from_world)[rows])
    names = tuple(views.names[row] for row in rows.tolist())
    return PosedViews(names, pose, views.focal_px[rows], views.confidence[rows])


def named_by_stem(views: PosedViews) -> PosedViews:
    """The same views under the stems of their paths."""
    names = tuple(Path(name).stem for name in views.names)
    return PosedViews(names, views.cam_from_world, views.focal_px, views.confidence)


def _listed(list_file: Path, images: Sequence[Path]) -> list[Path]:
    try:
        lines = list_file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{list_file}: cannot be read ({error.strerror}).") from error
    by_stem = {image.stem: image for image in images}
    stems = [line.strip() for line in lines if line.strip()]
    absent = [stem for stem in stems if stem not in by_stem]
    if absent:
        raise InputError(f"{list_file}: there is no image {absent[0]} in {list_file.parent / 'images'}.")
    return [by_stem[stem] for stem in stems]
