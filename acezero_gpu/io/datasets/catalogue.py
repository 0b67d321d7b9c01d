"""Which data sets are known: their archives, their scenes, and how these are converted."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from acezero_gpu.io.archives import ARCHIVE_SUFFIXES, Progress, download, unpack
from acezero_gpu.io.datasets.image_set_folder import SceneFiles, write_scene
from acezero_gpu.io.datasets.indoor import seven_scenes, twelve_scenes
from acezero_gpu.io.datasets.outdoor import cambridge, mip360, tanks_and_temples
from acezero_gpu.runtime import InputError


@dataclass(frozen=True, slots=True)
class Dataset:
    """One published data set."""

    convert: Callable[[Path], SceneFiles]
    """From the unpacked folder of a scene."""
    is_scene: Callable[[Path], bool]
    """Whether a folder is one."""
    archives: tuple[str, ...]
    """File names of its archives."""
    url: str | None
    """Where they lie, if they can be fetched without asking anybody; ``{}`` is the archive's name."""
    page: str
    """Where a person finds them."""


DATASETS = {
    "7scenes": Dataset(
        seven_scenes,
        lambda folder: (folder / "TrainSplit.txt").is_file(),
        tuple(
            f"{scene}.zip"
            for scene in ("chess", "fire", "heads", "office", "pumpkin", "redkitchen", "stairs")
        ),
        "http://download.microsoft.com/download/2/8/5/28564B23-0828-408F-8631-23B1EFF1DAC8/{}",
        "https://www.microsoft.com/en-us/research/project/rgb-d-dataset-7-scenes/",
    ),
    "12scenes": Dataset(
        twelve_scenes,
        lambda folder: (folder / "split.txt").is_file(),
        ("apt1.zip", "apt2.zip", "office1.zip", "office2.zip"),
        "http://graphics.stanford.edu/projects/reloc/data/{}",
        "http://graphics.stanford.edu/projects/reloc/",
    ),
    "mip360": Dataset(
        mip360,
        lambda folder: (folder / "sparse").is_dir(),
        ("360_v2.zip",),
        "http://storage.googleapis.com/gresearch/refraw360/{}",
        "https://jonbarron.info/mipnerf360/",
    ),
    "tanks-and-temples": Dataset(
        tanks_and_temples,
        lambda folder: any(folder.glob("*.jpg")) or any(folder.glob("*.png")),
        ("training.zip", "intermediate.zip", "advanced.zip"),
        None,
        "https://www.tanksandtemples.org/download/",
    ),
    "cambridge": Dataset(
        cambridge,
        lambda folder: (folder / "dataset_train.txt").is_file(),
        tuple(
            f"{scene}.zip"
            for scene in ("GreatCourt", "KingsCollege", "OldHospital", "ShopFacade", "StMarysChurch")
        ),
        None,
        "https://www.repository.cam.ac.uk/ (search for the scene's name and Cambridge Landmarks)",
    ),
}


@dataclass(frozen=True, slots=True)
class Prepared:
    """One scene that is ready."""

    folder: Path
    images: int
    posed: int
    mapping: int
    queries: int


def fetch(dataset: Dataset, folder: Path, archives: list[str], progress: Callable[[str], Progress]) -> None:
    """Download those archives that are not there yet. ``InputError`` if this set has to be fetched by hand."""
    if dataset.url is None:
        raise InputError(f"--download: this set has to be fetched by hand, from {dataset.page}, to {folder}.")
    for name in archives:
        if not (folder / name).is_file():
            download(dataset.url.format(name), folder / name, progress(name))


def prepare(dataset: Dataset, folder: Path, archives: list[str]) -> Iterator[Prepared]:
    """Unpack the archives in ``folder`` and convert their scenes, each to a folder of its own beside them.

    Archives stay. ``InputError`` if none is there, for a damaged or unsafe archive, and for a scene whose files are
    not laid out as published.
    """
    present = [folder / name for name in archives if (folder / name).is_file()]
    if not present:
        raise InputError(
            f"{folder}: none of {', '.join(archives)} is there; fetch them from {dataset.page}"
            + (", or give --download." if dataset.url else ".")
        )
    for archive in present:
        unpacked = folder / f".{_stem(archive)}.unpacked"
        unpack(archive, unpacked)
        try:
            _unpack_nested(unpacked)
            found = 0
            for scene in _scene_folders(dataset, unpacked):
                found += 1
                yield _convert(dataset, scene, folder / _scene_name(scene, unpacked, archive))
            if not found:
                raise InputError(f"{archive}: holds no scene that is laid out as published.")
        finally:
            shutil.rmtree(unpacked, ignore_errors=True)


def _unpack_nested(folder: Path) -> None:
    """Archives inside, each to a folder of its name."""
    for archive in sorted(folder.rglob("*.zip")):
        unpack(archive, archive.with_suffix(""))
        archive.unlink()


def _convert(dataset: Dataset, scene: Path, target: Path) -> Prepared:
    files = dataset.convert(scene)
    images = write_scene(target, files)
    return Prepared(target, images, len(files.world_from_cam), len(files.mapping), len(files.queries))


def _scene_folders(dataset: Dataset, unpacked: Path) -> list[Path]:
    """Folders that are scenes, none of them inside another."""
    scenes: list[Path] = []
    for folder in [unpacked, *sorted(path for path in unpacked.rglob("*") if path.is_dir())]:
        if not any(scene in folder.parents for scene in scenes) and dataset.is_scene(folder):
            scenes.append(folder)
    return scenes


def _scene_name(scene: Path, unpacked: Path, archive: Path) -> str:
    """``apt1_kitchen`` for a scene below a folder of the archive; a folder inside one of its name counts once."""
    every = scene.relative_to(unpacked).parts
    parts = [part for row, part in enumerate(every) if row == 0 or part != every[row - 1]]
    return "_".join(parts) if parts else _stem(archive)


def _stem(archive: Path) -> str:
    return next(
        (
            archive.name[: -len(end)]
            for end in sorted(ARCHIVE_SUFFIXES, key=len, reverse=True)
            if archive.name.endswith(end)
        ),
        archive.name,
    )
