"""Registration against a map that is right, half right, or nonsense."""

import math
from dataclasses import replace

import pytest
import torch
from reference.head_of_several import heads_of
from reference.posed_scene import PosedScene, make_scene
from reference.progress_listener import Heard
from torch import Tensor

from acezero_gpu.geometry import cell_centres_px, matrix_from_se3
from acezero_gpu.network import Head, HeadConfig, SceneMap, ensemble_of
from acezero_gpu.ransac import AbsolutePoseResult, estimate_absolute_pose
from acezero_gpu.registration import Registration, RegistrationConfig, register_images
from acezero_gpu.registration import register as register_module
from acezero_gpu.runtime.progress import listening

ROWS, COLUMNS = 15, 20
CELLS = ROWS * COLUMNS
STRIDE = 640 // COLUMNS


class TrueMap(SceneMap):
    """Finds the scene coordinate of a cell in the first three channels of its feature."""

    def scene_coordinates(self, features: Tensor, chunk_cells: int = 65536) -> Tensor:
        return features[:, :3].flatten(2).transpose(1, 2)[None]


class TwoHeads(SceneMap):
    """The first head knows images with a positive fourth channel, the second the others; NaN where one knows not."""

    def scene_coordinates(self, features: Tensor, chunk_cells: int = 65536) -> Tensor:
        points = features[:, :3].flatten(2).transpose(1, 2)
        first = features[:, 3].flatten(1)[:, :1, None] > 0
        nowhere = torch.full_like(points, math.nan)
        return torch.stack([torch.where(first, points, nowhere), torch.where(first, nowhere, points)])

    def parts(self) -> tuple[SceneMap, ...]:
        return heads_of(self)


def true_map() -> TrueMap:
    return TrueMap(Head(3, HeadConfig(width=4), torch.zeros(3)), "truth", 480, 1.0)


def scene_of(images: int, device: torch.device, **changes: object) -> tuple[PosedScene, Tensor]:
    """Images of 15 x 20 cells, and features that hold the scene coordinates."""
    scene = make_scene(images, rows=ROWS, columns=COLUMNS, device=device, **changes)
    return scene, scene.points.transpose(1, 2).unflatten(2, (ROWS, COLUMNS)).contiguous()


def register(
    scene: PosedScene,
    features: Tensor,
    config: RegistrationConfig | None = None,
    *,
    scene_map: SceneMap | None = None,
    images: Tensor | None = None,
    pixel_scale: float = 1.0,
    **arguments: object,
) -> Registration:
    return register_images(
        lambda part: features[part.to(features.device)],
        torch.arange(len(features)) if images is None else images,
        scene_map or true_map(),
        scene.camera,
        config or RegistrationConfig(),
        stride=STRIDE,
        pixel_scale=pixel_scale,
        generator=torch.Generator().manual_seed(0),
        **arguments,
    )


def test_a_right_map_gives_right_poses(device):
    scene, features = scene_of(5, device, noise_px=1.0, outliers=0.3)
    found = register(scene, features)
    rotation, distance = scene.errors(found.cam_from_world)
    assert rotation.max() < 0.5
    assert distance.max() < 0.05
    assert found.cells == CELLS
    inliers = (~scene.outlier).sum(1)
    assert ((found.inlier_count - inliers).abs() < 0.05 * CELLS).all()
    assert found.registered(RegistrationConfig()).all()
    torch.testing.assert_close(matrix_from_se3(found.se3()), found.cam_from_world, atol=1e-5, rtol=0)


def test_rows_follow_the_images_that_were_asked_for(device):
    scene, features = scene_of(6, device)
    wanted = torch.tensor([4, 0, 5])
    heard = Heard()
    with listening(heard):
        found = register(scene, features, RegistrationConfig(batch=2), images=wanted)
    torch.testing.assert_close(
        found.cam_from_world.double(), scene.cam_from_world[wanted], atol=2e-3, rtol=0, check_device=False
    )
    assert heard.reports == [(2, 3, "images"), (3, 3, "images")]


def test_batches_do_not_matter(device):
    scene, features = scene_of(5, device, noise_px=0.5, outliers=0.4)
    whole, split = (register(scene, features, RegistrationConfig(batch=batch)) for batch in (16, 2))
    torch.testing.assert_close(split.cam_from_world, whole.cam_from_world, atol=1e-4, rtol=0)
    assert torch.equal(split.inlier_count, whole.inlier_count)


