"""What docs/solver.md says in a form that can be executed."""

import re
from pathlib import Path

import pytest
import torch
from reference.posed_scene import make_scene

from acezero_gpu import RansacConfig, estimate_absolute_pose
from acezero_gpu.pnp import PoseStatus

PAGE = (Path(__file__).parents[2] / "docs" / "solver.md").read_text(encoding="utf-8")


def test_its_call_runs():
    (call,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    scene = make_scene(3, outliers=0.3, noise_px=1.0, rows=12, columns=16)
    names = {"points": scene.points, "pixels": scene.pixels}
    exec(call, names)
    assert (names["result"].status == PoseStatus.OK).all()


def test_its_table_of_statuses_is_the_enumeration():
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", PAGE, re.MULTILINE)
    assert [(int(code), name) for code, name in rows] == [(int(s), s.name) for s in PoseStatus]


@pytest.mark.parametrize(("preset", "samples"), [("fast", 32), ("balanced", 2048), ("robust", 16384)])
def test_its_presets_draw_what_it_says(preset, samples):
    assert getattr(RansacConfig, preset)().hypotheses == samples
    (row,) = re.findall(rf"^\| `RansacConfig.{preset}\(\)`.*$", PAGE, re.MULTILINE)
    assert str(samples) in row


def test_a_guess_of_nan_is_none(device):
    scene = make_scene(3, outliers=0.3, noise_px=1.0, rows=12, columns=16, device=device)
    nothing = torch.full((3, 7), torch.nan, device=device)
    results = [
        estimate_absolute_pose(scene.points, scene.pixels, scene.camera, initial=initial)
        for initial in (None, nothing)
    ]
    assert torch.equal(*(torch.Tensor(r.cam_from_world) for r in results))
    assert torch.equal(*(r.inliers for r in results))
