"""The encoder benchmark: pairs that share what depth says they share, and a table of both parts."""

import json
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from acezero_gpu.data.depth import find_depth_files
from acezero_gpu.data.synthetic import write_dataset
from benchmarks.__main__ import main
from benchmarks.image_sets import TruthSet, read_mapping_set
from benchmarks.workloads.encoder import frame_pairs

SIZE = (120, 160)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_dataset(folder / "room", 6, SIZE[1], SIZE[0], suffix=".png", texels_per_m=60)
    return folder


@pytest.fixture(scope="module")
def room(data: Path) -> TruthSet:
    return read_mapping_set(data / "room")


def test_matches_show_the_same_colour(data, room):
    pairs = frame_pairs(room, find_depth_files(data / "room" / "depth", room.stems), SIZE, (5.0, 40.0), 6, 0)
    assert len(pairs) == 6
    images = [torch.from_numpy(iio.imread(path)).float().mean(-1) for path in room.images]
    for pair in pairs:
        assert pair.first != pair.second
        rows, columns = (torch.arange(side // 8) * 8 + 4 for side in SIZE)
        here = images[pair.first][rows][:, columns].flatten()
        at = pair.where.long().clamp_min(0).minimum(torch.tensor([SIZE[1] - 1, SIZE[0] - 1]))
        there = images[pair.second][at[:, 1], at[:, 0]]
        difference = (here - there).abs()
        assert difference[pair.seen].median() < 12
        assert pair.seen.float().mean() >= 0.1


def test_angles_bound_the_pairs(data, room):
    files = find_depth_files(data / "room" / "depth", room.stems)
    few = frame_pairs(room, files, SIZE, (0.1, 12.0), 100, 0)
    more = frame_pairs(room, files, SIZE, (0.1, 60.0), 100, 0)
    assert 0 < len(few) < len(more)
    # Along the walk, neighbours are the nearest in angle.
    assert max(abs(pair.first - pair.second) for pair in few) < max(abs(p.first - p.second) for p in more)


def test_the_command_writes_both_parts(data, tmp_path, capsys):
    out = tmp_path / "result.json"
    command = ["encoder", "--data", str(data), "--set-name", "room", "--pairs", "3", "--repeat", "1"]
    assert main([*command, "--device", "cpu", "--out", str(out)]) == 0
    rows = json.loads(out.read_text())["rows"]
    assert [row["part"] for row in rows] == ["speed", "matching"]
    assert rows[0]["milliseconds"] > 0 and rows[0]["channels"] == 384
    assert 0.1 < rows[1]["mean"] <= 1 and rows[1]["pairs"] == 3
    printed = capsys.readouterr().out
    assert "Time per image" in printed and "Cells matched" in printed and str(data) not in printed
    assert main([*command, "--angles-deg", "170", "180", "--out", str(tmp_path / "x.json")]) == 2
    assert "no two frames" in capsys.readouterr().err
    assert np.isfinite(rows[1]["median"])


def test_growth_from_one_frame(data, tmp_path, capsys):
    """A short walk around one table: the seed at least is registered where it is."""
    out = tmp_path / "result.json"
    command = ["encoder", "--data", str(data), "--set-name", "room", "--pairs", "1", "--repeat", "1"]
    settings = ["bank.shortest_side_px=120", "loop.stopping.max_iterations=2"]
    settings += ["loop.training.head.width=128", "loop.training.batch_size=1024"]
    settings += [f"loop.{part}_schedule.iterations=150" for part in ("seed", "growth")]
    sets = [word for setting in settings for word in ("--set", setting)]
    growth = ["--growth-seeds", "1", "--preset", "fast", "--device", "cpu", *sets]
    assert main([*command, *growth, "--out", str(out)]) == 0
    rows = [row for row in json.loads(out.read_text())["rows"] if row["part"] == "growth"]
    assert [row["seed"] for row in rows] == [1305]
    assert 1 / 6 <= rows[0]["near"] <= rows[0]["registered"] + 1e-6
    assert f"{100 * rows[0]['near']:.1f}" in capsys.readouterr().out.split("Growth from one posed frame")[1]
