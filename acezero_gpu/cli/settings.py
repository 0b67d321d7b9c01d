"""From flags to settings: preset < command < config file < flags < ``--set``."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from acezero_gpu.cli.failure import as_input_error
from acezero_gpu.config import (
    PresetName,
    ReconstructionConfig,
    load_config,
    preset,
    preset_for,
    with_override,
)
from acezero_gpu.reconstruction import FinalMapConfig
from acezero_gpu.runtime import resolve_device
from acezero_gpu.runtime.distributed import ALONE, Ranks

Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Settings:
    """All that a run depends on, beside its files."""

    config: ReconstructionConfig
    """With presets, file and flags applied."""
    device: torch.device
    """Where tensors live."""
    preset: PresetName
    """What ``auto`` came to, or what was asked for."""
    ranks: Ranks = ALONE
    """The processes that share the work."""


def resolve_settings(
    device: str,
    preset_choice: str,
    config_file: Path | None,
    flags: Mapping[str, Value | None],
    overrides: Sequence[str] | None,
    *,
    command_defaults: Mapping[str, Value] | None = None,
) -> Settings:
    """Later sources win; a flag that is None was not given.

    ``command_defaults`` are what a command does differently from the preset when nobody says otherwise.
    Raises ``InputError`` with one sentence.
    """
    with as_input_error():
        place = resolve_device(device)
    name = preset_for(place) if preset_choice == "auto" else preset_choice
    config = preset(name)
    for key, value in (command_defaults or {}).items():
        config = with_override(config, _assignment(key, value))
    if config_file is not None:
        config = load_config(config_file, config)
    for key, given in flags.items():
        if given is not None:
            config = with_override(config, _assignment(key, given))
    for assignment in overrides or ():
        config = with_override(config, assignment)
    return Settings(config, place, name)  # type: ignore[arg-type]


def heads_flags(heads: int | None) -> dict[str, Value | None]:
    """What ``--heads`` sets: so many heads wherever that many can be taught, whatever the preset says of them."""
    least = FinalMapConfig().views_per_head
    return {
        "loop.final_map.heads": heads,
        "loop.final_map.views_per_head": None if heads is None else least,
        "loop.final_map.encoder": None if heads is None else "",
    }


def _assignment(key: str, value: Value) -> str:
    # JSON's strings, numbers and booleans are TOML's as well.
    return f"{key}={json.dumps(value, ensure_ascii=False)}"
