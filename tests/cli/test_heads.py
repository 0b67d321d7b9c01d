"""Maps of several heads: one small room, each half of it learnt by a head of its own."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from cli_calls import Call
from reference.tiny_settings import tiny_flags

from acezero_gpu.cli import main
from acezero_gpu.data.synthetic import write_dataset
from acezero_gpu.network import SceneMap

IMAGES, TRUE_FOCAL_PX = 34, 128.0
FLAGS = tiny_flags("loop.final_schedule.iterations=500")


@dataclass(frozen=True)
class Mapped:
    """The pictures with their truth, and the map of them that was asked for."""

    data: Path
    out: Path
    code: int


@pytest.fixture(scope="module")
def mapped(tmp_path_factory: pytest.TempPathFactory) -> Mapped:
    """Three heads are asked for, which so few pictures cannot teach."""
    data = tmp_path_factory.mktemp("room")
    write_dataset(data, IMAGES, 160, 120, texels_per_m=110)
    out = data / "mapped"
    known = ["--poses", str(data / "poses"), "--focal-px", str(TRUE_FOCAL_PX)]
    return Mapped(data, out, main(["map", str(data / "images"), str(out), *known, "--heads", "3", *FLAGS]))


def test_as_many_heads_are_trained_as_there_are_pictures_for(mapped: Mapped) -> None:
    assert mapped.code == 0
    assert SceneMap.load(mapped.out / "map.safetensors").head.count == 2
    assert f"{IMAGES} images teach 2 heads, 16 at least for each" in (mapped.out / "log.txt").read_text()


def test_pictures_are_registered_by_whichever_head_knows_them(
    mapped: Mapped, call: Call, tmp_path: Path
) -> None:
    said = call("register", mapped.data / "images", mapped.out, tmp_path / "found", "--device", "cpu")
    assert said.code == 0, said.err
    found = tmp_path / "found" / "poses.txt"
    flags = ["--no-align", "--json", "--threshold", "20cm/10deg"]
    figures = json.loads(call("evaluate", found, mapped.data / "poses", *flags).out)
    assert figures["accuracy"]["20cm_10deg"] > 0.6


def test_a_map_of_several_heads_is_a_start(mapped: Mapped, call: Call, tmp_path: Path) -> None:
    flags = [*tiny_flags("loop.final_schedule.iterations=10"), "--heads", "2", "--no-report"]
    out = tmp_path / "again"
    said = call("reconstruct", mapped.data / "images", out, "--seed-map", mapped.out, *flags)
    assert said.code == 0, said.err
    summary = json.loads((out / "summary.json").read_text())
    assert summary["registered"] == IMAGES
    assert SceneMap.load(out / f"map_{summary['iterations']}.safetensors").head.count == 2


@pytest.mark.parametrize("heads", ["0", "many"])
def test_a_number_of_heads_that_is_none_is_refused(
    call: Call, mapped: Mapped, tmp_path: Path, heads: str
) -> None:
    said = call(
        "map", mapped.data / "images", tmp_path / "out", "--poses", mapped.data / "poses", "--heads", heads
    )
    assert said.code == 2
    assert "--heads" in said.err
    assert not (tmp_path / "out").exists()
