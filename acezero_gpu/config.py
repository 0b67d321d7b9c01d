"""One tree of settings for a whole run: strict TOML in and out, ``section.key=value`` overrides, presets."""

import dataclasses
import difflib
import tomllib
import types
import typing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import tomli_w
import torch

from acezero_gpu.mapping import BufferConfig, ScheduleConfig
from acezero_gpu.network import HeadConfig
from acezero_gpu.reconstruction import BankConfig, FinalMapConfig, LoopConfig
from acezero_gpu.runtime import InputError

PresetName = Literal["fast", "default", "quality"]
Tree = TypeVar("Tree")


@dataclass(frozen=True, slots=True)
class ReconstructionConfig:
    """Everything that a run depends on, beside its images and its device."""

    encoder: str = "dense-sift"
    """``acezero``, ``dense-sift``, or the path of an encoder's weights."""
    seed: int = 1305
    """Start of all random streams; the same seed gives the same result."""
    bank: BankConfig = field(default_factory=BankConfig)
    """Resolution, features, training patches, keypoints."""
    loop: LoopConfig = field(default_factory=LoopConfig)
    """Seeds, rounds of mapping and registration, adjustment, stopping."""


def preset(name: str) -> ReconstructionConfig:
    """``default`` has ACE0's figures; ``fast`` is made for a few CPU cores, ``quality`` for patience."""
    if name == "default":
        return ReconstructionConfig()
    if name == "fast":
        return _fast()
    if name == "quality":
        config = ReconstructionConfig()
        loop = replace(
            config.loop, training=replace(config.loop.training, head=HeadConfig(width=512, blocks=2))
        )
        return replace(config, loop=loop)
    raise InputError(f"--preset {name}: choose fast, default or quality.")


def preset_for(device: torch.device) -> PresetName:
    """What the device carries: ``default`` on a GPU, ``fast`` on a CPU."""
    return "default" if device.type == "cuda" else "fast"


def _fast() -> ReconstructionConfig:
    """Half the resolution, half the head's width, a twenty-fifth or less of the steps, fewer with few images."""
    config = ReconstructionConfig()
    short = ScheduleConfig(
        iterations=500, lr_min=0.0005, lr_max=0.004, warmup_iterations=25, cooldown_iterations=150
    )
    training = replace(config.loop.training, head=HeadConfig(width=256), batch_size=2048)
    loop = replace(
        config.loop,
        training=training,
        seeds=replace(config.loop.seeds, mapped_tries=1),
        seed_schedule=replace(short, iterations=400, cooldown_iterations=130),
        growth_schedule=short,
        final_schedule=ScheduleConfig(name="circle", iterations=1000, lr_max=0.005, max_epochs=20),
        final_map=FinalMapConfig(heads=16, width=128, batch_size=1024, full_batches=4, encoder="dense-sift"),
        final_pose_wait=200,
    )
    bank = replace(
        config.bank, shortest_side_px=240, buffer=BufferConfig(max_passes=5, max_patches=2_000_000)
    )
    return replace(config, bank=bank, loop=loop)


def load_config(path: Path, base: ReconstructionConfig) -> ReconstructionConfig:
    """``base`` with the values of a TOML file; unknown keys and wrong types are ``InputError``."""
    try:
        with path.open("rb") as file:
            values = tomllib.load(file)
    except OSError as error:
        raise InputError(f"--config {path}: cannot be read ({error.strerror}).") from error
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"--config {path}: not valid TOML ({error}).") from error
    return _updated(base, values, f"--config {path}", "")


def with_override(config: Tree, assignment: str) -> Tree:
    """Any tree of settings with one ``section.key=value``; the value is TOML, or a bare word for a string."""
    key, equals, text = assignment.partition("=")
    source = f"--set {assignment}"
    if not equals or not key:
        raise InputError(f"{source}: write section.key=value.")
    try:
        value: Any = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    tree: dict[str, Any] = {}
    node = tree
    *sections, last = key.split(".")
    for section in sections:
        node = node.setdefault(section, {})
    node[last] = value
    return _updated(config, tree, source, "")


def as_toml(config: ReconstructionConfig) -> str:
    """All settings, as ``load_config`` reads them back; a setting of None is left out, as TOML has no such value."""
    return tomli_w.dumps(_without_none(dataclasses.asdict(config)))


def _without_none(tree: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, dict) else value
        for key, value in tree.items()
        if value is not None
    }


def setting_names(config: Any, prefix: str = "") -> list[str]:
    """Every key that ``with_override`` takes, dotted."""
    names = []
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        dotted = f"{prefix}{item.name}"
        names += setting_names(value, dotted + ".") if dataclasses.is_dataclass(value) else [dotted]
    return names


def _updated(config: Any, values: dict[str, Any], source: str, prefix: str) -> Any:
    hints = typing.get_type_hints(type(config))
    changes: dict[str, Any] = {}
    for key, value in values.items():
        dotted = f"{prefix}{key}"
        if key not in hints:
            raise InputError(f"{source}: there is no setting {dotted}{_nearest(dotted, config, prefix)}.")
        current = getattr(config, key)
        if dataclasses.is_dataclass(current):
            if not isinstance(value, dict):
                raise InputError(
                    f"{source}: {dotted} is a section; set one of its keys, as {dotted}.key=value."
                )
            changes[key] = _updated(current, value, source, dotted + ".")
        else:
            changes[key] = _converted(value, hints[key], source, dotted)
    try:
        return replace(config, **changes)
    except ValueError as error:  # a section that knows impossible values
        raise InputError(f"{source}: {error}") from error


def _nearest(dotted: str, config: Any, prefix: str) -> str:
    names = setting_names(config, prefix)
    last = {name.rsplit(".", 1)[-1]: name for name in names}
    found = difflib.get_close_matches(dotted, names, n=1, cutoff=0.6)
    found = found or [last[key] for key in difflib.get_close_matches(dotted.rsplit(".", 1)[-1], last, n=1)]
    return f"; did you mean {found[0]}?" if found else ""


def _converted(value: Any, hint: Any, source: str, dotted: str) -> Any:
    """``value`` if it has the type of the setting; whole numbers pass as floats, lists as tuples."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Literal:
        if value in arguments:
            return value
        raise InputError(
            f"{source}: {dotted} must be one of {', '.join(map(str, arguments))}, not {value!r}."
        )
    if origin is tuple and isinstance(value, list):
        kinds = arguments[:1] * len(value) if arguments[1:] == (...,) else arguments
        if len(kinds) == len(value):
            return tuple(_converted(v, k, source, dotted) for v, k in zip(value, kinds, strict=True))
    if isinstance(hint, types.UnionType):
        for kind in arguments:
            try:
                return _converted(value, kind, source, dotted)
            except InputError:
                continue
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(hint, type) and type(value) is hint:
        return value
    name = getattr(hint, "__name__", str(hint))
    raise InputError(f"{source}: {dotted} must be of type {name}, not {value!r}.")
