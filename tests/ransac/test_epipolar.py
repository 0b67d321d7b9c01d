"""The parts of relative pose estimation against finite differences and OpenCV."""

import math

import cv2
import numpy as np
import torch
from reference.two_view_pairs import pairs, pose_error_deg

from acezero_gpu.geometry import hat, retract
from acezero_gpu.ransac.degeneracy import transfer_squared
from acezero_gpu.ransac.epipolar import (
    MatchMoments,
    _linearise,
    _step,
    essential_hypotheses,
    essential_matrix,
    in_front,
    poses_of_essential,
    ray_angle_deg,
    sample_matches,
    sampson_squared,
)


def test_samples_are_distinct_masked_and_even(device, generator):
    mask = torch.zeros(2, 12, dtype=torch.bool)
    mask[0, [0, 2, 3, 5, 8, 11]] = True
    mask[1] = True
    uniform = torch.rand(2, 6000, 5, generator=generator)
    slots = sample_matches(mask.to(device), uniform.to(device)).cpu()
    assert (slots.sort(-1).values.diff(dim=-1) > 0).all()
    assert mask[0][slots[0]].all()
    for row, available in ((0, 6), (1, 12)):
        for position in range(5):
            share = torch.bincount(slots[row, :, position], minlength=12) / 6000
            # four standard deviations of a binomial count
            bound = 4 * math.sqrt(1 / available * (1 - 1 / available) / 6000)
            assert (share[mask[row]] - 1 / available).abs().max() < bound
    edge = sample_matches(mask.to(device), torch.full((2, 1, 5), 1 - 2**-24, device=device)).cpu()
    assert mask[0][edge[0]].all()


def test_hypotheses_hold_the_truth(device, generator):
    rays_a, rays_b, truth, _ = pairs(40, 5, generator, noise_px=0.0)
    essential, real = essential_hypotheses(rays_a[:, None].to(device), rays_b[:, None].to(device))
    expected = essential_matrix(truth).flatten(1)
    expected = (expected / expected.norm(dim=1, keepdim=True))[:, None].to(device)
    overlap = (essential.flatten(2) * expected).sum(-1).abs()
    assert ((overlap * real).amax(1) > 1 - 1e-6).float().mean() >= 0.95
    assert real.any(1).all()
    assert (essential[~real] == 0).all()


def test_sampson_distance_is_opencvs(generator):
    rays_a, rays_b, b_from_a, _ = pairs(1, 30, generator, noise_px=20.0)
    essential = essential_matrix(b_from_a)
    ours = sampson_squared(essential[:, None], MatchMoments.of(rays_a, rays_b))[0, 0]
    theirs = [
        cv2.sampsonDistance(
            np.append(a, 1.0).reshape(3, 1), np.append(b, 1.0).reshape(3, 1), essential[0].numpy()
        )
        for a, b in zip(rays_a[0].numpy(), rays_b[0].numpy(), strict=True)
    ]
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-9)


def test_four_poses_share_the_essential_matrix_and_one_is_in_front(device, generator):
    rays_a, rays_b, truth, _ = pairs(20, 25, generator, noise_px=0.0)
    rays_a, rays_b, truth = rays_a.to(device), rays_b.to(device), truth.to(device)
    essential = -2.5 * essential_matrix(truth)
    poses = poses_of_essential(essential)
    rotations = poses[..., :3]
    eye = torch.eye(3, dtype=torch.float64, device=device).expand_as(rotations)
    torch.testing.assert_close(rotations @ rotations.transpose(-1, -2), eye, atol=1e-9, rtol=0)
    assert (torch.linalg.det(rotations) > 0).all()
    again = essential_matrix(poses).flatten(-2)
    scaled = torch.nn.functional.normalize(essential.flatten(-2), dim=-1)[:, None]
    overlap = (torch.nn.functional.normalize(again, dim=-1) * scaled).sum(-1).abs()
    torch.testing.assert_close(overlap, torch.ones_like(overlap), atol=1e-9, rtol=0)
    front = in_front(poses, rays_a, rays_b, 1e-6)
    assert (front.all(-1).sum(1) == 1).all()
    chosen = poses[front.all(-1)]
    assert pose_error_deg(chosen, truth).max() < 1e-5


def test_derivative_of_the_refinement_is_the_finite_difference(generator):
    rays_a, rays_b, b_from_a, _ = pairs(3, 10, generator, noise_px=30.0)
    unit = torch.nn.functional.normalize(b_from_a[..., 3], dim=-1)
    pose = torch.cat([b_from_a[..., :3], unit[..., None]], dim=-1)[:, None]
    moments = MatchMoments.of(rays_a, rays_b)
    residual, jacobian = _linearise(pose, moments)
    torch.testing.assert_close(residual.square(), sampson_squared(essential_matrix(pose), moments))
    for column in range(5):
        step = torch.zeros(3, 1, 5, dtype=torch.float64)
        step[..., column] = 1e-6
        ahead, _ = _linearise(_step(pose, step), moments)
        behind, _ = _linearise(_step(pose, -step), moments)
        torch.testing.assert_close(jacobian[..., column], (ahead - behind) / 2e-6, atol=1e-7, rtol=1e-5)


def test_transfer_distance_is_the_least_correction(generator):
    """Sampson's closed form against a search for the nearest pair of points that fit exactly."""
    rotation = retract(
        torch.eye(3, 4, dtype=torch.float64), torch.tensor([0, 0, 0, 0.2, -0.1, 0.3]).double()
    )[:, :3]
    homography = rotation + 0.1 * torch.randn(3, 3, generator=generator, dtype=torch.float64)
    a = 0.6 * torch.rand(1, 8, 2, generator=generator, dtype=torch.float64) - 0.3
    mapped = torch.cat([a, torch.ones_like(a[..., :1])], -1) @ homography.T
    b = mapped[..., :2] / mapped[..., 2:] + 1e-3 * torch.randn(
        1, 8, 2, generator=generator, dtype=torch.float64
    )
    ours = transfer_squared(homography[None, None], a, b)[0, 0].sqrt()
    moved = a.clone().requires_grad_()
    optimiser = torch.optim.LBFGS([moved], lr=1, max_iter=200, tolerance_grad=1e-14, tolerance_change=1e-16)

    def distances() -> torch.Tensor:
        image = torch.cat([moved, torch.ones_like(moved[..., :1])], -1) @ homography.T
        image = image[..., :2] / image[..., 2:]
        return (moved - a).square().sum(-1) + (image - b).square().sum(-1)

    def closure() -> torch.Tensor:
        optimiser.zero_grad()
        loss = 1e4 * distances().sum()
        loss.backward()
        return loss

    optimiser.step(closure)
    torch.testing.assert_close(ours, distances().detach()[0].sqrt(), rtol=5e-3, atol=1e-8)
    behind = transfer_squared(-homography[None, None], a, b)
    assert torch.isinf(behind).all()


def test_ray_angle_is_seen_from_the_point(generator):
    rays_a, rays_b, b_from_a, _ = pairs(2, 9, generator, noise_px=0.0)
    angle = ray_angle_deg(b_from_a, rays_a, rays_b)
    a, b = (torch.cat([rays, torch.ones_like(rays[..., :1])], -1) for rays in (rays_a, rays_b))
    turned = a @ b_from_a[..., :3].transpose(-1, -2)
    crossed = (hat(turned) @ b[..., None])[..., 0].norm(dim=-1)
    torch.testing.assert_close(angle, torch.rad2deg(torch.atan2(crossed, (turned * b).sum(-1))))
