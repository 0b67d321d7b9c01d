"""Programs that turn pictures into poses: this one, and those it is compared with."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from acezero_gpu.cli.settings import Settings
from acezero_gpu.config import with_override
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
    """The systems of a comma-separated list; ``InputError`` for one that does not exist here.

    ``ours[KEY=VALUE;KEY=VALUE]`` is this program with other settings than those of the command.
    """
    chosen = [name.strip() for name in names.split(",") if name.strip()]
    kinds = [name.partition("[")[0] for name in chosen]
    unknown = [name for name, kind in zip(chosen, kinds, strict=True) if not _is_known(name, kind)]
    if unknown or not chosen:
        raise InputError(
            f"--systems {names}: choose from {', '.join(SYSTEMS)}, or ours[KEY=VALUE;...] for other settings."
        )
    if "pycolmap" in chosen and not pycolmap_mapper.is_installed():
        raise InputError(
            "--systems: pycolmap is not installed; pip install pycolmap, or give --systems ours."
        )
    return chosen


def settings_of(name: str, settings: Settings) -> Settings:
    """With what the system's name adds in brackets; ``InputError`` for a setting that does not exist."""
    config = settings.config
    for assignment in filter(None, name.removesuffix("]").partition("[")[2].split(";")):
        config = with_override(config, assignment)
    return replace(settings, config=config)


def run_system(name: str, truth_set: TruthSet, settings: Settings, folder: Path) -> SystemResult:
    """One system of ``chosen_systems`` on the pictures of a set."""
    return SYSTEMS[name.partition("[")[0]](truth_set, settings_of(name, settings), folder)


def _is_known(name: str, kind: str) -> bool:
    return name in SYSTEMS or (kind == "ours" and name.endswith("]"))
