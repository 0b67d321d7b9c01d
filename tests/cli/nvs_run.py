"""A finished run of fourteen photographs, and stand-ins for the programs that judge it."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pypose as pp
import pytest
import torch
from cli_calls import picture
from scipy.spatial.transform import Rotation

from acezero_gpu.config import as_toml, preset, with_override
from acezero_gpu.data import PosedViews
from acezero_gpu.io import write_points, write_pose_file

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


@pytest.fixture(scope="session")
def large_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nvs") / "photos"
    folder.mkdir()
    for row in range(COUNT):
        picture(row, (WIDTH, HEIGHT)).save(folder / f"p{row:02d}.jpg")
    return folder


@pytest.fixture
def run(tmp_path: Path, large_photos: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
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
        "image_root": str(large_photos.parent),
        "image_size_px": [WIDTH, HEIGHT],
        "radial": [-0.1, 0.02],
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    write_points(folder / "point_cloud.ply", torch.rand(9, 3), torch.zeros(9, 3, dtype=torch.uint8))
    return Run(folder, large_photos, programs, posed())
