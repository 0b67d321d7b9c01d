"""Rigid poses. ``a_from_b`` maps points of frame b to frame a; ``a_from_b @ b_from_c = a_from_c``.

Public borders carry ``pypose`` SE3 tensors ``(..., 7)`` (``tx ty tz qx qy qz qw``); loops carry
``(..., 3, 4)`` matrices ``[R | t]``, which need no conversion to be applied or composed.
"""

import pypose as pp
import torch
from jaxtyping import Float
from torch import Tensor


def se3_from_matrix(matrix: Float[Tensor, "*batch rows 4"]) -> pp.LieTensor:
    """SE3 from ``[R | t]`` (3x4 or 4x4). ``R`` must be a rotation; it is not checked (that would sync)."""
    return pp.mat2SE3(matrix[..., :3, :], check=False)


def matrix_from_se3(pose: Float[Tensor, "*batch 7"]) -> Float[Tensor, "*batch 3 4"]:
    """``[R | t]`` of an SE3 tensor."""
    se3: pp.LieTensor = pose if isinstance(pose, pp.LieTensor) else pp.SE3(pose)
    return se3.matrix()[..., :3, :]


def transform_points(
    a_from_b: Float[Tensor, "*batch 3 4"], points_b: Float[Tensor, "*batch n 3"]
) -> Float[Tensor, "*batch n 3"]:
    """``R x + t`` for every point of every batch element."""
    return points_b @ a_from_b[..., :3].transpose(-1, -2) + a_from_b[..., None, :, 3]


def compose(
    a_from_b: Float[Tensor, "*#batch 3 4"], b_from_c: Float[Tensor, "*#batch 3 4"]
) -> Float[Tensor, "*batch 3 4"]:
    """``a_from_c``."""
    rotation = a_from_b[..., :3] @ b_from_c[..., :3]
    translation = a_from_b[..., :3] @ b_from_c[..., 3:] + a_from_b[..., 3:]
    return torch.cat([rotation, translation], dim=-1)


def invert(a_from_b: Float[Tensor, "*batch 3 4"]) -> Float[Tensor, "*batch 3 4"]:
    """``b_from_a``."""
    rotation = a_from_b[..., :3].transpose(-1, -2)
    return torch.cat([rotation, -rotation @ a_from_b[..., 3:]], dim=-1)


def camera_centres(cam_from_world: Float[Tensor, "*batch 3 4"]) -> Float[Tensor, "*batch 3"]:
    """Where each camera stands, in world coordinates: ``-Rᵀ t``."""
    return invert(cam_from_world)[..., 3]


def hat(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The matrix of the cross product: ``hat(a) b = a × b``."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))


def retract(
    cam_from_world: Float[Tensor, "*batch 3 4"], delta: Float[Tensor, "*batch 6"]
) -> Float[Tensor, "*batch 3 4"]:
    """``exp(delta) @ cam_from_world``: a step in the camera frame, ``delta = (translation, rotation)``.

    To first order a camera point moves by ``delta_t + delta_r × x``, which is what the Jacobian in
    ``reprojection`` differentiates. The pair update ``(exp(r), t)`` is used (a retraction of SE3 with the
    same first order as the exponential map), and the rotation is exact for any angle.
    """
    rotation = pp.so3(delta[..., 3:]).Exp().matrix()
    step = torch.cat([rotation, delta[..., :3, None]], dim=-1)
    return compose(step, cam_from_world)


def orthonormalise(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 3 3"]:
    """The rotation that Gram-Schmidt makes of the first two columns (Zhou et al., CVPR 2019)."""
    first = torch.nn.functional.normalize(matrix[..., 0], dim=-1)
    second = matrix[..., 1] - (first * matrix[..., 1]).sum(-1, keepdim=True) * first
    second = torch.nn.functional.normalize(second, dim=-1)
    return torch.stack([first, second, torch.linalg.cross(first, second)], dim=-1)


def rotation_angle_deg(
    rotation_a: Float[Tensor, "*#batch 3 3"], rotation_b: Float[Tensor, "*#batch 3 3"]
) -> Float[Tensor, "*batch"]:
    """Angle of ``R_aᵀ R_b``, in degrees.

    From the sine and the cosine (``atan2``): the arc cosine of the trace loses half the digits near zero.
    """
    relative = rotation_a.transpose(-1, -2) @ rotation_b
    twice_sine = torch.stack(
        [
            relative[..., 2, 1] - relative[..., 1, 2],
            relative[..., 0, 2] - relative[..., 2, 0],
            relative[..., 1, 0] - relative[..., 0, 1],
        ],
        dim=-1,
    ).norm(dim=-1)
    twice_cosine = relative.diagonal(dim1=-2, dim2=-1).sum(-1) - 1.0
    return torch.rad2deg(torch.atan2(twice_sine, twice_cosine))
