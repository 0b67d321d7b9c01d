"""``acezero benchmark``: data for Nerfstudio, its commands (stand-ins of them), and the table of results."""

import json
import re
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pypose as pp
import pytest
import torch
from cli_calls import Call, picture
from gsplat import DefaultStrategy
from PIL import Image
from plyfile import PlyData
from reference.splat_drawing import rasterization
from scipy.spatial.transform import Rotation

from acezero_gpu.cli import benchmark as benchmark_command
from acezero_gpu.config import as_toml, preset, with_override
from acezero_gpu.data import PosedViews
from acezero_gpu.io import write_points, write_pose_file
from acezero_gpu.io.view_synthesis import read_view_synthesis
from acezero_gpu.splatting import SplatBackend

COUNT, WIDTH, HEIGHT, FOCAL_PX = 14, 1301, 963, 1000.0
SMALL = (433, 321)
"""A third, rounded down: the least whole number that brings 1301 px to 640 px."""
REGISTERED_FROM, CELLS = 100.0, 960
"""So an image trains from 200 inliers on."""
DOUBTFUL, FAILED, FAILED_TEST = 2, 7, 12
RESULTS = {"psnr": 21.25, "psnr_std": 2.0, "ssim": 0.75, "lpips": 0.5, "fps": 1.0}

STAND_IN = """#!{python} -SE
import json, os, pathlib, sys
given = dict(zip(sys.argv, sys.argv[1:]))
print("called with", sys.argv)
if os.path.basename(sys.argv[0]) == "ns-train":
    data = json.loads((pathlib.Path(given["--data"]) / "transforms.json").read_text())
    assert data["train_filenames"] and data["val_filenames"] and data["test_filenames"]
    assert given["--pipeline.model.camera-optimizer.mode"] == "off"
    assert given["--viewer.quit-on-train-completion"] == "True"
    assert given["nerfstudio-data"] == "--downscale-factor" and given["--downscale-factor"] == "1"
    assert given.get("--load-3D-points") == ("True" if sys.argv[1] == "splatfacto" else None)
    names = (given["--output-dir"], given["--experiment-name"], sys.argv[1], given["--timestamp"])
    made = pathlib.Path(*names)
    made.mkdir(parents=True)  # fails where an earlier training was left
    (made / "config.yml").write_text(sys.argv[1])
else:
    method = pathlib.Path(given["--load-config"]).read_text()
    written = {{"experiment_name": "nvs", "method_name": method, "checkpoint": "c", "results": {results}}}
    pathlib.Path(given["--output-path"]).write_text(json.dumps(written))
"""


@dataclass(frozen=True)
class Run:
    path: Path
    photos: Path
    programs: Path
    views: PosedViews

    def install(self, name: str, script: str = STAND_IN, results: object = RESULTS) -> None:
        file = self.programs / name
        file.write_text(script.format(python=sys.executable, results=results))
        file.chmod(0o755)

    def result(self) -> dict:
        return json.loads((self.path / "nvs" / "nvs.json").read_text())

    def transforms(self) -> dict:
        return json.loads((self.path / "nvs" / "transforms.json").read_text())


def stems(files: list[str]) -> list[int]:
    return [int(Path(file).stem.removeprefix("p")) for file in files]


def posed() -> PosedViews:
    rng = np.random.default_rng(1)
    rotation = Rotation.from_rotvec(rng.normal(scale=0.3, size=(COUNT, 3))).as_quat()
    pose = torch.from_numpy(np.concatenate([rng.normal(size=(COUNT, 3)), rotation], axis=1))
    confidence = torch.full((COUNT,), 600.0).double()
    confidence[DOUBTFUL] = 199.0
    for row in (FAILED, FAILED_TEST):
        confidence[row] = 0.0
        pose[row] = torch.tensor([0, 0, 0, 0, 0, 0, 1.0])
    # Not in alphabetical order: the split is.
    names = tuple(f"photos/p{row:02d}.jpg" for row in range(COUNT))
    order = list(reversed(range(COUNT)))
    views = PosedViews(names, pp.SE3(pose), torch.full((COUNT,), FOCAL_PX).double(), confidence)
    return views.subset(order)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nvs") / "photos"
    folder.mkdir()
    for row in range(COUNT):
        picture(row, (WIDTH, HEIGHT)).save(folder / f"p{row:02d}.jpg")
    return folder


