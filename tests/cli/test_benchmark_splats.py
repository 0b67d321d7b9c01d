"""``acezero benchmark nvs --method gsplat``, with gsplat's drawing on a CPU in place of its kernels."""

import re
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from cli_calls import Call, picture
from gsplat import DefaultStrategy
from nvs_run import FOCAL_PX, HEIGHT, SMALL, WIDTH, Run
from plyfile import PlyData
from reference.splat_drawing import rasterization

from acezero_gpu.cli import benchmark as benchmark_command
from acezero_gpu.io.view_synthesis import read_view_synthesis
from acezero_gpu.splatting import SplatBackend


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
