"""A published experiment as a TOML file: which images, what is given, and the figures that were published."""

import tomllib
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

from acezero_gpu.runtime import InputError

ImageChoice = Literal["all", "mapping"]
FocalChoice = Literal["guess", "start", "fixed"]


@dataclass(frozen=True, slots=True)
class Experiment:
    """One row of a published table, or several of the same protocol."""

    title: str
    dataset: str
    """Name of the data set for ``acezero dataset``."""
    scenes: tuple[str, ...]
    """Folders below the data, one image set each."""
    source: str
    """Where the published figures stand."""
    images: ImageChoice = "all"
    """Reconstruct all images of a scene, or those of its ``mapping.txt``."""
    relocalise: bool = False
    """Also register the images of ``query.txt`` in the map."""
    focal: FocalChoice = "guess"
    """Whether the focal length of ``set.json`` is unknown, where the reconstruction starts from, or kept."""
    settings: tuple[str, ...] = ()
    """As ``--set`` takes them."""
    published: dict[str, float] = field(default_factory=dict)
    """Figures of the publication, means over the scenes, by their names there."""
    note: str = ""
    """What differs from the publication's protocol."""


def read_experiment(path: Path) -> Experiment:
    """``InputError``, naming the file, for one that cannot be read, lacks a key, or has one that is not known."""
    try:
        values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid TOML ({error}).") from error
    known = {item.name for item in fields(Experiment)}
    if unknown := sorted(values.keys() - known):
        raise InputError(f"{path}: there is no key {unknown[0]}; there are {', '.join(sorted(known))}.")
    for key in ("title", "dataset", "scenes", "source"):
        if not values.get(key):
            raise InputError(f"{path}: the key {key} is missing.")
    for key, choices in (("images", get_args(ImageChoice)), ("focal", get_args(FocalChoice))):
        if values.get(key, choices[0]) not in choices:
            raise InputError(f"{path}: {key} must be one of {', '.join(choices)}, not {values[key]!r}.")
    for key in ("scenes", "settings"):
        given = values.get(key, [])
        if not isinstance(given, list) or not all(isinstance(item, str) for item in given):
            raise InputError(f"{path}: {key} must be a list of strings.")
        values[key] = tuple(given)
    figures = values.get("published", {})
    if not isinstance(figures, dict) or not all(isinstance(item, int | float) for item in figures.values()):
        raise InputError(f"{path}: published must be a table of numbers.")
    return Experiment(**values)
