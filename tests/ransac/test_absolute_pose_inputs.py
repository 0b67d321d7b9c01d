"""Bad inputs of the estimator: what they are called, and that nothing else suffers."""

import math

import pypose as pp
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from reference.pose_results import PRESETS, identical, pose_rows
from reference.posed_scene import PosedScene, make_scene

from acezero_gpu.geometry import PinholeCamera, invert, matrix_from_se3, reproject, transform_points
from acezero_gpu.pnp import PoseStatus
from acezero_gpu.ransac import RansacConfig, estimate_absolute_pose

S = PoseStatus
BAD = {
    "points are NaN": S.TOO_FEW_POINTS,
    "points are infinite": S.TOO_FEW_POINTS,
    "points are huge": S.TOO_FEW_POINTS,
    "pixels are NaN": S.TOO_FEW_POINTS,
    "pixels are huge": S.TOO_FEW_POINTS,
    "all but three masked": S.TOO_FEW_POINTS,
    "all but three infinite": S.TOO_FEW_POINTS,
    "zero focal": S.TOO_FEW_POINTS,
    "negative focal": S.TOO_FEW_POINTS,
    "NaN focal": S.TOO_FEW_POINTS,
    "infinite principal point": S.TOO_FEW_POINTS,
    "one point": S.NO_HYPOTHESIS,
    "one pixel": S.NO_HYPOTHESIS,
    "collinear": S.NO_HYPOTHESIS,
    "two points": S.NO_HYPOTHESIS,
}
"""What is wrong with an image, and its status."""


class Inputs:
    """A batch in which every second image is good, and of these every second one easy."""

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        batch = 2 * len(BAD) + 1
        easy, hard = (
            make_scene(
                batch, outliers=share, noise_px=1.5, rows=12, columns=16, dtype=dtype, device=device, seed=7
            )
            for share in (0.1, 0.65)
        )
        self.points = easy.points
        self.points[::4] = hard.points[::4]
        self.pixels = easy.pixels.repeat(batch, 1, 1)
        self.focal = easy.camera.focal_px.repeat(batch, 1)
        self.principal = easy.camera.principal_point_px.repeat(batch, 1)
        self.mask = torch.ones(batch, self.points.shape[1], dtype=torch.bool, device=device)

    def estimate(self, config: RansacConfig):
        camera = PinholeCamera(self.focal, self.principal)
        return estimate_absolute_pose(self.points, self.pixels, camera, config, mask=self.mask)

    def spoil(self, image: int, what: str) -> None:
        points, pixels = self.points[image], self.pixels[image]
        line = torch.linspace(-1, 1, len(points), dtype=points.dtype, device=points.device)[:, None]
        if what == "points are NaN":
            points[:, 1] = math.nan
        elif what == "points are infinite":
            points[:, 2] = -math.inf
        elif what == "points are huge":
            points[:] = 1e30
        elif what == "pixels are NaN":
            pixels[:, 0] = math.nan
        elif what == "pixels are huge":
            pixels[:] = 1e30
        elif what == "all but three masked":
            self.mask[image, 3:] = False
        elif what == "all but three infinite":
            points[3:, 0] = math.inf
        elif what == "zero focal":
            self.focal[image, 0] = 0
        elif what == "negative focal":
            self.focal[image] *= -1
        elif what == "NaN focal":
            self.focal[image, 1] = math.nan
        elif what == "infinite principal point":
            self.principal[image] = math.inf
        elif what == "one point":
            points[:] = points[0].clone()
        elif what == "one pixel":
            pixels[:] = pixels[0].clone()
        elif what == "collinear":
            points[:] = line * torch.stack([line[-1, 0] * k for k in (1, 2, 3)])
        elif what == "two points":
            points[:] = torch.where(line > 0, points[:1].clone(), points[1:2].clone())


@pytest.mark.parametrize("preset", PRESETS)
def test_bad_images_are_named_and_leave_the_others_bit_identical(device, dtype, preset):
    inputs = Inputs(dtype, device)
    clean = inputs.estimate(PRESETS[preset])
    good = list(range(0, len(inputs.points), 2))
    assert (clean.status[good] == S.OK).all()
    for k, what in enumerate(BAD):
        inputs.spoil(2 * k + 1, what)
    result = inputs.estimate(PRESETS[preset])
    assert dict(zip(BAD, result.status[1::2].tolist(), strict=True)) == {k: int(v) for k, v in BAD.items()}
    assert identical(result, clean, good)
    identity = torch.eye(7, dtype=dtype, device=device)[6]
    assert torch.equal(pose_rows(result)[1::2], identity.expand(len(BAD), 7))
    assert not result.inliers[1::2].any()
    assert (result.inlier_count[1::2] == 0).all()
    assert (result.score[1::2] == 0).all()


