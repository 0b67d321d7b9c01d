"""Triangulation against exact synthetic truth, OpenCV and SciPy."""

import itertools

import cv2
import numpy as np
import pytest
import torch
from scipy.optimize import least_squares

from acezero_gpu.geometry import camera_centres, retract, transform_points, triangulate, triangulate_tracks


def scene(
    points: int, views: int, generator: torch.Generator, *, baseline: float = 1.0, noise: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Points about 5 in front of cameras that are spread by about ``baseline``; float64."""
    truth = torch.randn(points, 3, generator=generator, dtype=torch.float64) + torch.tensor([0.0, 0.0, 5.0])
    truth[:, 2].clamp_(min=2.0)
    step = torch.randn(views, 6, generator=generator, dtype=torch.float64) * torch.tensor(
        [baseline, baseline, 0.3 * baseline, 0.1, 0.1, 0.3], dtype=torch.float64
    )
    cameras = retract(torch.eye(3, 4, dtype=torch.float64).expand(views, 3, 4), step)
    seen = transform_points(cameras, truth.expand(views, points, 3)).transpose(0, 1)
    normalised = seen[..., :2] / seen[..., 2:]
    return truth, cameras, normalised + noise * torch.randn(normalised.shape, generator=generator).double()


def per_point(cameras: torch.Tensor, points: int) -> torch.Tensor:
    return cameras.expand(points, *cameras.shape)


@pytest.mark.parametrize("views", [2, 3, 8])
def test_exact_observations_give_the_truth(device, dtype, generator, views):
    truth, cameras, normalised = scene(40, views, generator)
    result = triangulate(
        normalised.to(device, dtype),
        per_point(cameras, 40).to(device, dtype),
        torch.ones(40, views).bool().to(device),
    )
    tolerance = 2e-3 if dtype == torch.float32 else 1e-9
    assert result.valid.all()
    torch.testing.assert_close(result.points.cpu().double(), truth, atol=tolerance, rtol=0)
    assert result.residual.max() < (1e-5 if dtype == torch.float32 else 1e-12)


def test_two_views_agree_with_opencv(generator):
    _, cameras, normalised = scene(30, 2, generator)
    homogeneous = cv2.triangulatePoints(
        cameras[0].numpy(), cameras[1].numpy(), normalised[:, 0].numpy().T, normalised[:, 1].numpy().T
    )
    result = triangulate(normalised, per_point(cameras, 30))
    np.testing.assert_allclose(result.points.numpy(), (homogeneous[:3] / homogeneous[3]).T, atol=1e-7)


@pytest.mark.parametrize(("views", "baseline"), [(2, 1.0), (2, 0.15), (5, 0.5)])
def test_noisy_points_are_scipys_least_squares(device, generator, views, baseline):
    count = 12
    truth, cameras, normalised = scene(count, views, generator, baseline=baseline, noise=2e-3)
    result = triangulate(normalised.to(device), per_point(cameras, count).to(device))

    def residuals(point: np.ndarray, row: int) -> np.ndarray:
        seen = cameras.numpy() @ np.append(point, 1.0)
        return (seen[:, :2] / seen[:, 2:] - normalised[row].numpy()).ravel()

    for row in range(count):
        best = least_squares(residuals, truth[row].numpy(), args=(row,), xtol=1e-14, ftol=1e-14, gtol=1e-14)
        expected = np.sqrt(2 * best.cost / views)
        assert result.residual[row].item() == pytest.approx(expected, rel=2e-3)
        distance = np.linalg.norm(result.points[row].cpu().numpy() - best.x)
        # a hundredth of the uncertainty of the point itself
        assert distance < 0.01 * max(np.linalg.norm(best.x - truth[row].numpy()), 0.01)


def test_masked_views_have_no_influence(device, generator):
    truth, cameras, normalised = scene(10, 4, generator)
    mask = torch.ones(10, 4, dtype=torch.bool)
    mask[:, 1] = False
    mask[3] = torch.tensor([True, False, False, False])
    mask[4] = False
    broken, broken_cameras = normalised.clone(), per_point(cameras, 10).clone()
    broken[:, 1], broken_cameras[:, 1] = torch.nan, torch.inf
    result = triangulate(broken.to(device), broken_cameras.to(device), mask.to(device))
    few = torch.tensor([row in (3, 4) for row in range(10)])
    assert torch.equal(result.valid.cpu(), ~few)
    torch.testing.assert_close(result.points.cpu()[~few], truth[~few], atol=1e-8, rtol=0)
    assert torch.isfinite(result.points).all()
    assert (result.angle_deg.cpu()[few] == 0).all()
    bearings = torch.nn.functional.normalize(truth[:, None] - camera_centres(cameras)[[0, 2, 3]], dim=-1)
    cosine = (bearings @ bearings.transpose(1, 2)).flatten(1).amin(1)
    expected = torch.rad2deg(torch.arccos(cosine))
    torch.testing.assert_close(result.angle_deg.cpu()[~few], expected[~few], atol=1e-6, rtol=0)


def test_bad_points_are_marked_and_alone(device, dtype, generator):
    truth, cameras, normalised = scene(6, 2, generator)
    poses = per_point(cameras, 6).clone()
    poses[0, 1] = poses[0, 0]
    normalised[0, 1] = normalised[0, 0]  # parallel rays from one centre
    behind = torch.tensor([0.3, 0.2, -4.0], dtype=torch.float64)
    seen = transform_points(poses[1], behind.expand(2, 1, 3))[:, 0]
    normalised[1] = seen[:, :2] / seen[:, 2:]  # meets behind both cameras
    poses[2], normalised[2] = torch.nan, torch.nan
    result = triangulate(normalised.to(device, dtype), poses.to(device, dtype))
    assert result.valid.tolist() == [False, False, False, True, True, True]
    tolerance = 2e-3 if dtype == torch.float32 else 1e-9
    torch.testing.assert_close(result.points[3:].cpu().double(), truth[3:], atol=tolerance, rtol=0)


def test_far_world_origin_costs_float32_no_accuracy(device, generator):
    truth, cameras, normalised = scene(30, 3, generator)
    shift = torch.tensor([3000.0, -2000.0, 500.0], dtype=torch.float64)
    moved = cameras.clone()
    moved[..., 3] = cameras[..., 3] - (cameras[..., :3] @ shift)
    result = triangulate(normalised.to(device).float(), per_point(moved, 30).to(device).float())
    # the cameras' own rounding moves them by about 3e-4, which the depth multiplies
    assert (result.points.cpu().double() - shift - truth).norm(dim=-1).median() < 5e-3


def test_tracks_equal_the_dense_form(device, generator):
    points, views = 25, 6
    _, cameras, normalised = scene(points, views, generator, noise=1e-3)
    mask = torch.rand(points, views, generator=generator) < 0.6
    mask[0] = False
    mask[1] = torch.arange(views) == 2
    mask[2:] |= torch.arange(views) < 2
    dense = triangulate(normalised.to(device), per_point(cameras, points).to(device), mask.to(device))
    point_index, view_index = mask.nonzero(as_tuple=True)
    order = torch.randperm(len(point_index), generator=generator)
    point_index, view_index = point_index[order], view_index[order]
    sparse = triangulate_tracks(
        view_index.to(device),
        point_index.to(device),
        normalised[point_index, view_index].to(device),
        cameras.to(device),
        points,
    )
    assert torch.equal(sparse.valid, dense.valid)
    assert sparse.valid.sum() == points - 2
    torch.testing.assert_close(sparse.points[2:], dense.points[2:], atol=1e-7, rtol=0)
    torch.testing.assert_close(sparse.residual, dense.residual, atol=1e-9, rtol=0)
    assert (sparse.angle_deg <= dense.angle_deg + 1e-9).all()
    assert (sparse.angle_deg >= 0.8 * dense.angle_deg).all()
    two = mask.sum(1).to(device) == 2
    torch.testing.assert_close(sparse.angle_deg[two], dense.angle_deg[two], atol=1e-9, rtol=0)


def test_refinement_steps_lower_the_error(generator):
    points, views = 200, 5
    truth, cameras, normalised = scene(points, views, generator, noise=5e-3)
    point_index, view_index = torch.ones(points, views).nonzero(as_tuple=True)
    arguments = view_index, point_index, normalised.flatten(0, 1), cameras, points
    after = [triangulate_tracks(*arguments, refinement_steps=steps) for steps in (0, 1, 4, 20)]
    for fewer, more in itertools.pairwise(after):
        assert (more.residual <= fewer.residual * (1 + 1e-9)).all()
    assert after[0].residual.mean() > after[1].residual.mean() > after[3].residual.mean()
    assert torch.equal(after[2].points, triangulate_tracks(*arguments).points)
    # One step is within a small part of the points' own error.
    own = (after[3].points - truth).norm(dim=-1).median()
    assert (after[1].points - after[3].points).norm(dim=-1).median() < 0.05 * own


def test_empty(device):
    result = triangulate(torch.zeros(0, 2, 2, device=device), torch.zeros(0, 2, 3, 4, device=device))
    assert result.points.shape == (0, 3)
    none = torch.zeros(0, dtype=torch.long, device=device)
    tracks = triangulate_tracks(
        none, none, torch.zeros(0, 2, device=device), torch.zeros(3, 3, 4, device=device), 4
    )
    assert tracks.points.shape == (4, 3)
    assert not tracks.valid.any()
