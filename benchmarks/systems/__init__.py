"""Programs that turn pictures into poses: this one, and those it is compared with."""

from collections.abc import Callable
from pathlib import Path

from acezero_gpu.cli.settings import Settings
from acezero_gpu.runtime import InputError
from benchmarks.image_sets import TruthSet
from benchmarks.metrics import SystemResult
from benchmarks.systems import ours, pycolmap_mapper

Reconstructor = Callable[[TruthSet, Settings, Path], SystemResult]
"""Poses from the pictures of a set alone; files go into the folder. A failure is a result, no exception."""

SYSTEMS: dict[str, Reconstructor] = {
    "ours": ours.reconstruct_set,
    "pycolmap": pycolmap_mapper.reconstruct_set,
}


def chosen_systems(names: str) -> list[str]:
    """The systems of a comma-separated list; ``InputError`` for one that does not exist here."""
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    unknown = [name for name in chosen if name not in SYSTEMS]
    if unknown or not chosen:
        raise InputError(f"--systems {names}: choose from {', '.join(SYSTEMS)}.")
    if "pycolmap" in chosen and not pycolmap_mapper.is_installed():
        raise InputError(
            "--systems: pycolmap is not installed; pip install pycolmap, or give --systems ours."
        )
    return chosen
