"""Splats trained with gsplat's own strategy, drawn by its own formulas on a CPU."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from gsplat import DefaultStrategy
from reference.splat_drawing import rasterization
from scipy.spatial import cKDTree

from acezero_gpu.geometry import PinholeCamera, retract, undistort_pixels
from acezero_gpu.splatting import (
    ColourViews,
    SplatBackend,
    SplatConfig,
    initial_gaussians,
    missing_requirement,
    train_splats,
    training,
    undistorted,
    view_figures,
)
from acezero_gpu.splatting import backend as backend_module
from acezero_gpu.splatting.training import _drawn

WIDTH, HEIGHT = 40, 32
CONFIG = SplatConfig(steps=160, sh_degree=1, sh_every=80)


@pytest.fixture
def backend() -> SplatBackend:
    return SplatBackend(rasterization, DefaultStrategy, torch.device("cpu"))


def start(points, colours, seed=0, **changes):
    options = {"most": 1000, "sh_degree": 1, "opacity": 0.5} | changes
    return initial_gaussians(points, colours, generator=torch.Generator().manual_seed(seed), **options)


@pytest.fixture
def cloud(generator):
    points = torch.rand(80, 3, generator=generator) * torch.tensor([2.0, 1.6, 1.0]) - 0.8
    return points, torch.randint(256, (80, 3), generator=generator, dtype=torch.uint8)


@pytest.fixture
def views(cloud, backend, generator):
    """Nine pictures of coloured blobs, drawn exactly."""
    steps = torch.cat(
        [0.15 * torch.randn(9, 3, generator=generator), 0.05 * torch.randn(9, 3, generator=generator)], 1
    )
    poses = torch.eye(3, 4).repeat(9, 1, 1)
    poses[:, 2, 3] = 3.0
    blank = torch.zeros(9, HEIGHT, WIDTH, 3, dtype=torch.uint8)
    seen = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    empty = ColourViews(blank, retract(poses, steps), PinholeCamera.centred(45.0, WIDTH, HEIGHT), seen)
    truth = start(*cloud, opacity=0.8)
    with torch.no_grad():
        drawn, _ = _drawn(truth, empty, torch.arange(9), 0, backend)
    return replace(empty, images=(drawn.clamp(0, 1) * 255).round().to(torch.uint8))


def part(views: ColourViews, rows: slice) -> ColourViews:
    return replace(views, images=views.images[rows], cam_from_world=views.cam_from_world[rows])


def test_gaussians_start_as_wide_as_their_neighbours_are_far(cloud):
    points, colours = cloud
    splats = start(points, colours)
    distance, _ = cKDTree(points.numpy()).query(points.numpy(), k=4)
    expected = torch.from_numpy(distance[:, 1:]).square().mean(1).sqrt().log().float()
    torch.testing.assert_close(splats["scales"], expected[:, None].expand(80, 3), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(splats["sh0"][:, 0] * 0.2820948 + 0.5, colours / 255.0)
    assert splats["opacities"].sigmoid().tolist() == pytest.approx([0.5] * 80)
    assert splats["shN"].shape == (80, 3, 3)
    fewer = start(points, colours, most=20)
    assert len(fewer["means"]) == 20
    assert torch.cdist(fewer["means"], points).min(1).values.max() == 0


@pytest.mark.parametrize("points", [torch.rand(3, 3), torch.ones(9, 3)], ids=["three", "all the same"])
def test_too_few_points_are_refused(points):
    with pytest.raises(ValueError, match="points to start from|too few"):
        start(points, torch.zeros(len(points), 3, dtype=torch.uint8))


def test_training_shows_held_back_views_better_and_adds_gaussians(views, cloud, backend):
    points, colours = cloud
    train, test = part(views, slice(0, 7)), part(views, slice(7, 9))
    rough = points + 0.05 * torch.randn(points.shape, generator=torch.Generator().manual_seed(1))
    grey = torch.full_like(colours, 128)
    before = view_figures(start(rough, grey, opacity=0.1), test, backend)
    growing = SplatBackend(
        backend.rasterise,
        partial(DefaultStrategy, refine_every=20, grow_grad2d=1e-4),
        backend.device,
    )
    splats = train_splats(train, rough, grey, CONFIG, growing, torch.Generator().manual_seed(2))
    after = view_figures(splats, test, backend)
    assert after["psnr"] > before["psnr"] + 5, (before, after)
    assert after["ssim"] > before["ssim"] + 0.1, (before, after)
    assert len(splats["means"]) > len(points)
    torch.rand(5)  # what others draw changes nothing
    again = train_splats(train, rough, grey, CONFIG, growing, torch.Generator().manual_seed(2))
    assert torch.equal(again["means"], splats["means"])


def test_figures_are_those_of_their_definitions(views, cloud, backend):
    truth = start(*cloud, opacity=0.8)
    same = view_figures(truth, views, backend)
    assert same["psnr"] > 50
    assert same["ssim"] > 0.999
    darker = (views.images.float() * 0.9).round().to(torch.uint8)
    found = view_figures(truth, replace(views, images=darker), backend)
    noise = ((views.images.float() - darker.float()) / 255).square().flatten(1).mean(1)
    assert found["psnr"] == pytest.approx(float((-10 * noise.log10()).mean()), abs=0.05)
    # What no photograph has seen counts for nothing.
    spoilt, seen = views.images.clone(), views.seen.clone()
    spoilt[:, :, : WIDTH // 2], seen[:, : WIDTH // 2] = 255, False
    assert view_figures(truth, replace(views, images=spoilt), backend)["psnr"] < 20
    assert view_figures(truth, replace(views, images=spoilt, seen=seen), backend)["psnr"] > 50
    half = view_figures(truth, replace(views, images=darker, seen=seen), backend)
    noise = ((views.images.float() - darker.float()) / 255)[:, :, WIDTH // 2 :].square().flatten(1).mean(1)
    assert half["psnr"] == pytest.approx(float((-10 * noise.log10()).mean()), abs=0.05)
    noisy = (views.images + 40 * (torch.arange(WIDTH) % 2)[:, None]).to(torch.uint8)
    wide, narrow = (
        view_figures(truth, replace(views, images=noisy, seen=s), backend) for s in (views.seen, seen)
    )
    assert narrow["ssim"] == pytest.approx(wide["ssim"], abs=0.12)
    assert narrow["ssim"] < 0.8


def test_a_loss_that_is_not_finite_ends_the_training(views, cloud, backend):
    def broken(**given):
        drawn, covered, info = rasterization(**given)
        return drawn * torch.nan, covered, info

    bad = SplatBackend(broken, backend.make_strategy, backend.device)
    with pytest.raises(ValueError, match="not finite at step 0"):
        train_splats(views, *cloud, CONFIG, bad, torch.Generator())


def test_cameras_in_one_place_do_not_shrink_the_scene(views, cloud, backend):
    """The strategy measures Gaussians by the extent, and would remove them all; few steps, but past its start."""
    same = replace(views, cam_from_world=views.cam_from_world[:1].expand(9, 3, 4).clone())
    assert training._extent(same, cloud[0]) > 0.1
    assert training._extent(views, cloud[0]) < 10


def test_an_end_without_gaussians_is_said(views, cloud, backend):
    class Removing(DefaultStrategy):
        def step_post_backward(self, params, optimizers, state, step, info, packed=False):
            params["means"] = torch.nn.Parameter(params["means"][:0])

    with pytest.raises(ValueError, match="No Gaussian is left after step 0"):
        train_splats(views, *cloud, CONFIG, replace(backend, make_strategy=Removing), torch.Generator())


@pytest.mark.parametrize("radial", [(-0.15, 0.03), (0.08, 0.0)])
def test_undistorted_pictures_are_those_of_a_pinhole(radial):
    """A picture whose every pixel tells the ray it shows, against the own inverse of the lens."""
    width, height = 96, 72
    camera = PinholeCamera.centred(80.0, width, height)
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    pixels = torch.stack([x, y], dim=-1).view(-1, 2)

    def picture(seen):
        u, v = (seen / torch.tensor([width, height])).clamp(0, 1).unbind(-1)
        return torch.stack([u, v, 0.5 + 0.2 * (6 * u).sin() * (5 * v).cos()], dim=-1).view(height, width, 3)

    seen = undistort_pixels(pixels, camera, torch.tensor(radial))
    distorted = (picture(seen) * 255).round().to(torch.uint8)[None]
    found, mask = undistorted(distorted, camera, radial)
    difference = (found[0].float() / 255 - picture(pixels)).abs().amax(-1)
    assert difference[mask].max() < 0.008
    # A lens that draws inwards has seen more than the picture holds, one that draws outwards less.
    assert bool(mask[12:-12, 12:-12].all())
    assert bool(mask[0, 0]) == (radial[0] < 0)
    same, everything = undistorted(distorted, camera, (0.0, 0.0))
    assert same is distorted
    assert bool(everything.all())


def fails():
    raise RuntimeError("no compiler\nand a page of commands")


def test_what_is_missing_is_said(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "GPU" in str(missing_requirement())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for kernels, complaint in ((lambda: None, "CUDA toolkit"), (fails, "cannot be compiled (no compiler)")):
        monkeypatch.setattr(backend_module, "kernels_of_gsplat", kernels)
        assert complaint in str(missing_requirement())
    monkeypatch.setattr(backend_module, "kernels_of_gsplat", object)
    assert missing_requirement() is None
    monkeypatch.setattr(backend_module.importlib.util, "find_spec", lambda name: None)
    assert "pip install 'acezero-gpu[splat]'" in str(missing_requirement())
