"""The benchmark of the whole loop's cost: what it counts, how it fits, and what a run that fails leaves."""

import json

import pytest
import torch
from benchmark_sets import write_set

from acezero_gpu.cli.settings import resolve_settings
from acezero_gpu.io import RunFolder
from acezero_gpu.io.history_file import write_history
from acezero_gpu.mapping import TrainingProgress
from acezero_gpu.network import Head, HeadConfig, SceneMap, parameter_count
from acezero_gpu.reconstruction.history import RoundRecord, RunHistory
from benchmarks.__main__ import main
from benchmarks.workloads.pipeline import growth_row, mapping_figures, product_gflops

SETTINGS = resolve_settings("cpu", "fast", None, {}, None)


def round_of(steps: int | None, index: int) -> RoundRecord:
    training = [] if steps is None else [TrainingProgress(n, steps, 1.0, 0.5, 1e-3, 50.0) for n in (1, steps)]
    return RoundRecord(
        index, "final" if index == 2 else "iteration", 3, 3, 3, 50.0, None, {}, tuple(training)
    )


def test_operations_of_the_mapping_are_those_of_all_its_steps(tmp_path):
    """Six for each weight of the round's own map, patch of its batches and step; a round without a map has none."""
    rounds = tuple(round_of(steps, index) for index, steps in enumerate((None, 30, 70)))
    history = RunHistory("", (8, 6), (), 12, 1.0, True, rounds)
    write_history(RunFolder(tmp_path).history, history)
    heads = [Head(16, HeadConfig(width=width), torch.zeros(3)) for width in (8, 40)]
    for index, head in enumerate(heads, start=1):
        SceneMap(head, "dense-sift-4", 48, 1.0).save(RunFolder(tmp_path).map(index))
    row = mapping_figures(tmp_path, 0.5, SETTINGS)
    assert row["mapping_steps"] == 100
    loop = SETTINGS.config.loop
    batches = (loop.training.batch_size, loop.final_map.batch_size)
    assert batches[0] != batches[1]
    operations = sum(
        6 * parameter_count(head) * steps * batch
        for head, steps, batch in zip(heads, (30, 70), batches, strict=True)
    )
    assert row["mapping_gflops"] == pytest.approx(operations / 0.5 / 1e9, rel=1e-2, abs=0.05)
    assert row["product_gflops"] > 0


def test_a_product_takes_the_time_that_it_takes(device):
    assert 0.1 < product_gflops(device) < 1e7


def test_the_exponent_is_by_cpu_seconds_on_a_cpu():
    rows = [{"images": n, "cpu_seconds": 2.0 * n, "seconds": 0.1 * n**2} for n in (10, 20, 40)]
    assert growth_row("ours", rows, "cpu")["exponent"] == pytest.approx(1.0)
    assert growth_row("ours", rows, "cuda")["exponent"] == pytest.approx(2.0)


def test_a_run_that_fails_is_a_row_with_its_sentence(tmp_path, capsys):
    """Blank pictures, in a process of its own; more images than the set has are left out."""
    write_set(tmp_path / "blank")
    command = ["pipeline", "--data", str(tmp_path), "--set-name", "blank", "--images", "4,100"]
    command += ["--systems", "ours", "--device", "cpu", "--out", str(tmp_path / "p.json")]
    assert main(command) == 1
    said = capsys.readouterr()
    assert "blank has 12 images, not 100" in said.err
    (row,) = json.loads((tmp_path / "p.json").read_text())["rows"]
    assert (row["part"], row["images"], row["registered"]) == ("run", 4, 0)
    assert "No two images share enough matches" in row["failure"]
    assert row["peak_memory_gib"] > 0.1 and row["cpu_seconds"] > 0
    assert "## Without a result" in said.out and row["failure"] in said.out
    assert str(tmp_path) not in (tmp_path / "p.json").read_text()