@pytest.fixture
def run(tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Fourteen photographs: one doubtful, and two that failed, of which one is a test image."""
    folder, programs = tmp_path / "scene", tmp_path / "bin"
    folder.mkdir()
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    write_pose_file(folder / "poses_final.txt", posed())
    share = REGISTERED_FROM / CELLS
    config = with_override(preset("fast"), f"loop.registration.min_inlier_share={share}")
    (folder / "config.toml").write_text(as_toml(config))
    summary = {
        "registered_means_confidence_from": REGISTERED_FROM,
        "image_root": str(photos.parent),
        "image_size_px": [WIDTH, HEIGHT],
        "radial": [-0.1, 0.02],
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    write_points(folder / "point_cloud.ply", torch.rand(9, 3), torch.zeros(9, 3, dtype=torch.uint8))
    return Run(folder, photos, programs, posed())


def test_the_data_is_that_of_the_protocol(call: Call, run: Run) -> None:
    said = call("benchmark", "nvs", run.path, "--convert-only")
    assert said.code == 0, said.err
    assert said.out.startswith(f"10 images to train on, 2 to test, {SMALL[0]}x{SMALL[1]} px")
    assert "1 of 2 test images are not registered" in said.err
    content = run.transforms()
    assert stems(content["test_filenames"]) == [4, FAILED_TEST]
    assert content["val_filenames"] == content["test_filenames"]
    left_out = {DOUBTFUL, FAILED, 4, FAILED_TEST}
    assert stems(content["train_filenames"]) == [row for row in range(COUNT) if row not in left_out]
    files = {frame["file_path"]: np.array(frame["transform_matrix"]) for frame in content["frames"]}
    assert set(files) == {*content["train_filenames"], *content["test_filenames"]}
    # A point in front of each camera lands where the photograph, scaled, has it.
    for name, matrix in files.items():
        row = run.views.names.index(f"photos/{Path(name).stem}.jpg")
        point = np.linalg.inv(np.r_[run.views.matrices[row].numpy(), [[0, 0, 0, 1]]]) @ [0.3, 0.2, 2, 1]
        camera = np.linalg.inv(matrix) @ point
        u = content["cx"] + content["fl_x"] * camera[0] / -camera[2]
        v = content["cy"] - content["fl_y"] * camera[1] / -camera[2]
        assert u == pytest.approx((WIDTH / 2 + 150) * SMALL[0] / WIDTH, abs=1e-3)
        assert v == pytest.approx((HEIGHT / 2 + 100) * SMALL[1] / HEIGHT, abs=1e-3)
        with Image.open(run.path / "nvs" / name) as image:
            assert (image.size, image.mode) == ((content["w"], content["h"]), "RGB")
    assert (content["w"], content["h"]) == SMALL
    assert (content["k1"], content["k2"]) == (-0.1, 0.02)
    assert len(PlyData.read(run.path / "nvs" / content["ply_file_path"])["vertex"]) == 9
    with Image.open(run.path / "nvs" / "images" / "p04.png") as image:
        expected = picture(4, SMALL)
        assert np.abs(np.asarray(image).astype(int) - np.asarray(expected)).mean() < 2


def test_nerfstudio_is_called_and_its_figures_are_kept(call: Call, run: Run) -> None:
    run.install("ns-train")
    run.install("ns-eval")
    said = call("benchmark", "nvs", run.path)
    assert said.code == 0, said.err
    assert said.out.startswith("PSNR 21.250, SSIM 0.750, LPIPS 0.500 on 2 test images by nerfacto")
    result = run.result()
    counts = {"images": 14, "registered": 12, "train": 10, "test": 2, "test_unregistered": 1}
    expected = {"scene": "scene", "method": "nerfacto", "psnr": 21.25, "ssim": 0.75, "lpips": 0.5, **counts}
    assert {key: result[key] for key in expected} == expected
    assert result["versions"].keys() == {"acezero_gpu", "nerfstudio"}
    assert "called with" in (run.path / "nvs" / "ns-train.log").read_text()

    again = call("benchmark", "nvs", run.path, "--method", "splatfacto")
    assert again.code == 2
    assert "nvs.json: is there already" in again.sentence
    run.install("ns-eval", results={"psnr": 20.0, "ssim": 0.5})
    said = call("benchmark", "nvs", run.path, "--method", "splatfacto", "--overwrite")
    assert said.code == 0, said.err
    assert (run.result()["method"], run.result()["psnr"]) == ("splatfacto", 20.0)
    assert "lpips" not in run.result()


def test_splats_on_gsplat_are_trained_here(call: Call, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With gsplat's drawing on a CPU in place of its kernels."""
    here = SplatBackend(rasterization, DefaultStrategy, torch.device("cpu"))
    monkeypatch.setattr(benchmark_command, "missing_requirement", lambda: None)
    monkeypatch.setattr(benchmark_command, "gsplat_backend", lambda: here)
    said = call("benchmark", "nvs", run.path, "--method", "gsplat", "--steps", 2)
    assert said.code == 0, said.err
    assert re.match(r"PSNR \d+\.\d{3}, SSIM -?\d\.\d{3} on 2 test images by gsplat", said.out)
    result = run.result()
    assert (result["method"], result["train"], result["test"]) == ("gsplat, 2 steps", 10, 2)
    assert (result["steps"], result["seed"], result["gaussians"]) == (2, 1305, 9)
    assert "lpips" not in result
    assert result["versions"]["gsplat"] == version("gsplat")
    splats = PlyData.read(run.path / "nvs" / "splats.ply")["vertex"]
    assert len(splats) == 9
    assert {"x", "f_dc_0", "f_rest_44", "opacity", "scale_2", "rot_3"} <= {p.name for p in splats.properties}
    assert "gsplat" in call("benchmark", "show", run.path).out


def test_the_data_comes_back_as_it_was_written(call: Call, run: Run) -> None:
    assert call("benchmark", "nvs", run.path, "--convert-only").code == 0
    train, test, cloud = read_view_synthesis(run.path / "nvs")
    content = run.transforms()
    for views, key in ((train, "train_filenames"), (test, "test_filenames")):
        rows = [run.views.names.index(f"photos/{Path(name).stem}.jpg") for name in content[key]]
        torch.testing.assert_close(views.cam_from_world, run.views.matrices[rows].double())
        assert views.images.shape == (len(rows), SMALL[1], SMALL[0], 3)
        # In the middle the lens changes nothing.
        middle = (slice(140, 180), slice(196, 236))
        for image, name in zip(views.images, content[key], strict=True):
            shown = np.asarray(picture(int(Path(name).stem[1:]), SMALL)).astype(int)
            assert np.abs(image.numpy().astype(int) - shown)[middle].mean() < 3
        scale = [FOCAL_PX * SMALL[0] / WIDTH, FOCAL_PX * SMALL[1] / HEIGHT]
        assert views.camera.focal_px.tolist() == pytest.approx(scale)
        assert views.camera.principal_point_px.tolist() == [SMALL[0] / 2, SMALL[1] / 2]
    expected = PlyData.read(run.path / "point_cloud.ply")["vertex"]
    assert np.array_equal(cloud.points.numpy()[:, 0], expected["x"])


def test_what_gsplat_lacks_is_said(call: Call, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said = call("benchmark", "nvs", run.path, "--method", "gsplat")
    assert said.code == 1
    assert "needs an NVIDIA GPU" in said.sentence
    assert str(run.path / "nvs") in said.sentence
    assert len(run.transforms()["frames"]) == 12
    said = call("benchmark", "nvs", run.path, "--method", "nerfacto", "--steps", 2, "--overwrite")
    assert said.code == 2
    assert "--steps 2: goes with --method gsplat only" in said.sentence
    (run.path / "point_cloud.ply").unlink()
    monkeypatch.setattr(benchmark_command, "missing_requirement", lambda: None)
    here = SplatBackend(rasterization, DefaultStrategy, torch.device("cpu"))
    monkeypatch.setattr(benchmark_command, "gsplat_backend", lambda: here)
    said = call("benchmark", "nvs", run.path, "--method", "gsplat", "--overwrite")
    assert said.code == 2
    assert "no point_cloud.ply" in said.sentence


def test_a_split_of_ones_own(call: Call, run: Run, tmp_path: Path) -> None:
    split = {"train_filenames": ["p03.jpg", "p02.jpg", "p05.jpg"], "test_filenames": ["p09.jpg", "p01.jpg"]}
    (tmp_path / "split.json").write_text(json.dumps(split))
    said = call("benchmark", "nvs", run.path, "--split", tmp_path / "split.json", "--convert-only")
    assert said.code == 0, said.err
    content = run.transforms()
    assert stems(content["train_filenames"]) == [3, 5]
    assert stems(content["test_filenames"]) == [1, 9]


def test_without_nerfstudio_the_data_stays(call: Call, run: Run) -> None:
    run.install("ns-train")
    said = call("benchmark", "nvs", run.path)
    assert said.code == 1
    assert said.sentence.startswith("ns-eval: not found on the PATH")
    assert "pip install nerfstudio" in said.sentence
    assert len(run.transforms()["frames"]) == 12
    assert not (run.path / "nvs" / "nvs.json").exists()


def test_a_failure_of_nerfstudio_names_its_log(call: Call, run: Run) -> None:
    run.install("ns-eval")
    run.install("ns-train", "#!{python} -SE\nprint('no GPU')\nraise SystemExit(3)\n")
    said = call("benchmark", "nvs", run.path)
    assert said.code == 1
    log = run.path / "nvs" / "ns-train.log"
    assert said.sentence == f"ns-train failed (exit code 3); {log} says why."
    assert log.read_text() == "no GPU\n"
    run.install("ns-train", "#!{python} -SE\n")
    assert "ended without" in call("benchmark", "nvs", run.path, "--overwrite").sentence
    run.install("ns-train")
    for results, complaint in (({"ssim": 1}, "no finite PSNR"), ([], "wrote no results")):
        run.install("ns-eval", results=results)
        said = call("benchmark", "nvs", run.path, "--overwrite")
        assert said.code == 1
        assert complaint in said.sentence
    assert not (run.path / "nvs" / "nvs.json").exists()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "not a split"),
        ("[]", "not a split"),
        ('{"train_filenames": ["p01.jpg"], "test_filenames": [1]}', "not a split"),
        (
            '{"train_filenames": ["p01.jpg"], "test_filenames": ["p99.jpg", "q"]}',
            "names p99.jpg, which is no",
        ),
        ('{"train_filenames": ["p01.jpg"], "test_filenames": ["p01.jpg"]}', "names p01.jpg 2 times"),
        (None, "cannot be read"),
    ],
)
def test_a_split_that_is_wrong(
    call: Call, run: Run, tmp_path: Path, content: str | None, complaint: str
) -> None:
    if content is not None:
        (tmp_path / "split.json").write_text(content)
    said = call("benchmark", "nvs", run.path, "--split", tmp_path / "split.json")
    assert said.code == 2
    assert f"--split {tmp_path / 'split.json'}: " in said.sentence
    assert complaint in said.sentence
    assert not (run.path / "nvs").exists()


