"""Pictures in, files out: one small room through every command."""

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pycolmap
import pytest
import torch
from cli_calls import Call
from PIL import Image
from reference.tiny_settings import tiny_flags

from acezero_gpu.cli import main
from acezero_gpu.config import load_config, preset
from acezero_gpu.data.synthetic import write_dataset
from acezero_gpu.io import read_history, read_pose_file
from acezero_gpu.network import SceneMap

IMAGES, WIDTH, HEIGHT, TRUE_FOCAL_PX = 5, 240, 180, 192.0
# Faster, or shorter, and whether the map registers anything is left to chance.
FLAGS = tiny_flags("loop.final_schedule.iterations=900", "loop.final_schedule.lr_max=0.004")


@dataclass(frozen=True)
class Made:
    """The pictures with their truth, and what one run made of them."""

    data: Path
    out: Path
    code: int


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    data = tmp_path_factory.mktemp("room")
    write_dataset(data, IMAGES, WIDTH, HEIGHT, texels_per_m=110)
    out = data / "run"
    return Made(data, out, main(["reconstruct", str(data / "images"), str(out), "--verbose", *FLAGS]))


def test_the_reconstruction_is_right(made: Made, call: Call) -> None:
    assert made.code == 0
    found = call(
        "evaluate",
        made.out / "poses_final.txt",
        made.data / "poses",
        "--json",
        "--threshold",
        "2cm/2deg",
        "--truth-focal-px",
        TRUE_FOCAL_PX,
    )
    figures = json.loads(found.out)
    assert figures["registered"] >= 4
    assert figures["median_translation"] < 0.02
    assert figures["median_rotation_deg"] < 1.0
    assert figures["accuracy"]["2cm_2deg"] >= 0.8
    assert figures["median_focal_ratio"] == pytest.approx(1.0, abs=0.02)


def test_the_folder_holds_what_was_promised(made: Made) -> None:
    summary = json.loads((made.out / "summary.json").read_text())
    last = summary["iterations"]
    rounds = {f"poses_{i}.txt" for i in range(last + 1)}
    rounds |= {f"poses_{i}_preliminary.txt" for i in range(last + 1)}
    # Keypoints place the images before the first map.
    rounds |= {f"map_{i}.safetensors" for i in range(1, last + 1)}
    others = {"log.txt", "config.toml", "summary.json", "reconstruction.png", "point_cloud.ply"}
    others |= {"history.json", "report.html"}
    others |= {"tracks.safetensors"}
    assert {path.name for path in made.out.iterdir()} == rounds | others | {"poses_final.txt"}
    assert (made.out / "poses_final.txt").read_text() == (made.out / f"poses_{last}.txt").read_text()
    assert summary["images"] == IMAGES
    assert summary["skipped"] == []
    assert "registered" in summary["stop_reason"]
    assert summary["preset"] == "fast"
    assert set(summary["versions"]) == {"python", "torch", "kornia", "pypose", "acezero_gpu"}
    assert summary["versions"]["torch"] == torch.__version__
    assert {"loading", "seeds", "mapping", "registration"} <= set(summary["seconds"])
    assert sum(summary["seconds"].values()) <= summary["total_s"]
    views = read_pose_file(made.out / "poses_final.txt")
    enough = views.registered(summary["registered_means_confidence_from"])
    assert int(enough.sum()) == summary["registered"]
    assert summary["focal_px"] == pytest.approx(float(views.focal_px[0]), abs=1e-3)


def test_the_settings_are_those_that_were_asked_for(made: Made) -> None:
    config = load_config(made.out / "config.toml", preset("quality"))
    assert config.loop.final_schedule.lr_max == 0.004
    assert config.bank.shortest_side_px == 120
    assert config.loop.training.head.blocks == preset("fast").loop.training.head.blocks
    assert tomllib.loads((made.out / "config.toml").read_text())["seed"] == config.seed


def test_the_log_has_every_line_with_its_time(made: Made) -> None:
    lines = (made.out / "log.txt").read_text().splitlines()
    seconds = [float(line.split(" s ", 1)[0]) for line in lines]
    assert seconds == sorted(seconds)
    assert any("final" in line and "mapped" in line for line in lines)
    assert f"→ {made.out / 'poses_final.txt'}" in lines[-3]
    assert f"→ {made.out / 'report.html'}" in lines[-1]


