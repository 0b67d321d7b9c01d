"""Settings: every one can be written, read back and set, and nothing unknown or ill-typed gets in."""

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch

from acezero_gpu.config import (
    ReconstructionConfig,
    as_toml,
    load_config,
    preset,
    preset_for,
    setting_names,
    with_override,
)
from acezero_gpu.runtime import InputError

PRESETS = ("fast", "default", "quality")
NAMES = setting_names(preset("default"))
OTHER_WORDS = {
    "bank.orientation.upright": "no",
    "loop.training.optimiser": "adamw",
    "bank.buffer.device": "cpu",
    "bank.keypoints.library": "kornia",
    "loop.joint.when": "off",
    "loop.training.loss.name": "l1",
    "loop.training.poses.name": "naive",
    "loop.registration.ransac.score": "count",
}
"""Settings that are one of a few words, with one of them; those without an entry take the words below."""


def value_of(config: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        config = getattr(config, part)
    return config


OTHER_NUMBERS = {
    "loop.registration.ransac.confidence": "0.5",
    "loop.registration.ransac.max_chunk_bytes": "100000",
    "loop.training.poses.reestimation.trust": "0.5",
}
"""Where not every number will do."""


def other_value(config: ReconstructionConfig, dotted: str) -> str:
    """Another value that the setting takes, as it is written behind the equals sign."""
    value = value_of(config, dotted)
    if dotted in OTHER_NUMBERS:
        return OTHER_NUMBERS[dotted]
    if isinstance(value, bool):
        return "false" if value else "true"
    if isinstance(value, int | float):
        return str(value + 1)
    if value is None:
        return "3.5"
    if isinstance(value, tuple):
        return "[1, 2]"
    if dotted in OTHER_WORDS:
        return OTHER_WORDS[dotted]
    if dotted.endswith("schedule.name"):
        return "constant" if value != "constant" else "circle"
    if dotted.endswith(("loss", "polish_loss")):
        return "huber" if value != "huber" else "cauchy"
    return "another"


@pytest.fixture
def write(tmp_path: Path):
    def written(text: str) -> Path:
        path = tmp_path / "settings.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return written


@pytest.mark.parametrize("name", PRESETS)
def test_what_is_written_reads_back(write, name):
    config = preset(name)
    for start in (config, preset("default")):
        assert load_config(write(as_toml(config)), start) == config


@pytest.mark.parametrize("dotted", NAMES)
def test_every_setting_can_be_set_and_changes_itself_alone(write, dotted):
    config = preset("default")
    text = other_value(config, dotted)
    changed = with_override(config, f"{dotted}={text}")
    assert value_of(changed, dotted) != value_of(config, dotted)
    assert [n for n in NAMES if value_of(changed, n) != value_of(config, n)] == [dotted]
    assert load_config(write(as_toml(changed)), config) == changed


def test_names_are_those_of_the_file():
    """Except for settings of None, which TOML cannot write."""

    def keys(tree: dict, prefix: str = "") -> list[str]:
        return [
            name
            for key, value in tree.items()
            for name in (keys(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}"])
        ]

    config = preset("default")
    written = keys(tomllib.loads(as_toml(config)))
    assert sorted(written) == sorted(name for name in NAMES if value_of(config, name) is not None)
    assert len(set(NAMES)) == len(NAMES) > 60


def test_every_setting_has_a_sentence():
    """Fields that are sections may go without: their own class says what they are."""
    import ast
    import inspect

    def undocumented(kind: type) -> list[str]:
        body = ast.parse(inspect.getsource(inspect.getmodule(kind))).body
        found = next(node for node in body if isinstance(node, ast.ClassDef) and node.name == kind.__name__)
        missing = []
        for node, after in zip(found.body, [*found.body[1:], None], strict=True):
            if isinstance(node, ast.AnnAssign):
                said = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                default = kind.__dataclass_fields__[node.target.id]
                section = default.default_factory is not dataclasses.MISSING
                missing += [] if said or section else [f"{kind.__name__}.{node.target.id}"]
        return missing

    def sections(config: Any) -> set[type]:
        inner = [getattr(config, item.name) for item in dataclasses.fields(config)]
        return {type(config)}.union(*(sections(x) for x in inner if dataclasses.is_dataclass(x)))

    assert [name for kind in sections(preset("default")) for name in undocumented(kind)] == []


def test_later_values_win(write):
    file = write("seed = 7\n[loop.seeds]\ntries = 2\n[bank]\nshortest_side_px = 300\n")
    config = load_config(file, preset("fast"))
    config = with_override(with_override(config, "loop.seeds.tries=3"), "loop.seeds.tries=4")
    assert (config.seed, config.loop.seeds.tries, config.bank.shortest_side_px) == (7, 4, 300)
    assert config.loop.growth_schedule == preset("fast").loop.growth_schedule


@pytest.mark.parametrize(
    "assignment, value",
    [
        ("loop.joint.when=off", "off"),
        ("loop.joint.when='off'", "off"),
        ("encoder=weights/encoder.pt", "weights/encoder.pt"),
        ("loop.seeds.median_depth=4", 4.0),
        ("loop.training.schedule.lr_max=1e-2", 0.01),
        ("loop.registration.ransac.polish_scale_px=2", 2.0),
        ("loop.fix_focal=true", True),
        ("loop.training.poses.name=mlp+lm", "mlp+lm"),
    ],
)
def test_values_are_toml_or_a_bare_word(assignment, value):
    found = value_of(with_override(preset("default"), assignment), assignment.partition("=")[0])
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "assignment, message",
    [
        ("loop.seeds.trys=3", "there is no setting loop.seeds.trys; did you mean loop.seeds.tries?"),
        ("lop.seeds.tries=3", "there is no setting lop"),
        ("tries=3", "there is no setting tries; did you mean loop.seeds.tries?"),
        ("loop.seeds=3", "loop.seeds is a section"),
        ("loop.seeds.tries=three", "loop.seeds.tries must be of type int, not 'three'"),
        ("loop.seeds.tries=3.5", "must be of type int"),
        ("loop.seeds.tries=true", "must be of type int"),
        ("loop.fix_focal=1", "must be of type bool"),
        ("loop.seeds.median_depth=true", "must be of type float"),
        ("loop.joint.when=never", "loop.joint.when must be one of off, final, every, not 'never'"),
        ("seed.x=1", "seed must be of type int"),
        ("loop.seeds.tries", "write section.key=value"),
        ("=3", "write section.key=value"),
        ("loop.registration.ransac.hypotheses=-1", "must not be negative"),
    ],
)
def test_a_wrong_override_is_refused_in_a_sentence(assignment, message):
    with pytest.raises(InputError) as caught:
        with_override(preset("default"), assignment)
    assert message in str(caught.value)
    assert f"--set {assignment}" in str(caught.value)


@pytest.mark.parametrize(
    "text, message",
    [
        ("[loop.seeds]\ntires = 3", "did you mean loop.seeds.tries?"),
        ("[lopp]\nx = 1", "there is no setting lopp"),
        ("seed = 'many'", "seed must be of type int"),
        ("loop = 3", "loop is a section"),
        ("seed = ", "not valid TOML"),
        ("[bank.buffer]\nmax_passes = [1, 2]", "max_passes must be of type int"),
    ],
)
def test_a_wrong_file_is_refused_in_a_sentence(write, text, message):
    path = write(text)
    with pytest.raises(InputError) as caught:
        load_config(path, preset("default"))
    assert message in str(caught.value)
    assert f"--config {path}" in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        load_config(tmp_path / "absent.toml", preset("default"))


def test_presets_differ_and_follow_the_device():
    assert len({as_toml(preset(name)) for name in PRESETS}) == 3
    assert preset_for(torch.device("cpu")) == "fast"
    assert preset_for(torch.device("cuda")) == "default"
    with pytest.raises(InputError, match="choose fast, default or quality"):
        preset("slow")


def test_the_default_preset_has_ace0s_figures():
    config = preset("default")
    loop, training = config.loop, config.loop.training
    assert config.bank.shortest_side_px == 480
    assert (config.bank.buffer.max_passes, config.bank.buffer.max_patches) == (10, 8_000_000)
    assert (config.bank.augmentation.max_scale, config.bank.augmentation.max_rotation_deg) == (1.5, 15.0)
    assert (loop.seed_schedule.iterations, loop.growth_schedule.iterations) == (10_000, 25_000)
    assert (loop.growth_schedule.lr_min, loop.growth_schedule.lr_max) == (0.0005, 0.003)
    assert (loop.growth_schedule.cooldown_iterations, loop.growth_schedule.cooldown_inlier_share) == (
        5000,
        0.7,
    )
    assert (loop.final_schedule.name, loop.final_schedule.lr_max, loop.final_pose_wait) == (
        "circle",
        0.005,
        5000,
    )
    assert (training.batch_size, training.head.width, training.head.blocks) == (5120, 512, 1)
    assert (training.loss.name, training.loss.soft_clamp_px, training.loss.hard_clamp_px) == (
        "tanh",
        50,
        1000,
    )
    assert (training.poses.name, training.poses.lr, training.calibration.lr) == ("mlp", 0.001, 0.001)
    assert (loop.registration.min_inlier_share, loop.registration.ransac.max_error_px) == (0.1, 10)
    assert (loop.stopping.registration_share, loop.stopping.relative_gain) == (0.99, 0.01)
    assert config.seed == 1305


@pytest.mark.parametrize(
    "settings, told",
    [
        (["loop.final_map.heads=0"], "final_map.heads must be 1 at least"),
        (["loop.final_map.width=-1"], "final_map.width must be 0 at least"),
        (["loop.training.loss.wide_clamp_px=-1.0"], "must be greater than 0"),
    ],
)
def test_heads_and_clamps_that_cannot_be_are_refused(settings, told):
    config = preset("fast")
    with pytest.raises(InputError, match=told):
        for setting in settings:
            config = with_override(config, setting)