@pytest.mark.parametrize(
    ("confidence", "complaint"), [(99.0, "no image is registered"), (199.0, "has the confidence 200")]
)
def test_poses_that_are_not_enough(call: Call, run: Run, confidence: float, complaint: str) -> None:
    views = posed()
    views.confidence[:] = confidence
    write_pose_file(run.path / "poses_final.txt", views)
    said = call("benchmark", "nvs", run.path)
    assert said.code == 1
    assert complaint in said.sentence


def test_folders_that_are_wrong(call: Call, run: Run, tmp_path: Path) -> None:
    assert "not the folder of a reconstruction" in call("benchmark", "nvs", run.photos).sentence
    said = call("benchmark", "nvs", run.path, "--images", tmp_path)
    assert said.code == 2
    assert "no image of the run there" in said.sentence
    (tmp_path / "file").write_text("")
    said = call("benchmark", "nvs", run.path, tmp_path / "file", "--convert-only")
    assert (said.code, "cannot be made" in said.sentence) == (2, True)


def result(folder: Path, method: str, **figures: float) -> None:
    folder.mkdir(parents=True)
    counts = {"images": 10, "registered": 9, "train": 7, "test": 2}
    (folder / "nvs.json").write_text(
        json.dumps({"scene": folder.name, "method": method, **counts, **figures})
    )