def test_the_history_and_the_report_tell_the_same_as_the_other_files(made: Made, call: Call) -> None:
    """Also when the page is made again from the folder."""
    summary = json.loads((made.out / "summary.json").read_text())
    history = read_history(made.out / "history.json")
    assert [round_.index for round_ in history.rounds] == list(range(summary["iterations"] + 1))
    last = history.rounds[-1]
    assert (last.registered, last.registered_by_map) == (summary["registered"], summary["registered_by_map"])
    assert last.focal_px == pytest.approx(summary["focal_px"], abs=1e-3)
    assert [entry.iteration for entry in last.training][-1] == 900
    spent = sum(round_.seconds.get("mapping", 0.0) for round_ in history.rounds)
    assert spent == pytest.approx(summary["seconds"]["mapping"], abs=0.01)
    views = read_pose_file(made.out / "poses_final.txt")
    placed = [record.placed_by for record in history.images]
    assert [by != "none" for by in placed] == views.registered(history.min_confidence).tolist()
    assert placed.count("map") <= summary["registered_by_map"]
    again = call("report", made.out, "--out", made.out.parent / "again.html")
    assert again.code == 0, again.err
    pages = [(made.out / "report.html").read_text(), (made.out.parent / "again.html").read_text()]
    for page in pages:
        assert ("All" if summary["registered"] == IMAGES else f"{summary['registered']} of") in page
        assert page.count("<svg") >= 6 + 3
        assert "could be looked at cell by cell" not in page


def test_the_points_lie_in_the_pictures(made: Made) -> None:
    """The picture is a picture, and the cloud holds points of the images' own colours."""
    with Image.open(made.out / "reconstruction.png") as image:
        assert image.size[0] > 500
    header, body = (made.out / "point_cloud.ply").read_bytes().split(b"end_header\n", 1)
    count = int(header.split(b"element vertex ")[1].split(b"\n")[0])
    assert count == json.loads((made.out / "summary.json").read_text())["points"]
    assert count >= 10
    assert len(body) == 15 * count


def test_other_programs_read_the_run(made: Made, call: Call, tmp_path: Path) -> None:
    """COLMAP's points lie where the pictures show them, and the poses come back."""
    said = call("export", made.out, tmp_path, "--to", "colmap,nerfstudio,ply,txt,tum", "--device", "cpu")
    assert said.code == 0, said.err
    summary = json.loads((made.out / "summary.json").read_text())
    model = pycolmap.Reconstruction(str(tmp_path / "colmap" / "sparse" / "0"))
    assert model.num_reg_images() == summary["registered"]
    assert len(model.points3D) == summary["tracks"] > 50
    assert model.compute_mean_reprojection_error() < 2.0
    assert call("import", "colmap", tmp_path / "colmap", tmp_path / "back.txt").code == 0
    back = read_pose_file(tmp_path / "back.txt")
    poses = read_pose_file(made.out / "poses_final.txt")
    kept = poses.registered(summary["registered_means_confidence_from"])
    assert torch.allclose(back.matrices, poses.matrices[kept], atol=1e-5)
    header = (tmp_path / "nerfstudio" / "sparse_pc.ply").read_bytes()[:200]
    assert int(header.split(b"element vertex ")[1].split(b"\n")[0]) > 20


def test_registering_the_same_pictures_gives_the_same_poses(made: Made, call: Call, tmp_path: Path) -> None:
    """The focal length comes from the map, the resolution too, in spite of the preset's other one.

    The map of this tiny run registers only some images by itself; those it must find again, and no wrong ones.
    """
    summary = json.loads((made.out / "summary.json").read_text())
    out = tmp_path / "again"
    said = call("register", made.data / "images", made.out, out, "--device", "cpu")
    assert said.code == 0, said.err
    assert said.out.startswith("registered ")
    assert said.out.splitlines()[-1].endswith(f"→ {out / 'poses.txt'}")
    assert sorted(p.name for p in out.iterdir()) == ["config.toml", "log.txt", "poses.txt", "summary.json"]
    figures = json.loads(
        call("evaluate", out / "poses.txt", made.data / "poses", "--json", "--threshold", "20cm/10deg").out
    )
    found = json.loads((out / "summary.json").read_text())["registered"]
    assert found == pytest.approx(summary["registered_by_map"], abs=1)
    assert figures["accuracy"]["20cm_10deg"] * figures["images"] >= 0.6 * found
    assert json.loads((out / "summary.json").read_text())["focal_px"] == pytest.approx(
        TRUE_FOCAL_PX, rel=0.05
    )


