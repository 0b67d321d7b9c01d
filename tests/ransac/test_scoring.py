"""Scores and hypotheses against their point-by-point twins."""

import math

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError
from reference.posed_scene import make_scene, random_poses
from reference.slow_absolute_pose import score_one, verified_hypothesis_one

from acezero_gpu.geometry import PinholeCamera, compose, retract
from acezero_gpu.pnp import p3p
from acezero_gpu.ransac.correspondences import make_correspondences
from acezero_gpu.ransac.hypotheses import exhaustive_hypotheses, verified_hypotheses
from acezero_gpu.ransac.local_refinement import robust_scale_px
from acezero_gpu.ransac.scoring import score_hypotheses, squared_errors_px


def correspondences(scene, mask=None):
    batch = len(scene.points)
    camera = PinholeCamera(
        scene.camera.focal_px.expand(batch, 2), scene.camera.principal_point_px.expand(batch, 2)
    )
    return make_correspondences(scene.points, scene.pixels.expand(batch, -1, 2), camera, mask)


@pytest.mark.parametrize("score", ["soft", "count", "msac"])
def test_equals_the_slow_twin(device, dtype, score):
    scene = make_scene(3, outliers=0.3, noise_px=4.0, rows=6, columns=8, dtype=dtype, device=device)
    scene.points[1, 5] = math.nan
    mask = torch.ones(3, 48, dtype=torch.bool, device=device)
    mask[2, :10] = False
    data = correspondences(scene, mask)
    g = torch.Generator().manual_seed(3)
    steps = 0.02 * torch.randn(3, 5, 6, generator=g, dtype=torch.float64)
    pose = retract(scene.cam_from_world.cpu()[:, None].expand(3, 5, 3, 4), steps)
    turned_round = torch.diag(torch.tensor([-1.0, 1.0, -1.0, 1.0]))[:3].double()
    pose[:, 4] = compose(turned_round.expand(3, 3, 4), pose[:, 4])  # looks away: all points lie behind
    scores = score_hypotheses(data, pose.to(device, dtype), 10.0, score).cpu()
    focal, principal = (
        t.cpu().double().numpy() for t in (scene.camera.focal_px, scene.camera.principal_point_px)
    )
    usable = data.usable.cpu()
    for i in range(3):
        for j in range(5):
            expected = score_one(
                pose[i, j].numpy(),
                scene.points[i].cpu().double().numpy(),
                scene.pixels.cpu().double().numpy(),
                usable[i].tolist(),
                focal,
                principal,
                10.0,
                score,
            )
            assert scores[i, j].item() == pytest.approx(expected, rel=1e-3, abs=1e-2)
    assert (scores[:, 4] < 1e-6).all()


def test_unknown_score_is_named():
    data = correspondences(make_scene(1, rows=6, columns=8))
    with pytest.raises((ValueError, TypeCheckError), match="soft, count or msac|'soft', 'count', 'msac'"):
        score_hypotheses(data, torch.eye(3, 4).expand(1, 1, 3, 4), 10.0, "hard")  # type: ignore[arg-type]


def test_verified_hypotheses_equal_the_slow_twin(dtype):
    """First accepted attempt, else the best: the same choice, pose and error as sample by sample."""
    scene = make_scene(3, outliers=0.45, noise_px=1.0, rows=6, columns=8, dtype=dtype, seed=4)
    data = correspondences(scene)
    samples = torch.stack(
        [torch.randperm(48, generator=torch.Generator().manual_seed(i))[:4] for i in range(3 * 8 * 6)]
    ).view(3, 8, 6, 4)
    ours = verified_hypotheses(data, samples, 10.0)
    focal, principal = (t.double().numpy() for t in (scene.camera.focal_px, scene.camera.principal_point_px))
    pixels = scene.pixels.double().numpy()
    bearings = data.camera.bearings(scene.pixels.expand(3, -1, 2)).double().numpy()
    compared = 0
    for i in range(3):
        for h in range(8):
            points = scene.points[i].double().numpy()
            pose, error = verified_hypothesis_one(
                samples[i, h].numpy(), points, pixels, bearings[i], focal, principal, 10.0
            )
            assert ours.valid[i, h] == (pose is not None)
            if pose is not None and error < 10:
                difference = np.abs(ours.cam_from_world[i, h].double().numpy() - pose).max()
                assert difference < (2e-2 if dtype == torch.float32 else 1e-6)
                compared += 1
    assert compared > 5


def test_exhaustive_hypotheses_contain_the_truth_but_for_some_with_many_roots():
    scene = make_scene(2, rows=6, columns=8, dtype=torch.float64)
    data = correspondences(scene)
    g = torch.Generator().manual_seed(0)
    samples = torch.rand(2, 500, 48, generator=g).topk(3).indices
    hypotheses = exhaustive_hypotheses(data, samples)
    difference = (hypotheses.cam_from_world - scene.cam_from_world[:, None]).flatten(2).norm(dim=-1)
    found = ((difference < 1e-6) & hypotheses.valid).view(2, 2, 500).any(1)

    bearings = data.camera.bearings(scene.pixels.expand(2, -1, 2))
    rows = samples.flatten(1)[..., None].expand(-1, -1, 3)
    taken = (t.gather(1, rows).view(2, 500, 3, 3) for t in (bearings, scene.points))
    roots = p3p(*taken).valid.sum(-1)
    assert found[roots.sub(1.5).abs() < 1].all()  # one or two
    assert found.float().mean() > 0.9
    assert (hypotheses.valid.view(2, 2, 500).sum(1) == roots.clamp_max(2)).all()


def test_errors_are_infinite_behind_the_camera():
    scene = make_scene(1, rows=6, columns=8, dtype=torch.float64)
    pose = random_poses(1, torch.Generator().manual_seed(8), 3.0)
    depth = (scene.points @ pose[..., 2, :3, None] + pose[..., 2:, 3:])[0, :, 0]
    squared = squared_errors_px(correspondences(scene), pose[:, None])[0, 0]
    assert torch.equal(squared.isinf(), depth <= 1e-6)


def test_robust_scale_is_wide_for_gaussian_and_narrow_for_heavy_tails(generator):
    gaussian = torch.randn(1, 20_000, 2, generator=generator)
    heavy = gaussian * torch.randn(1, 20_000, 1, generator=generator).exp()
    everything = torch.ones(1, 20_000, dtype=torch.bool)
    wide = robust_scale_px(gaussian.square().sum(-1), everything)
    narrow = robust_scale_px(heavy.square().sum(-1), everything)
    assert wide.item() == pytest.approx(3 * 1.177, rel=0.1)
    assert narrow < wide / 3
    nothing = robust_scale_px(gaussian.square().sum(-1), ~everything)
    assert nothing.isfinite().all()
    assert (nothing > 0).all()
