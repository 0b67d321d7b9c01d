"""``acezero evaluate`` on poses whose errors are known."""

import json
import math
from pathlib import Path

import numpy as np
import pypose as pp
import pytest
import torch
from cli_calls import Call

from acezero_gpu.data import PosedViews
from acezero_gpu.geometry import compose, invert, se3_from_matrix
from acezero_gpu.io import write_pose_file

COUNT = 8


def true_matrices() -> torch.Tensor:
    """``cam_from_world`` of cameras on a bent path, in metres."""
    generator = torch.Generator().manual_seed(3)
    rotation = pp.so3(0.5 * torch.randn(COUNT, 3, generator=generator, dtype=torch.float64)).Exp().matrix()
    return torch.cat([rotation, torch.randn(COUNT, 3, 1, generator=generator, dtype=torch.float64)], dim=-1)


def write(path: Path, matrices: torch.Tensor, confidence: float = 100.0, focal_px: float = 500.0) -> Path:
    names = tuple(f"frame_{row}.png" for row in range(len(matrices)))
    focal = torch.full((len(matrices),), focal_px, dtype=torch.float64)
    write_pose_file(
        path, PosedViews(names, se3_from_matrix(matrices), focal, torch.full_like(focal, confidence))
    )
    return path


def moved(matrices: torch.Tensor, scale: float, shift_m: float) -> torch.Tensor:
    """The same cameras in a world that is larger and elsewhere."""
    world = torch.eye(3, 4, dtype=torch.float64)
    world[0, 3] = shift_m
    other = compose(matrices, world.expand(COUNT, 3, 4))
    other[..., 3] *= scale
    return other


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    folder = tmp_path / "truth"
    folder.mkdir()
    last_row = torch.tensor([[0.0, 0, 0, 1]], dtype=torch.float64)
    for row, matrix in enumerate(invert(true_matrices())):
        np.savetxt(folder / f"frame_{row}.txt", torch.cat([matrix, last_row]).numpy(), fmt="%.12f")
    return folder


def figures(call: Call, *arguments: object) -> dict:
    said = call("evaluate", *arguments, "--json")
    assert said.code == 0, said.err
    return json.loads(said.out)


def test_a_similarity_is_no_error(call: Call, tmp_path: Path, truth: Path) -> None:
    estimate = write(tmp_path / "poses.txt", moved(true_matrices(), 3.0, 10.0), focal_px=510)
    found = figures(call, estimate, truth, "--threshold", "0.001/0.1", "--truth-focal-px", 500)
    assert found["median_translation"] < 1e-4
    assert found["scale"] == pytest.approx(1 / 3, rel=1e-4)
    assert found["accuracy"] == {"0.1cm_0.1deg": 1.0}
    assert found["median_focal_ratio"] == pytest.approx(1.02)
    assert "median_focal_ratio" in found
    assert figures(call, estimate, truth)["median_focal_ratio"] is None


def test_without_alignment_the_shift_is_the_error(call: Call, tmp_path: Path, truth: Path) -> None:
    estimate = write(tmp_path / "poses.txt", moved(true_matrices(), 1.0, 0.25))
    found = figures(call, estimate, truth, "--no-align", "--threshold", "26cm/1", "--threshold", "24cm/1")
    assert found["median_translation"] == pytest.approx(0.25, abs=1e-5)
    assert found["median_rotation_deg"] < 1e-2
    assert found["accuracy"] == {"26cm_1deg": 1.0, "24cm_1deg": 0.0}
    assert found["alignment"] == "none"
    said = call("evaluate", estimate, truth, "--no-align")
    assert "without alignment" in said.out
    assert "0.25" in said.out


def test_no_scale_keeps_the_scale(call: Call, tmp_path: Path, truth: Path) -> None:
    estimate = write(tmp_path / "poses.txt", moved(true_matrices(), 2.0, 0.0))
    assert figures(call, estimate, truth, "--no-scale")["scale"] == 1.0
    assert figures(call, estimate, truth)["scale"] == pytest.approx(0.5, rel=1e-4)


def test_shares_of_the_extent(call: Call, tmp_path: Path, truth: Path) -> None:
    estimate = write(tmp_path / "poses.txt", true_matrices())
    assert list(figures(call, estimate, truth, "--threshold", "1%/2deg")["accuracy"]) == ["1%_2deg"]
    assert list(figures(call, estimate, truth)["accuracy"]) == ["2%_5deg"]