def test_a_map_is_a_start(made: Made, call: Call, tmp_path: Path) -> None:
    """What the earlier run's map registers is where the next one starts, in that map's world."""
    out = tmp_path / "again"
    flags = [*FLAGS, "--set", "loop.final_schedule.iterations=10", "--verbose"]
    said = call("reconstruct", made.data / "images", out, "--seed-map", made.out, *flags)
    assert said.code == 0, said.err
    before = json.loads((made.out / "summary.json").read_text())
    after = json.loads((out / "summary.json").read_text())
    assert f"--seed-map {made.out}" in after["command"]
    assert f"seed map: registers {before['registered_by_map']} of {IMAGES}" in (out / "log.txt").read_text()
    assert (read_pose_file(out / "poses_0_preliminary.txt").confidence == 0).all()
    assert after["registered"] >= before["registered"]
    figures = json.loads(
        call("evaluate", out / "poses_final.txt", made.out / "poses_final.txt", "--json").out
    )
    assert figures["scale"] == pytest.approx(1.0, abs=0.1)
    figures = json.loads(
        call(
            "evaluate", out / "poses_final.txt", made.data / "poses", "--json", "--threshold", "2cm/2deg"
        ).out
    )
    assert figures["median_translation"] < 0.02


def test_a_map_moves_a_focal_length_that_is_guessed_or_whose_poses_move(
    made: Made, call: Call, tmp_path: Path
) -> None:
    flags = [*FLAGS, "--set", "loop.final_schedule.iterations=10"]

    def focal_px(name: str, *more: str | float) -> float:
        said = call(
            "map", made.data / "images", tmp_path / name, "--poses", made.data / "poses", *flags, *more
        )
        assert said.code == 0, said.err
        return float(read_pose_file(tmp_path / name / "poses_mapped.txt").focal_px[0])

    assert focal_px("given", "--focal-px", TRUE_FOCAL_PX) == pytest.approx(TRUE_FOCAL_PX, rel=1e-6)
    moved = focal_px("refined", "--focal-px", TRUE_FOCAL_PX, "--pose-refinement", "mlp")
    assert abs(moved / TRUE_FOCAL_PX - 1) > 1e-4
    guess = focal_px("guess")
    assert guess != pytest.approx(focal_px("guess kept", "--fix-focal"), rel=1e-5)


def test_a_map_from_given_poses_keeps_them(made: Made, call: Call, tmp_path: Path) -> None:
    """Poses that may not move come out as they went in; an image without a pose is left out when allowed."""
    (tmp_path / "poses").mkdir()
    for path in sorted((made.data / "poses").iterdir())[1:]:
        (tmp_path / "poses" / path.name).write_text(path.read_text())
    out = tmp_path / "mapped"
    flags = ["--allow-missing", "--fix-focal", "--focal-px", TRUE_FOCAL_PX, *FLAGS]
    flags += ["--set", "loop.final_schedule.iterations=10"]
    said = call("map", made.data / "images", out, "--poses", tmp_path / "poses", *flags)
    assert said.code == 0, said.err
    assert said.out.startswith(f"mapped 4 of {IMAGES} images")
    files = ["config.toml", "log.txt", "map.safetensors", "poses_mapped.txt", "summary.json"]
    assert sorted(path.name for path in out.iterdir()) == files
    views = read_pose_file(out / "poses_mapped.txt")
    assert views.confidence.tolist() == [0.0, *[torch.inf] * 4]
    assert views.focal_px.tolist() == pytest.approx([TRUE_FOCAL_PX] * IMAGES, rel=1e-5)
    figures = json.loads(
        call("evaluate", out / "poses_mapped.txt", made.data / "poses", "--no-align", "--json").out
    )
    assert figures["registered"] == 4
    assert figures["median_translation_registered"] < 1e-5
    assert SceneMap.load(out / "map.safetensors").shortest_side_px == 120


@pytest.mark.slow
def test_the_demonstration(call: Call, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    said = call("demo", out)
    assert said.code == 0, said.err
    assert "within 10cm and 5deg" in said.out
    assert str(out / "reconstruction.png") in said.out
    assert json.loads((out / "summary.json").read_text())["registered"] >= 36