def planar(noise_px: float, dtype: torch.dtype, device: torch.device) -> PosedScene:
    """The scene's views of a slanted plane four metres away, with a third of outliers."""
    scene = make_scene(4, outliers=0.3, rows=12, columns=16, dtype=torch.float64, seed=3)
    noise = noise_px * torch.randn(4, 192, 2, generator=torch.Generator().manual_seed(4)).double()
    rays = scene.camera.normalised(scene.pixels + noise)
    rays = torch.cat([rays, torch.ones_like(rays[..., :1])], dim=-1)
    depth = 4 / (rays @ torch.tensor([0.3, -0.4, 1.0]).double())
    plane = transform_points(invert(scene.cam_from_world), rays * depth[..., None])
    points = torch.where(scene.outlier[..., None], scene.points, plane)
    return PosedScene(
        points.to(device, dtype),
        scene.pixels.to(device, dtype),
        scene.camera.to(device, dtype),
        scene.cam_from_world.to(device),
        scene.outlier.to(device),
    )


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("noise_px", [0.0, 1.0])
def test_points_in_a_plane_determine_the_pose(device, dtype, preset, noise_px):
    scene = planar(noise_px, dtype, device)
    result = estimate_absolute_pose(scene.points, scene.pixels, scene.camera, PRESETS[preset])
    assert (result.status == S.OK).all()
    rotation_deg, distance = scene.errors(matrix_from_se3(result.cam_from_world))
    exact = 1e-4 if dtype == torch.float32 else 1e-7
    assert distance.max() < (0.06 if noise_px else exact)
    assert rotation_deg.max() < (1.0 if noise_px else 30 * exact)


@pytest.mark.parametrize("preset", PRESETS)
def test_no_inlier_lies_behind_the_camera(device, dtype, preset):
    """A scene mirrored at its camera reprojects perfectly from behind."""
    scene = make_scene(3, rows=12, columns=16, dtype=dtype, device=device)
    pose = scene.cam_from_world.to(dtype)
    mirrored = transform_points(invert(pose), -transform_points(pose, scene.points))
    result = estimate_absolute_pose(mirrored, scene.pixels, scene.camera, PRESETS[preset])
    seen = reproject(mirrored, matrix_from_se3(result.cam_from_world), scene.camera)
    assert (seen.depth[result.inliers] > 0).all()
    assert (result.inlier_count < 0.25 * 192).all()  # a few lie on some ray by chance

    third = (torch.arange(192, device=device) % 3 > 0)[:, None]
    mixed = torch.where(third, scene.points, mirrored)
    result = estimate_absolute_pose(mixed, scene.pixels, scene.camera, PRESETS[preset])
    assert result.inlier_count.tolist() == [128] * 3
    assert torch.equal(result.inliers, third[:, 0].expand(3, 192))


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e10, 1e20, 1e38])
@pytest.mark.parametrize("preset", PRESETS)
def test_bad_points_are_as_good_as_masked(device, preset, value):
    scene = make_scene(3, outliers=0.3, noise_px=1.5, rows=12, columns=16, device=device)
    mask = torch.rand(3, 192, generator=torch.Generator().manual_seed(2)).to(device) < 0.8
    run = lambda points, pixels, mask=None: estimate_absolute_pose(  # noqa: E731
        points, pixels, scene.camera, PRESETS[preset], mask=mask
    )
    pixels = scene.pixels.expand(3, -1, 2)
    masked = run(scene.points, pixels, mask)
    assert identical(run(scene.points, torch.where(mask[..., None], pixels, value)), masked)
    if value > 1e10 or math.isnan(value):  # a point may be far away
        assert identical(run(torch.where(mask[..., None], scene.points, value), pixels), masked)


EXTREMES = [0.0, math.nan, math.inf, -math.inf, 1e38, -1e38, 1e-38, 1e20, -1e10, 1e9, -1.0]


@given(
    seed=st.integers(0, 2**31), share=st.sampled_from([0.02, 0.3, 1.0]), preset=st.sampled_from([*PRESETS])
)
@settings(max_examples=25, deadline=None)
def test_whatever_comes_in_no_nan_comes_out(seed, share, preset):
    g = torch.Generator().manual_seed(seed)
    scene = make_scene(6, outliers=0.3, noise_px=1.0, rows=6, columns=8, seed=seed)
    extremes = torch.tensor(EXTREMES)

    def spoilt(values: torch.Tensor) -> torch.Tensor:
        """Some images have some extreme values."""
        chosen = torch.rand(values.shape, generator=g) < share
        chosen &= torch.rand(6, *[1] * (values.dim() - 1), generator=g) < 0.4
        strange = extremes[torch.randint(len(EXTREMES), values.shape, generator=g)]
        return torch.where(chosen, strange, values)

    points, pixels = spoilt(scene.points), spoilt(scene.pixels.expand(6, -1, 2))
    camera = PinholeCamera(
        spoilt(scene.camera.focal_px.expand(6, 2)), spoilt(scene.camera.principal_point_px.expand(6, 2))
    )
    initial = pp.SE3(spoilt(torch.randn(6, 7, generator=g)))
    weights = spoilt(torch.rand(6, 48, generator=g))
    mask = torch.rand(6, 48, generator=g) < 0.9
    result = estimate_absolute_pose(
        points, pixels, camera, PRESETS[preset], mask=mask, weights=weights, initial=initial
    )
    assert pose_rows(result).isfinite().all()
    assert not result.score.isnan().any()
    assert set(result.status.tolist()) <= {S.OK, S.TOO_FEW_POINTS, S.NO_HYPOTHESIS, S.TOO_FEW_INLIERS}
    assert torch.equal(result.inlier_count, result.inliers.sum(-1))
    usable = mask & (weights > 0) & weights.isfinite()
    usable &= points.isfinite().all(-1) & pixels.isfinite().all(-1)
    assert not (result.inliers & ~usable).any()
    assert ((result.inlier_count >= 4) == (result.status == S.OK)).all()
    seen = reproject(points, matrix_from_se3(result.cam_from_world), camera)
    error = (seen.pixels - pixels).norm(dim=-1)
    assert (error[result.inliers] < 10 + 1e-2 + 1e-5 * pixels.abs().amax(-1)[result.inliers]).all()