def test_one_table_of_all_scenes(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result(tmp_path / "a long name of a scene" / "nvs", "nerfacto", psnr=20.0, ssim=0.5, lpips=0.25)
    result(tmp_path / "b" / "run" / "nvs", "nerfacto", psnr=21.0, ssim=0.75)
    result(tmp_path / "b" / "run" / "splat", "splatfacto", psnr=25.0)
    monkeypatch.setenv("COLUMNS", "20")
    said = call("benchmark", "show", tmp_path)
    assert said.code == 0, said.err
    lines = [line.split() for line in said.out.splitlines() if line.strip()]
    assert lines[0] == ["scene", "method", "images", "registered", "train", "test", "PSNR", "SSIM", "LPIPS"]
    assert " ".join(lines[1]) == "a long name of a scene nerfacto 10 9 7 2 20.00 0.500 0.250"
    assert lines[2:4] == [
        ["b/run", "nerfacto", "10", "9", "7", "2", "21.00", "0.750"],
        ["b/run/splat", "splatfacto", "10", "9", "7", "2", "25.00"],
    ]
    assert lines[4:] == [["mean", "nerfacto", "20.50", "0.625"]]


def test_what_cannot_be_shown_is_said(call: Call, tmp_path: Path) -> None:
    said = call("benchmark", "show", tmp_path)
    assert said.code == 1
    assert said.sentence == f"{tmp_path}: no nvs.json there; acezero benchmark nvs RUN makes one."
    assert call("benchmark", "show", tmp_path / "none").code == 2
    (tmp_path / "nvs.json").write_text('{"scene": "a"}')
    said = call("benchmark", "show", tmp_path)
    assert said.code == 2
    assert "nvs.json: not a result" in said.sentence