@pytest.mark.parametrize("outliers, searched", [(0.4, [10, 5]), (0.85, [10, 10])])
def test_each_image_has_the_pose_of_the_head_that_knows_it(device, monkeypatch, outliers, searched):
    """A head that plainly knows an image after a first look is searched on alone, otherwise all are."""
    scene, features = scene_of(5, device, noise_px=0.5, outliers=outliers)
    knows = torch.tensor([1.0, -1.0, -1.0, 1.0, -1.0], device=device)[:, None, None, None]
    marked = torch.cat([features, knows.expand(-1, 1, ROWS, COLUMNS)], dim=1)
    heads = [Head(4, HeadConfig(width=4), torch.zeros(3)) for _ in range(2)]
    ensemble = TwoHeads(ensemble_of(heads), "two", 480, 1.0)
    alone, sizes = register(scene, features), []

    def counted(points: Tensor, *arguments: object, **named: object) -> AbsolutePoseResult:
        sizes.append(len(points))
        return estimate_absolute_pose(points, *arguments, **named)

    monkeypatch.setattr(register_module, "estimate_absolute_pose", counted)
    found = register(scene, marked, scene_map=ensemble)
    assert sizes == searched
    torch.testing.assert_close(found.cam_from_world, alone.cam_from_world, atol=1e-5, rtol=0)
    assert torch.equal(found.inlier_count, alone.inlier_count)
    assert found.cells == CELLS


def test_thresholds_scale_with_the_resolution(device):
    scene, features = scene_of(3, device, noise_px=4.0)
    full, quarter = (register(scene, features, pixel_scale=scale).inlier_count for scale in (1.0, 0.25))
    # Noise of 4 pixels along each axis: 96 % lie within 10 pixels, 18 % within 2.5.
    assert (full > 0.9 * CELLS).all()
    assert (quarter < 0.3 * CELLS).all()
    wider = RegistrationConfig(ransac=replace(RegistrationConfig().ransac, max_error_px=40.0))
    assert torch.equal(register(scene, features, wider, pixel_scale=0.25).inlier_count, full)


def test_a_distorting_lens_is_taken_into_account(device):
    """Cells see along the bent rays of the lens; told of it, registration is as good as without."""
    scene, _ = scene_of(3, device)
    radial = torch.tensor([-0.25, 0.05], dtype=torch.float64)
    pixels = cell_centres_px(ROWS, COLUMNS, STRIDE, dtype=torch.float64)
    camera = scene.camera.to("cpu", torch.float64)
    bent = camera.normalised(pixels)
    # What the lens maps to `bent`: COLMAP's polynomial solved by Newton's method along the radius.
    radius = bent.norm(dim=-1, keepdim=True)
    straight = radius.clone()
    for _ in range(30):
        value = straight * (1 + radial[0] * straight**2 + radial[1] * straight**4) - radius
        straight = straight - value / (1 + 3 * radial[0] * straight**2 + 5 * radial[1] * straight**4)
    rays = torch.cat([bent * straight / radius, torch.ones_like(radius)], dim=-1)
    depth = 2 + 3 * torch.rand(3, CELLS, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    pose = scene.cam_from_world.cpu()
    points = (rays * depth - pose[:, None, :, 3]) @ pose[:, :, :3]
    features = points.float().transpose(1, 2).unflatten(2, (ROWS, COLUMNS)).to(device)
    told = register(scene, features, radial=radial.float().to(device))
    untold = register(scene, features)
    assert (told.inlier_count == CELLS).all()
    assert scene.errors(told.cam_from_world)[0].max() < 0.02
    assert (untold.inlier_count < 0.9 * CELLS).all()


def test_an_image_counts_as_registered_from_the_share_on():
    counts = torch.tensor([0, 29, 30, 300])
    found = Registration(torch.eye(3, 4).repeat(4, 1, 1), counts, CELLS)
    assert found.registered(RegistrationConfig(min_inlier_share=0.1)).tolist() == [False, False, True, True]
    assert found.registered(RegistrationConfig(min_inlier_share=0.5)).tolist() == [False, False, False, True]


def test_an_untrained_map_registers_nothing(device, generator):
    scene, _ = scene_of(1, device)
    features = torch.randn(12, 16, ROWS, COLUMNS, generator=generator).to(device)
    torch.manual_seed(0)
    for _ in range(3):
        untrained = SceneMap(Head(16, HeadConfig(width=32), torch.zeros(3)).to(device), "any", 480, 1.0)
        found = register(scene, features, scene_map=untrained)
        assert not found.registered(RegistrationConfig()).any()
        assert found.cam_from_world.isfinite().all()


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0, 1e30])
def test_nonsense_registers_nothing_and_disturbs_no_neighbour(device, value):
    scene, features = scene_of(4, device, noise_px=1.0)
    alone = register(scene, features)
    features[2] = value
    found = register(scene, features)
    assert found.registered(RegistrationConfig()).tolist() == [True, True, False, True]
    rest = torch.tensor([0, 1, 3], device=device)
    torch.testing.assert_close(found.cam_from_world[rest], alone.cam_from_world[rest])
    assert torch.equal(found.inlier_count[rest], alone.inlier_count[rest])
