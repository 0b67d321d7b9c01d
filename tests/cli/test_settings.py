"""Which of several sources decides a setting."""

from pathlib import Path

import pytest
import torch
from cli_calls import Call

from acezero_gpu.cli.map import MAP_DEFAULTS
from acezero_gpu.cli.memory_size import memory_bytes
from acezero_gpu.cli.settings import resolve_settings
from acezero_gpu.config import preset


def test_later_sources_win(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("seed = 2\n[loop.seeds]\ntries = 7\n[loop.joint]\nwhen = 'off'\n")
    flags = {"seed": 3, "loop.joint.when": "every", "encoder": None}
    settings = resolve_settings("cpu", "fast", file, flags, ["seed=4"])
    config = settings.config
    assert config.loop.seeds.tries == 7  # the file, over the preset
    assert config.loop.joint.when == "every"  # the flag, over the file
    assert config.seed == 4  # --set, over the flag
    assert config.encoder == preset("fast").encoder  # a flag that was not given changes nothing
    assert config.bank == preset("fast").bank


def test_the_last_of_two_overrides_wins() -> None:
    assert resolve_settings("cpu", "fast", None, {}, ["seed=4", "seed=5"]).config.seed == 5


def test_what_a_command_prefers_yields_to_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("[loop.training.poses]\nname = 'naive'\n")
    plain = resolve_settings("cpu", "fast", None, {}, None, command_defaults=MAP_DEFAULTS)
    assert plain.config.loop.training.poses.name == "none"
    assert plain.config.loop.training.loss.name == "dyntanh"
    filed = resolve_settings("cpu", "fast", file, {}, None, command_defaults=MAP_DEFAULTS)
    assert filed.config.loop.training.poses.name == "naive"
    assert filed.config.loop.training.loss.name == "dyntanh"


@pytest.mark.parametrize("path", ["C:\\weights\\encoder.pt", "123", "true", 'a "quoted" name.pt', "Küche.pt"])
def test_text_flags_stay_text(path: str) -> None:
    """A file name that looks like a number, or that TOML would unescape, is taken as it stands."""
    assert resolve_settings("cpu", "fast", None, {"encoder": path}, None).config.encoder == path


def test_auto_follows_the_device(device: torch.device) -> None:
    settings = resolve_settings(device.type, "auto", None, {}, None)
    assert settings.device.type == device.type
    assert settings.preset == {"cpu": "fast", "cuda": "default"}[device.type]
    assert settings.config == preset(settings.preset)


@pytest.mark.parametrize(
    ("text", "size"),
    [("6GB", 6 * 10**9), ("512MiB", 2**29), ("1.5g", 15 * 10**8), ("100 kB", 10**5), ("1TiB", 2**40)],
)
def test_sizes_of_memory(text: str, size: int) -> None:
    assert memory_bytes(text, "--memory-budget") == size


@pytest.mark.parametrize("text", ["6", "0GB", "-1GB", "lots", "6 GBit", ""])
def test_what_is_no_size_of_memory(call: Call, text: str) -> None:
    said = call("reconstruct", "nowhere", "out", "--memory-budget", text)
    assert said.code == 2
    assert said.sentence.startswith(f"--memory-budget {text}: give a size above zero with its unit")
