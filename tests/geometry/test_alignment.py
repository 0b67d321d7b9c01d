"""Closed-form alignment against scipy, COLMAP's estimator and exact truth."""

import math

import numpy as np
import pycolmap
import pytest
import torch
from scipy.spatial.transform import Rotation

from acezero_gpu.geometry import PinholeCamera, Similarity, fit_similarity, reproject


def random_similarity(generator: torch.Generator, scale: float = 2.5) -> Similarity:
    vector = torch.randn(3, generator=generator, dtype=torch.float64)
    rotation = torch.from_numpy(Rotation.from_rotvec(vector.numpy()).as_matrix())
    translation = torch.randn(3, generator=generator, dtype=torch.float64)
    return Similarity(torch.tensor(scale, dtype=torch.float64), rotation, translation)


def noisy_pair(
    generator: torch.Generator, n: int = 20, noise: float = 0.1
) -> tuple[torch.Tensor, torch.Tensor]:
    source = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    target = random_similarity(generator).apply(source)
    return source, target + noise * torch.randn(n, 3, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("n", [3, 4, 50])
def test_exact_similarities_are_recovered(n, device, generator):
    truth = random_similarity(generator)
    source = torch.randn(n, 3, generator=generator, dtype=torch.float64)
    found = fit_similarity(source.to(device), truth.apply(source).to(device))
    torch.testing.assert_close(found.scale.cpu(), truth.scale)
    torch.testing.assert_close(found.rotation.cpu(), truth.rotation)
    torch.testing.assert_close(found.translation.cpu(), truth.translation)


def test_rotation_agrees_with_scipy_under_weights_and_noise(generator):
    source, target = noisy_pair(generator)
    weights = torch.rand(20, generator=generator, dtype=torch.float64)
    centre = [(weights[:, None] * points).sum(0) / weights.sum() for points in (source, target)]
    expected, _ = Rotation.align_vectors(
        (target - centre[1]).numpy(), (source - centre[0]).numpy(), weights.numpy()
    )
    found = fit_similarity(source, target, weights, with_scale=False)
    np.testing.assert_allclose(found.rotation.numpy(), expected.as_matrix(), atol=1e-9)
    assert found.scale.item() == 1.0
    np.testing.assert_allclose(found.translation, centre[1] - found.rotation @ centre[0])


def test_scale_and_translation_agree_with_colmap(generator):
    source, target = noisy_pair(generator)
    expected = pycolmap.estimate_sim3d(source.numpy(), target.numpy())
    found = fit_similarity(source, target)
    assert found.scale.item() == pytest.approx(expected.scale, rel=1e-9)
    np.testing.assert_allclose(found.rotation.numpy(), expected.rotation.matrix(), atol=1e-9)
    np.testing.assert_allclose(found.translation.numpy(), expected.translation, atol=1e-9)


def test_points_without_weight_have_no_say(generator):
    source, target = noisy_pair(generator, noise=0.0)
    spoiled = target.clone()
    spoiled[:5] += 100.0
    weights = torch.ones(20, dtype=torch.float64)
    weights[:5] = 0.0
    torch.testing.assert_close(
        fit_similarity(source, spoiled, weights).rotation, fit_similarity(source, target).rotation
    )


def test_rotations_are_proper_for_planar_and_mirrored_points(device, generator):
    source = torch.randn(2, 10, 3, generator=generator, dtype=torch.float64).to(device)
    source[0, :, 2] = 0.0
    mirrored = source * torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64, device=device)
    found = fit_similarity(source, mirrored)
    torch.testing.assert_close(
        torch.linalg.det(found.rotation), torch.ones(2, dtype=torch.float64, device=device)
    )


def test_a_batch_equals_its_elements_and_bad_ones_keep_to_themselves(device, generator):
    pairs = [noisy_pair(generator) for _ in range(5)]
    source, target = (torch.stack(side).to(device) for side in zip(*pairs, strict=True))
    source[1, 3, 0] = math.nan
    source[2] = 0.0
    together = fit_similarity(source, target)
    for i in (0, 3, 4):
        alone = fit_similarity(source[i], target[i])
        torch.testing.assert_close(together.rotation[i], alone.rotation)
        torch.testing.assert_close(together.scale[i], alone.scale)
        torch.testing.assert_close(together.translation[i], alone.translation)
    assert together.rotation[1].isnan().all()
    assert together.rotation[2].isfinite().all()


def test_moved_cameras_see_moved_points_in_the_same_pixels(generator):
    truth = random_similarity(generator)
    vectors = 0.2 * torch.randn(4, 3, generator=generator, dtype=torch.float64)
    rotation = torch.from_numpy(Rotation.from_rotvec(vectors.numpy()).as_matrix())
    shift = torch.randn(4, 3, 1, generator=generator, dtype=torch.float64)
    poses = torch.cat([rotation, shift], dim=-1)
    points = torch.randn(4, 9, 3, generator=generator, dtype=torch.float64)
    points[..., 2] += 8.0
    camera = PinholeCamera.centred(500.0, 640, 480, dtype=torch.float64)

    before = reproject(points, poses, camera)
    moved = truth.apply(points.flatten(0, 1)).unflatten(0, (4, 9))
    after = reproject(moved, truth.apply_to_cameras(poses), camera)

    torch.testing.assert_close(after.pixels, before.pixels)
    torch.testing.assert_close(after.depth, truth.scale * before.depth)
