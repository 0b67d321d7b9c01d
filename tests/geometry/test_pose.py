"""Poses: group axioms, the retraction that derivatives refer to, and angles that stay exact at both ends."""

import math

import numpy as np
import pypose as pp
import pytest
import torch
from scipy.spatial.transform import Rotation

from acezero_gpu.geometry import (
    camera_centres,
    compose,
    hat,
    invert,
    matrix_from_se3,
    nearest_rotation,
    orthonormalise,
    retract,
    rotation_angle_deg,
    se3_from_matrix,
    transform_points,
)

BATCH_SHAPES = [(), (1,), (4,), (2, 3)]


def random_poses(shape: tuple[int, ...], generator: torch.Generator, angle: float = 1.0) -> torch.Tensor:
    count = math.prod(shape)
    vectors = angle * torch.randn(count, 3, generator=generator, dtype=torch.float64)
    rotation = torch.from_numpy(Rotation.from_rotvec(vectors.numpy()).as_matrix())
    translation = torch.randn(count, 3, 1, generator=generator, dtype=torch.float64)
    return torch.cat([rotation, translation], dim=-1).reshape(*shape, 3, 4)


@pytest.mark.parametrize("angle", [1.0, 1e-7, math.pi], ids=["any", "tiny", "large"])
@pytest.mark.parametrize("shape", BATCH_SHAPES, ids=str)
def test_group_axioms(shape, angle, device, dtype, generator):
    a, b, c = (random_poses(shape, generator, angle).to(device, dtype) for _ in range(3))
    identity = torch.eye(3, 4, dtype=dtype, device=device).expand(*shape, 3, 4)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    close = {"rtol": 0, "atol": tolerance}

    assert compose(a, b).shape == (*shape, 3, 4)
    torch.testing.assert_close(compose(a, invert(a)), identity, **close)
    torch.testing.assert_close(compose(invert(a), a), identity, **close)
    torch.testing.assert_close(compose(compose(a, b), c), compose(a, compose(b, c)), **close)
    torch.testing.assert_close(compose(a, identity), a, **close)


@pytest.mark.parametrize("shape", BATCH_SHAPES, ids=str)
def test_composition_is_application_in_turn(shape, device, generator):
    a, b = (random_poses(shape, generator).to(device) for _ in range(2))
    points = torch.randn(*shape, 7, 3, generator=generator, dtype=torch.float64).to(device)
    torch.testing.assert_close(
        transform_points(compose(a, b), points), transform_points(a, transform_points(b, points))
    )


def test_one_pose_composes_with_many(device, generator):
    one, many = random_poses((), generator).to(device), random_poses((5,), generator).to(device)
    expected = torch.stack([compose(one, single) for single in many])
    torch.testing.assert_close(compose(one, many), expected)


@pytest.mark.parametrize("shape", [(1,), (4,), (2, 3)], ids=str)
def test_se3_carries_translation_then_quaternion_x_y_z_w(shape, generator):
    poses = random_poses(shape, generator, angle=2.0)
    se3 = se3_from_matrix(poses)
    quaternion = Rotation.from_matrix(poses[..., :3].reshape(-1, 3, 3).numpy()).as_quat().reshape(*shape, 4)
    sign = np.sign((se3.tensor()[..., 3:].numpy() * quaternion).sum(-1, keepdims=True))
    np.testing.assert_allclose(se3.tensor()[..., 3:].numpy(), sign * quaternion, atol=1e-9)
    np.testing.assert_allclose(se3.tensor()[..., :3].numpy(), poses[..., 3].numpy())
    torch.testing.assert_close(matrix_from_se3(se3), poses)
    torch.testing.assert_close(matrix_from_se3(se3.tensor()), poses)


def test_se3_of_half_turns_survives_the_round_trip():
    for axis in torch.eye(3, dtype=torch.float64):
        rotation = torch.from_numpy(Rotation.from_rotvec(math.pi * axis.numpy()).as_matrix())
        pose = torch.cat([rotation, torch.ones(3, 1, dtype=torch.float64)], dim=-1)
        torch.testing.assert_close(matrix_from_se3(se3_from_matrix(pose)), pose, rtol=0, atol=1e-7)


def test_a_camera_sees_its_own_centre_at_the_origin(device, generator):
    poses = random_poses((6,), generator).to(device)
    seen = transform_points(poses, camera_centres(poses)[:, None])
    torch.testing.assert_close(seen, torch.zeros_like(seen), rtol=0, atol=1e-12)


def test_hat_is_the_cross_product(device, generator):
    a, b = (torch.randn(5, 3, generator=generator, dtype=torch.float64).to(device) for _ in range(2))
    torch.testing.assert_close((hat(a) @ b[..., None])[..., 0], torch.linalg.cross(a, b))


def test_retraction_has_the_first_order_that_jacobians_assume(device, generator):
    poses = random_poses((8,), generator).to(device)
    points = torch.randn(8, 3, generator=generator, dtype=torch.float64).to(device)
    delta = torch.randn(8, 6, generator=generator, dtype=torch.float64).to(device)
    seen = transform_points(poses, points[:, None])[:, 0]
    expected = delta[:, :3] + torch.linalg.cross(delta[:, 3:], seen)
    errors = []
    for step in (1e-3, 1e-4):
        moved = transform_points(retract(poses, step * delta), points[:, None])[:, 0]
        errors.append((moved - seen - step * expected).norm().item())
    # What is left over is of second order: a tenth of the step leaves a hundredth.
    assert errors[1] == pytest.approx(errors[0] / 100, rel=0.05)


