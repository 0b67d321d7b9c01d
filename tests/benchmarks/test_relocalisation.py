"""Relocalisation with stand-ins for the three commands: they write the files that the commands write."""

import json
from pathlib import Path

import pytest
import torch
from benchmark_sets import estimate_in_another_frame, write_set

from acezero_gpu.cli.failure import RunFailedError
from acezero_gpu.data import PosedViews, resolve_images
from acezero_gpu.geometry import se3_from_matrix
from acezero_gpu.io import read_poses, write_pose_file
from benchmarks.__main__ import main
from benchmarks.workloads import relocalisation

ENOUGH = 40.0
"""Confidence from which the stand-ins call an image registered."""


class Commands:
    """``world_from_cam`` of every image, as map and registration find it."""

    def __init__(self, world_from_cam: torch.Tensor) -> None:
        self.found = world_from_cam.clone()
        self.confidence = torch.full((len(world_from_cam),), 90.0)
        self.calls: list[tuple] = []
        self.maps_in_truth: set[Path] = set()

    def views(self, images: str) -> tuple[list[str], torch.Tensor, torch.Tensor]:
        names = list(resolve_images(images).names)
        rows = [int(Path(name).stem[-2:]) for name in names]
        return names, self.found[rows], self.confidence[rows]

    def write(self, out: Path, file: str, views: PosedViews, summary: dict) -> None:
        out.mkdir(parents=True)
        write_pose_file(out / file, views)
        summary = {"seconds": {"work": 0.5}, "registered_means_confidence_from": ENOUGH, **summary}
        (out / "summary.json").write_text(json.dumps(summary))

    def map(self, images, out, poses, settings, log, focal_px, allow_missing, overwrite):
        loop = settings.config.loop
        self.calls.append(("map", loop.fix_focal, loop.training.poses.name, focal_px))
        names = resolve_images(images).names
        given = read_poses(poses, names, focal_px, allow_missing=allow_missing)
        self.maps_in_truth.add(out / "map.safetensors")
        self.write(
            out, "poses_mapped.txt", given,
            {"mapped": len(names), "focal_px": focal_px, "iterations": 7, "inlier_share": 0.5},
        )  # fmt: skip

    def reconstruct(self, images, out, settings, log, *, overwrite):
        loop = settings.config.loop
        self.calls.append(("reconstruct", loop.fix_focal, loop.training.poses.name, None))
        names, poses, confidence = self.views(images)
        views = estimate_in_another_frame(poses, names, confidence, 30.0)
        self.write(out, "poses_final.txt", views, {"iterations": 3, "focal_px": 30.0})

    def register(self, images, map_file, out, settings, log, focal_px, overwrite):
        self.calls.append(("register", map_file.name, None, focal_px))
        names, poses, confidence = self.views(images)
        views = estimate_in_another_frame(poses, names, confidence, 30.0)
        if map_file in self.maps_in_truth:
            rotation = poses[..., :3].transpose(-1, -2)
            matrix = torch.cat([rotation, -rotation @ poses[..., 3:]], dim=-1)
            views = PosedViews(views.names, se3_from_matrix(matrix), views.focal_px, views.confidence)
        self.write(out, "poses.txt", views, {})


@pytest.fixture
def commands(tmp_path, monkeypatch) -> Commands:
    world_from_cam = write_set(tmp_path / "kitchen", 16, width=32, height=24)
    (tmp_path / "kitchen" / "mapping.txt").write_text("".join(f"img_{i:02d}\n" for i in range(12)))
    (tmp_path / "kitchen" / "query.txt").write_text("".join(f"img_{i:02d}\n" for i in range(12, 16)))
    commands = Commands(world_from_cam)
    for name in ("map", "reconstruct", "register"):
        monkeypatch.setattr(relocalisation, f"{name}_folder", getattr(commands, name))
    return commands


def run(tmp_path: Path, *more: str) -> tuple[int, list[dict]]:
    arguments = ["relocalisation", "--data", str(tmp_path), "--set-name", "kitchen", "--device", "cpu"]
    code = main([*arguments, "--out", str(tmp_path / "r.json"), *more])
    return code, json.loads((tmp_path / "r.json").read_text())["rows"]


def test_queries_are_judged_in_the_frame_of_the_given_poses(tmp_path, commands):
    commands.found[13, :, 3] += torch.tensor([30.0, 0, 0])  # mm
    commands.confidence[14] = ENOUGH - 1
    code, (row,) = run(tmp_path)
    assert code == 0 and commands.calls == [
        ("map", True, "none", 31.0),
        ("register", "map.safetensors", None, 31.0),
    ]
    assert (row["images"], row["registered"], row["failed"]) == (4, 3, ["img_14"])
    assert row["within_2cm_2deg"] == 0.5 and row["within_5cm_5deg"] == 0.75
    assert row["any_confidence"]["registered"] == 4 and row["any_confidence"]["within_5cm_5deg"] == 1.0
    assert row["median_translation_m"] == pytest.approx(0.015, abs=1e-4)
    assert row["stages_s"] == {"map: work": 0.5, "queries: work": 0.5}


def test_a_map_in_its_own_frame_is_aligned_by_the_mapping_images_alone(tmp_path, commands):
    commands.found[12:, :, 3] += torch.tensor([0, 0, 80.0])  # an alignment that saw the queries could hide it
    code, rows = run(tmp_path, "--self-supervised", "none")
    alone = rows[1]
    assert code == 0 and [row["map"] for row in rows] == ["given poses", "pictures alone"]
    assert commands.calls[2:] == [
        ("reconstruct", False, "mlp", None),
        ("register", "map_3.safetensors", None, None),
    ]
    assert alone["median_translation_m"] == pytest.approx(0.08, abs=1e-4)
    assert alone["within_5cm_5deg"] == 0.0 and alone["within_10cm_5deg"] == 1.0
    assert alone["details"]["mapping"]["median_translation_m"] < 1e-4
    assert alone["details"]["focal_ratio"] == pytest.approx(30 / 31)


def test_a_finished_run_can_be_taken(tmp_path, commands):
    kept = tmp_path / "kept"
    run(tmp_path, "--self-supervised", "none", "--keep", str(kept))
    finished = kept / "kitchen" / "pictures-alone-0" / "map"
    commands.calls.clear()
    code, rows = run(tmp_path, "--self-supervised", str(finished), "--overwrite", "--repeat", "2")
    assert code == 0 and [call[0] for call in commands.calls] == ["map", "register"] * 2 + ["register"]
    assert rows[2]["map_seconds"] is None and rows[2]["registered"] == 4
    assert str(tmp_path) not in (tmp_path / "r.json").read_text()


def test_one_map_that_fails_leaves_the_other(tmp_path, commands, monkeypatch):
    def fails(*_args):
        raise RunFailedError("nothing to map")

    monkeypatch.setattr(relocalisation, "map_folder", fails)
    code, (given, alone) = run(tmp_path, "--self-supervised", "none")
    assert code == 1 and given["failure"] == "nothing to map" and alone["failure"] is None
    assert given["registered"] == 0 and len(given["failed"]) == 4 and given["within_5cm_5deg"] == 0.0
    assert alone["registered"] == 4
