"""The benchmark of bundle adjustment on tiny problems: what it makes, compares, and says."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from reference.rendered_room import walked_room

from acezero_gpu.cli.settings import resolve_settings
from acezero_gpu.geometry import invert, transform_points
from acezero_gpu.runtime import InputError
from benchmarks.adjustment_cases import FOCAL_FACTOR, FOCAL_PX, HEIGHT, WIDE, WIDTH, room_case
from benchmarks.adjustment_table import adjustment_table
from benchmarks.image_sets import read_set
from benchmarks.records import Record
from benchmarks.workloads import adjustment as workload

ENVIRONMENT = dict.fromkeys(("commit", "date", "device", "cpu", "cores", "threads", "torch", "python"), "x")
HEAD = {"command": "c", "preset": "fast", "environment": ENVIRONMENT}


@pytest.fixture(scope="module")
def case():
    return room_case(30, 400, 3000)


def test_a_case_is_what_it_says(case):
    problem = case.problem
    assert case.size == {"views": 30, "points": 400, "observations": len(problem.pixels)}
    assert 1000 < len(problem.pixels) <= 3000
    assert torch.linalg.det(case.cam_from_world[..., :3]).allclose(torch.ones(30).double())
    pairs = problem.point_index * 30 + problem.view_index
    assert len(pairs.unique()) == len(pairs)
    assert torch.bincount(problem.point_index, minlength=400).min() >= 2
    # A start that is off by some 10 px, and true poses that explain what was seen to the noise.
    seen = transform_points(
        case.cam_from_world[problem.view_index], problem.points[problem.point_index][:, None]
    )
    plane = seen[:, 0, :2] / seen[:, 0, 2:]
    error = (plane * FOCAL_PX + torch.tensor([WIDTH / 2, HEIGHT / 2]) - problem.pixels).norm(dim=-1)
    assert 1 < error.median() < 20
    assert float(problem.camera.focal_px[0]) == pytest.approx(FOCAL_FACTOR * FOCAL_PX)
    assert torch.equal(problem.cam_from_world[problem.fixed_views], case.cam_from_world[problem.fixed_views])
    assert int(problem.fixed_views.sum()) == 2
    assert WIDE > 0.02


@pytest.mark.parametrize("rivals", workload.RIVALS, ids=str)
def test_both_find_the_same_optimum(case, rivals):
    row = workload.bundle_row(case, rivals, [torch.device("cpu")], 1, 1)
    ours, theirs = row["systems"]["ours, cpu"], row["systems"]["pycolmap"]
    assert row["same_cost"]
    assert row["cost_difference"] < 1e-4
    assert ours["focal_px"] == pytest.approx(theirs["focal_px"], rel=1e-3)
    assert ours["focal_px"] == pytest.approx(FOCAL_PX, rel=5e-3)
    assert ours["seconds_share"] == pytest.approx(ours["seconds"] / theirs["seconds"])
    text = adjustment_table({**HEAD, "rows": [row]})
    assert "30 views, 400 points" in text
    assert text.count("| ours, cpu |") == text.count("| pycolmap |") == 1


def test_matching_and_adjustment_of_a_rendered_walk(tmp_path):
    """Disturbed by 1 cm and 0.5°, the poses come back nearly true; each stage has its seconds."""
    room, folder = walked_room(), tmp_path / "room"
    (folder / "images").mkdir(parents=True)
    (folder / "poses").mkdir()
    focal = float(room.camera.focal_px[0])
    for row, (grey, pose) in enumerate(zip(room.images, invert(room.cam_from_world), strict=True)):
        Image.fromarray(grey[0].numpy()).save(folder / "images" / f"{row:02d}.png")
        np.savetxt(folder / "poses" / f"{row:02d}.txt", np.vstack([pose.numpy(), [0, 0, 0, 1]]))
    (folder / "set.json").write_text(json.dumps({"fx": focal, "fy": focal, "unit": "m"}))
    sides = ["bank.shortest_side_px=120", "bank.keypoint_side_px=120", "encoder='dense-sift'"]
    settings = resolve_settings("cpu", "auto", None, {}, sides)
    record = Record(tmp_path / "out.json", {"kind": "adjustment", **HEAD}, adjustment_table, overwrite=False)
    workload.measure_scaling(read_set(folder), [9, 18, 36], settings, record)
    rows = record.content["rows"]
    assert [row.get("images") for row in rows] == [9, 18, None], "36 images are more than there are"
    assert set(rows[0]["stages_s"]) == {"decoding", "keypoints", "retrieval", "matching", "adjustment"}
    assert rows[1]["points"] > 100
    assert rows[1]["median_position"] < 0.005
    text = record.markdown()
    assert "| room | 18 |" in text
    assert f"room: {rows[-1]['exponent']:.2f}" in text


def test_the_exponent_of_growth():
    assert workload.growth_exponent([10, 20, 40], [3.0, 6.0, 12.0]) == pytest.approx(1.0)
    assert workload.growth_exponent([10, 20, 40], [1.0, 4.0, 16.0]) == pytest.approx(2.0)


def test_wrong_arguments_are_told():
    assert workload.chosen_parts("bundle") == ["bundle"]
    assert workload.chosen_counts("5,10") == [5, 10]
    with pytest.raises(InputError, match="choose from bundle, scaling"):
        workload.chosen_parts("scale")
    with pytest.raises(InputError, match="numbers with commas"):
        workload.chosen_counts("5,many")
    with pytest.raises(InputError, match="at least 3"):
        workload.chosen_counts("2")