@pytest.mark.parametrize(("batch", "n"), [(0, 50), (0, 0), (3, 0), (3, 3)])
def test_nothing_to_do(batch, n, dtype):
    camera = PinholeCamera(torch.ones(2, dtype=dtype), torch.ones(2, dtype=dtype))
    result = estimate_absolute_pose(
        torch.zeros(batch, n, 3, dtype=dtype),
        torch.zeros(n, 2, dtype=dtype),
        camera,
        weights=torch.ones(batch, n, dtype=dtype),
        initial=pp.identity_SE3(batch, dtype=dtype),
    )
    assert result.cam_from_world.shape == (batch, 7)
    assert result.cam_from_world.dtype == result.score.dtype == dtype
    assert result.inliers.shape == (batch, n)
    assert result.status.tolist() == [S.TOO_FEW_POINTS] * batch


REFUSED = {
    r"points must have the shape \(batch, n, 3\)": {"points": torch.zeros(2, 9, 2)},
    r"points must have the shape \(batch, n, 3\), got \(9, 3\)": {"points": torch.zeros(9, 3)},
    "points must be float32 or float64": {"points": torch.zeros(2, 9, 3, dtype=torch.float16)},
    r"pixels must have the shape \(9, 2\) or \(2, 9, 2\)": {"pixels": torch.zeros(8, 2)},
    "pixels is torch.float64": {"pixels": torch.zeros(9, 2, dtype=torch.float64)},
    r"camera.focal_px must have the shape \(2,\) or \(2, 2\)": {
        "camera": PinholeCamera(torch.ones(3, 2), torch.ones(3, 2))
    },
    "camera.focal_px is torch.float64": {
        "camera": PinholeCamera(torch.ones(2).double(), torch.ones(2).double())
    },
    "pixels is torch.float32 on meta": {"pixels": torch.zeros(9, 2, device="meta")},
    "mask must be bool": {"mask": torch.ones(2, 9)},
    r"mask must be bool of shape \(2, 9\)": {"mask": torch.ones(2, 8, dtype=torch.bool)},
    "mask is on meta": {"mask": torch.ones(2, 9, dtype=torch.bool, device="meta")},
    r"weights must have the shape \(2, 9\)": {"weights": torch.ones(9)},
    "got .* torch.float64 on cpu": {"weights": torch.ones(2, 9, dtype=torch.float64)},
    "weights .* on meta": {"weights": torch.ones(2, 9, device="meta")},
    r"initial must be SE3 of shape \(2, 7\)": {"initial": torch.zeros(2, 3, 4)},
    r"initial .* got \(1, 7\)": {"initial": pp.identity_SE3(1)},
    "initial .* torch.float64 on cpu": {"initial": pp.identity_SE3(2, dtype=torch.float64)},
    "hypotheses is 0, which needs initial poses": {"config": RansacConfig(hypotheses=0)},
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_wrong_inputs_are_refused_with_a_sentence(sentence):
    camera = PinholeCamera(torch.ones(2), torch.ones(2))
    inputs = {"points": torch.zeros(2, 9, 3), "pixels": torch.zeros(9, 2), "camera": camera}
    with pytest.raises(ValueError, match=sentence):
        estimate_absolute_pose(**inputs | REFUSED[sentence])


@pytest.mark.parametrize(
    "bad",
    [
        {"hypotheses": -1},
        {"attempts": 0},
        {"max_error_px": 0.0},
        {"max_error_px": math.nan},
        {"first_round": 0},
        {"confidence": 1.0},
        {"confidence": 0.0},
        {"prescore_keep": 0},
        {"local_candidates": 0},
    ],
)
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValueError, match=f"RansacConfig.{next(iter(bad))} must "):
        RansacConfig(**bad)