def test_confidence_decides_what_is_registered(call: Call, tmp_path: Path, truth: Path) -> None:
    """By the flag, else by what the run wrote beside its poses, else by any confidence at all."""
    estimate = write(tmp_path / "poses.txt", true_matrices(), confidence=100)
    assert figures(call, estimate, truth)["registered"] == COUNT
    (tmp_path / "summary.json").write_text('{"registered_means_confidence_from": 120.0}')
    assert figures(call, estimate, truth)["registered"] == 0
    assert figures(call, estimate, truth, "--min-confidence", 100)["registered"] == COUNT
    (tmp_path / "summary.json").write_text("not JSON")
    assert figures(call, estimate, truth)["registered"] == COUNT


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("summary.json", '{"registered_means_confidence_from": 120.0}'),
        ("history.json", '{"min_confidence": 120.0}'),
    ],
)
def test_what_a_run_did_not_register_is_no_truth(call: Call, tmp_path: Path, name: str, content: str) -> None:
    """Also of a run that was interrupted; a truth of other origin may lie beside it."""
    (tmp_path / name).write_text(content)
    estimate = tmp_path / "estimate" / "poses.txt"
    estimate.parent.mkdir()
    write(estimate, true_matrices())
    of_run = write(tmp_path / "poses_2.txt", true_matrices(), confidence=119)
    said = call("evaluate", estimate, of_run, "--json")
    assert said.code == 2
    assert "no true pose" in said.sentence
    assert figures(call, estimate, write(tmp_path / "truth.txt", true_matrices(), 1.0))["images"] == COUNT


def test_truth_in_a_pose_file_and_images_without_truth(call: Call, tmp_path: Path) -> None:
    estimate = write(tmp_path / "poses.txt", true_matrices())
    truth = write(tmp_path / "truth.txt", true_matrices()[:6], focal_px=400)
    found = figures(call, estimate, truth)
    assert (found["images"], found["without_truth"], found["unused_truth"]) == (6, 2, 0)
    assert found["median_focal_ratio"] == pytest.approx(1.25)
    found = figures(call, truth, estimate)
    assert (found["images"], found["without_truth"], found["unused_truth"]) == (6, 0, 2)


def test_a_lost_true_frame_is_left_out(call: Call, tmp_path: Path, truth: Path) -> None:
    np.savetxt(truth / "frame_2.txt", np.full((4, 4), -math.inf))
    found = figures(call, write(tmp_path / "poses.txt", true_matrices()), truth)
    assert (found["images"], found["registered"], found["unused_truth"]) == (7, 7, 1)


def test_the_table(call: Call, tmp_path: Path, truth: Path) -> None:
    said = call("evaluate", write(tmp_path / "poses.txt", true_matrices()), truth, "--threshold", "5cm/5deg")
    assert said.code == 0
    for words in ("8 / 8", "within 5 cm and 5°", "100.0 %", "AUC@30"):
        assert words in said.out


def test_an_alignment_of_other_images_is_applied_as_it_is(call: Call, truth: Path, tmp_path: Path) -> None:
    """Two queries alone would hide their own error in an alignment of their own."""
    world = moved(true_matrices(), scale=3.0, shift_m=5.0)
    mapping = write(tmp_path / "mapping.txt", world)
    lines = mapping.read_text().splitlines()
    mapping.write_text("\n".join(lines[:6]) + "\n")
    off = world.clone()
    off[6:, 0, 3] += 3.0 * torch.tensor([0.2, -0.2], dtype=torch.float64)
    queries = write(tmp_path / "queries.txt", off)
    queries.write_text("\n".join(queries.read_text().splitlines()[6:]) + "\n")
    found = figures(call, queries, truth, "--align-on", mapping, "--threshold", "5cm/5deg")
    assert found["images"] == 2
    assert found["median_translation"] == pytest.approx(0.2, abs=1e-4)
    assert found["scale"] == pytest.approx(1 / 3, rel=1e-4)
    alone = figures(call, queries, truth, "--threshold", "5cm/5deg")
    assert alone["median_translation"] is None or alone["median_translation"] < 0.19
    said = call("evaluate", queries, truth, "--align-on", mapping, "--no-align")
    assert said.code == 2
    assert "give one of them" in said.sentence


def test_an_alignment_that_other_images_do_not_give(call: Call, truth: Path, tmp_path: Path) -> None:
    queries = write(tmp_path / "queries.txt", true_matrices())
    one = write(tmp_path / "one.txt", true_matrices()[:1])
    said = call("evaluate", queries, truth, "--align-on", one)
    assert said.code == 1
    assert "cannot be aligned with the truth" in said.sentence