def test_retraction_by_nothing_is_the_pose_itself_and_has_a_finite_gradient(generator):
    poses = random_poses((3,), generator)
    delta = torch.zeros(3, 6, dtype=torch.float64, requires_grad=True)
    moved = retract(poses, delta)
    torch.testing.assert_close(moved.detach(), poses)
    moved[..., 3].sum().backward()
    # d(R t)/d r at zero is -hat(t): the rotation part must be exact there too, not zero or NaN.
    expected = -hat(poses[..., 3]).sum(-2)
    torch.testing.assert_close(delta.grad[:, 3:], expected)


@pytest.mark.parametrize("angle", [1e-9, 0.1, 3.0, math.pi, 7.0])
def test_retraction_rotates_exactly_by_any_angle(angle, generator):
    axis = torch.nn.functional.normalize(torch.randn(3, generator=generator, dtype=torch.float64), dim=0)
    pose = random_poses((), generator)
    moved = retract(pose, torch.cat([torch.zeros(3, dtype=torch.float64), angle * axis]))
    turn = torch.from_numpy(Rotation.from_rotvec(angle * axis.numpy()).as_matrix())
    torch.testing.assert_close(moved[:, :3], turn @ pose[:, :3], rtol=0, atol=1e-12)


def test_orthonormalise_keeps_rotations_and_ignores_the_length_of_columns(device, generator):
    rotation = random_poses((6,), generator)[..., :3].to(device)
    torch.testing.assert_close(orthonormalise(rotation), rotation)
    lengths = torch.tensor([3.0, 0.2, -5.0], dtype=torch.float64, device=device)
    torch.testing.assert_close(orthonormalise(rotation * lengths), rotation)


def test_orthonormalise_is_gram_schmidt(generator):
    matrix = torch.randn(20, 3, 3, generator=generator, dtype=torch.float64)
    result = orthonormalise(matrix)
    identity = torch.eye(3, dtype=torch.float64).expand(20, 3, 3)
    torch.testing.assert_close(result.transpose(-1, -2) @ result, identity)
    torch.testing.assert_close(torch.linalg.det(result), torch.ones(20, dtype=torch.float64))
    # LAPACK's QR of the first two columns spans the same planes; its signs are free.
    q, r = torch.linalg.qr(matrix[..., :2])
    torch.testing.assert_close(result[..., :2], q * r.diagonal(dim1=-2, dim2=-1).sign()[:, None, :])


@pytest.mark.parametrize("angle_deg", [0.0, 1e-4, 1e-2, 1.0, 90.0, 179.0, 179.99, 180.0])
def test_angles_are_exact_in_single_precision_at_both_ends(angle_deg, device):
    axis = np.array([0.6, -0.48, 0.64])
    rotation = Rotation.from_rotvec(np.radians(angle_deg) * axis).as_matrix()
    rotation = torch.from_numpy(rotation).to(device, torch.float32)
    identity = torch.eye(3, device=device)
    # The arc cosine of the trace would be off by up to 0.02 degrees near 0 and 180.
    assert rotation_angle_deg(identity, rotation).item() == pytest.approx(angle_deg, rel=1e-5, abs=1e-5)


def test_angle_between_general_rotations_agrees_with_scipy(device, dtype, generator):
    a, b = (random_poses((50,), generator)[..., :3] for _ in range(2))
    expected = (Rotation.from_matrix(a.numpy()).inv() * Rotation.from_matrix(b.numpy())).magnitude()
    got = rotation_angle_deg(a.to(device, dtype), b.to(device, dtype))
    tolerance = 1e-9 if dtype == torch.float64 else 1e-4
    np.testing.assert_allclose(got.cpu().numpy(), np.degrees(expected), atol=tolerance)


def test_nearest_rotation_is_nearer_than_any_other_tried(generator):
    matrix = torch.randn(5, 3, 3, generator=generator, dtype=torch.float64)
    best = nearest_rotation(matrix)
    torch.testing.assert_close(torch.linalg.det(best), torch.ones(5, dtype=torch.float64))
    others = random_poses((2000,), generator, angle=3.0)[..., :3]
    distance = (matrix[:, None] - others).flatten(2).norm(dim=-1).min(dim=1).values
    assert ((matrix - best).flatten(1).norm(dim=-1) <= distance).all()


def test_nearest_rotation_keeps_a_bad_matrix_to_itself(device, generator):
    matrix = random_poses((3,), generator)[..., :3].to(device)
    matrix[1, 0, 0] = math.nan
    result = nearest_rotation(matrix)
    assert result[1].isnan().all()
    torch.testing.assert_close(result[[0, 2]], matrix[[0, 2]])


def test_pypose_composes_in_the_same_order(generator):
    a, b = (random_poses((4,), generator) for _ in range(2))
    product = pp.SE3(se3_from_matrix(a)) @ pp.SE3(se3_from_matrix(b))
    torch.testing.assert_close(matrix_from_se3(product), compose(a, b))
