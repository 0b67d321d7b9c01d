"""The comparison of pose refinements: what is disturbed, how errors are told, and that every row stands for a run."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from reference.analytic_world import make_world

from acezero_gpu.cli.settings import Settings, resolve_settings
from acezero_gpu.data import PosedViews
from acezero_gpu.geometry import camera_centres, retract, rotation_angle_deg, se3_from_matrix
from acezero_gpu.mapping import PoseRefinementConfig
from acezero_gpu.network import HeadConfig
from acezero_gpu.runtime import InputError
from benchmarks.pose_refinement_table import GIVEN, SHIFT_SHARE, TURN_DEG, pose_refinement_table
from benchmarks.records import Record
from benchmarks.timing import environment
from benchmarks.workloads import pose_refinement as workload
from benchmarks.workloads.pose_refinement import (
    DISTURBANCES,
    EXTENT,
    VARIANTS,
    Effort,
    PosedSet,
    chosen_names,
    disturbed,
    pose_figures,
    refine_and_measure,
    thinned,
)

UNIT = 0.25
DEPTH = 6.0


class Call(NamedTuple):
    """What a round was asked for."""

    name: str
    start: torch.Tensor
    steps: int
    seed: int
    head: object


@pytest.fixture
def posed() -> PosedSet:
    """A set whose truth has a unit four times that of the mapping."""
    world = make_world(views=10)
    truth = world.cam_from_world.double().clone()
    truth[..., 3] /= UNIT
    names = tuple(f"img_{row:02d}" for row in range(len(world)))
    views = PosedViews(names, se3_from_matrix(truth), torch.full((10,), 500.0), torch.full((10,), math.inf))
    rows = torch.arange(len(world))
    return PosedSet("ball", world.buffer(), rows, views, world.cam_from_world, world.camera, 1.0, UNIT, 0.01)


@pytest.fixture
def settings() -> Settings:
    settings = resolve_settings("cpu", "fast", None, {}, None)
    training = replace(
        settings.config.loop.training, head=HeadConfig(width=32, blocks=0), batch_size=256, report_every=10
    )
    loop = replace(settings.config.loop, training=training)
    return replace(settings, config=replace(settings.config, loop=loop))


@pytest.mark.parametrize("kind", DISTURBANCES)
@pytest.mark.parametrize("count", [11, 400])
def test_disturbances_have_unit_size(kind, count):
    sizes = [
        DISTURBANCES[kind](count, torch.Generator().manual_seed(seed)).unflatten(1, (2, 3)).square().sum(-1).mean(0)
        for seed in range(40)
    ]  # fmt: skip
    torch.testing.assert_close(
        torch.stack(sizes).mean(0), torch.ones(2, dtype=torch.float64), rtol=0.1, atol=0
    )


def test_neighbours_drift_alike_and_are_independent_otherwise():
    def step(kind: str) -> float:
        rows = DISTURBANCES[kind](400, torch.Generator().manual_seed(0))
        return float((rows[1:] - rows[:-1]).square().sum(-1).mean())

    assert step("drift") < 0.2 < 3 < step("independent")


def test_true_poses_are_disturbed_by_shares_of_depth_and_degrees(posed):
    poses = disturbed(posed, "independent", DEPTH, 3)
    turn = rotation_angle_deg(poses[..., :3], posed.cam_from_world[..., :3])
    assert float(turn.square().mean().sqrt()) == pytest.approx(TURN_DEG, rel=0.4)
    steps = DISTURBANCES["independent"](10, workload.random_stream(3, "disturbance", "independent")).float()
    size = torch.tensor([SHIFT_SHARE * DEPTH] * 3 + [math.radians(TURN_DEG)] * 3)
    torch.testing.assert_close(poses, retract(posed.cam_from_world, steps * size), atol=1e-5, rtol=0)
    assert not torch.equal(poses, disturbed(posed, "independent", DEPTH, 4))


def test_errors_are_those_after_alignment_in_the_unit_of_the_truth(posed):
    figures = pose_figures(posed, posed.cam_from_world, DEPTH)
    assert figures["median_rotation_deg"] < 1e-3 and figures["median_translation"] < 1e-3
    assert figures["scale"] == pytest.approx(1, abs=1e-4)
    shrunk = posed.cam_from_world.clone()
    shrunk[..., 3] *= 0.5
    figures = pose_figures(posed, shrunk, DEPTH)
    assert figures["median_translation"] < 1e-3 and figures["scale"] == pytest.approx(2, abs=1e-4)
    step = torch.tensor([0.0, 0.08, 0.0, 0.0, 0.0, 0.02]).repeat(10, 1)
    step[::2] *= -1
    poses = retract(posed.cam_from_world, step)
    moved = (camera_centres(poses) - camera_centres(posed.cam_from_world)).norm(dim=-1).max()
    figures = pose_figures(posed, poses, DEPTH)
    assert 0.04 < figures["median_translation"] * UNIT < float(moved)
    assert figures["median_translation_depths"] == pytest.approx(figures["median_translation"] * UNIT / DEPTH)
    assert 0.5 < figures["median_rotation_deg"] < 1.5 * math.degrees(0.02)


def test_kinds_differ_in_what_they_are_named_after():
    given = PoseRefinementConfig(lr=0.5, wait=7)
    configs = {name: change(given) for name, change in VARIANTS.items()}
    assert [config.name for config in configs.values()] == ["none", "naive", "mlp", "mlp", "lm", "mlp+lm"]
    assert [name for name, config in configs.items() if not config.zero_initialised] == ["mlp, random start"]
    assert all((config.lr, config.wait) == (0.5, 7) for config in configs.values())


def test_every_kind_gets_a_row_from_the_same_start(tmp_path, monkeypatch, posed, settings):
    starts = []
    plain = workload.train_map

    def listening(buffer, table, config, *, generator, initial_head):
        steps, seed = config.schedule.iterations, generator.initial_seed()
        starts.append(Call(config.poses.name, table.cam_from_world, steps, seed, initial_head))
        if config.poses.name == "naive":
            raise FloatingPointError("the mapping loss is not finite")
        return plain(buffer, table, config, generator=generator, initial_head=initial_head)

    monkeypatch.setattr(workload, "train_map", listening)
    monkeypatch.setattr(workload, "read_posed_set", lambda *_: posed)
    head = {"kind": "pose-refinement", "command": "python -m benchmarks pose-refinement", "preset": "fast"}
    head["environment"] = environment(torch.device("cpu"))
    record = Record(tmp_path / "r.json", head, pose_refinement_table, overwrite=False)
    assert not refine_and_measure(
        [posed], settings, Effort(40, 20), ["drift"], ["none", "naive", "mlp+lm"], record
    )

    depth, base, *rest = starts
    assert (depth.name, base.name) == ("none", "none") and torch.equal(depth.start, posed.cam_from_world)
    assert (depth.steps, base.steps, base.head) == (20, 40, None)
    assert [call.name for call in rest] == ["none", "naive", "mlp+lm"]
    assert all(torch.equal(call.start, base.start) and call.seed == base.seed for call in rest)
    assert all(call.head is rest[0].head is not None and call.steps == 20 for call in rest)
    rows = json.loads((tmp_path / "r.json").read_text())["rows"]
    assert [row["variant"] for row in rows] == [GIVEN, "none", "naive", "mlp+lm"]
    given, none, naive, _ = rows
    assert none["median_rotation_deg"] == pytest.approx(given["median_rotation_deg"])
    assert naive["median_rotation_deg"] is None and "not finite" in naive["failure"]
    table = (tmp_path / "r.md").read_text()
    assert "| ball | drift | mlp+lm |" in table and "- ball, naive: the mapping loss is not finite" in table


def test_a_large_set_is_thinned_evenly(tmp_path):
    from benchmark_sets import write_set

    from benchmarks.image_sets import read_set

    write_set(tmp_path / "ring", 9)
    whole = read_set(tmp_path / "ring")
    assert thinned(whole, 3).stems == ("img_00", "img_04", "img_08") == thinned(whole, 3).truth().names
    assert thinned(whole, 9) == whole == thinned(whole, 40)


def test_names_are_chosen_or_refused():
    assert chosen_names("all", list(VARIANTS), "--variants") == list(VARIANTS)
    assert chosen_names("lm; mlp, random start", list(VARIANTS), "--variants") == ["lm", "mlp, random start"]
    for wrong in ("lmm", ";", "lm;x"):
        with pytest.raises(InputError, match="--variants"):
            chosen_names(wrong, list(VARIANTS), "--variants")


def test_a_set_is_scaled_and_cameras_without_extent_are_refused(tmp_path, settings):
    from benchmark_sets import write_set

    from benchmarks.image_sets import read_set

    write_set(tmp_path / "ring", 4, width=64, height=48)
    _bigger(tmp_path / "ring")
    bank = replace(settings.config.bank, shortest_side_px=48)
    settings = replace(settings, config=replace(settings.config, bank=bank))
    posed = workload.read_posed_set(read_set(tmp_path / "ring"), settings)
    centres = camera_centres(posed.cam_from_world)
    assert 2 * float((centres - centres.mean(0)).norm(dim=-1).max()) == pytest.approx(EXTENT, rel=1e-4)
    torch.testing.assert_close(
        camera_centres(posed.truth.matrices) * posed.unit, centres.double(), atol=1e-5, rtol=0
    )
    assert len(posed.buffer.missing(posed.frames)) == 0 and posed.unit_m == 0.001
    for file in (tmp_path / "ring" / "poses").iterdir():
        file.write_text("1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n")
    with pytest.raises(InputError, match="one place"):
        workload.read_posed_set(read_set(tmp_path / "ring"), settings)


def _bigger(folder: Path) -> None:
    """Pictures that the encoder takes: the blank ones of the set are too small for it."""
    from PIL import Image

    for file in (folder / "images").iterdir():
        Image.effect_noise((64, 48), 60).save(file)
