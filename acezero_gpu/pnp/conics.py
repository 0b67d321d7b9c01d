"""Planar conics in homogeneous coordinates, as symmetric 3x3 matrices: what it takes to intersect two.

A symmetric matrix is stored as its six entries ``00 01 02 11 12 22`` in the leading dimension, a vector as
its three components; the batch follows.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_CUBIC_ITERATIONS = 6


def adjugate(d: Float[Tensor, "6 *batch"]) -> Float[Tensor, "6 *batch"]:
    """The matrix of cofactors: ``D adj(D) = det(D) I``."""
    a_00, a_01, a_02, a_11, a_12, a_22 = d
    return torch.stack(
        [
            a_11 * a_22 - a_12 * a_12,
            a_02 * a_12 - a_01 * a_22,
            a_01 * a_12 - a_02 * a_11,
            a_00 * a_22 - a_02 * a_02,
            a_01 * a_02 - a_00 * a_12,
            a_00 * a_11 - a_01 * a_01,
        ]
    )


def trace_product(a: Float[Tensor, "6 *batch"], b: Float[Tensor, "6 *batch"]) -> Float[Tensor, "*batch"]:
    """``tr(A B)`` of symmetric matrices."""
    product = a * b
    return product[0] + product[3] + product[5] + 2 * (product[1] + product[2] + product[4])


def quadratic_form(d: Float[Tensor, "6 *#batch"], v: Float[Tensor, "3 *#batch"]) -> Float[Tensor, "*batch"]:
    """``vᵀ D v``."""
    return bilinear_form(d, v, v)


def bilinear_form(
    d: Float[Tensor, "6 *#batch"], v: Float[Tensor, "3 *#batch"], u: Float[Tensor, "3 *#batch"]
) -> Float[Tensor, "*batch"]:
    """``vᵀ D u``; the vectors may have a root dimension that ``d`` lacks."""
    d_u_0 = d[0] * u[0] + d[1] * u[1] + d[2] * u[2]
    d_u_1 = d[1] * u[0] + d[3] * u[1] + d[4] * u[2]
    d_u_2 = d[2] * u[0] + d[4] * u[1] + d[5] * u[2]
    return v[0] * d_u_0 + v[1] * d_u_1 + v[2] * d_u_2


def isolated_cubic_root(
    c_0: Float[Tensor, "*batch"],
    c_1: Float[Tensor, "*batch"],
    c_2: Float[Tensor, "*batch"],
    c_3: Float[Tensor, "*batch"],
) -> Float[Tensor, "*batch"]:
    """The real root of ``c_3 g³ + c_2 g² + c_1 g + c_0`` that lies farthest from the inflection point.

    It is the best conditioned one. Depressed to ``t³ + P t - |Q|``, Newton's iteration descends to it
    monotonically from the bound ``sqrt(max(-P, 0)) + |Q|^(1/3)``, without cases.
    """
    tiny = torch.finfo(c_3.dtype).tiny ** 0.5
    lead = torch.where(c_3.abs() < tiny, tiny, c_3)
    a, b, c = c_2 / lead, c_1 / lead, c_0 / lead
    third = a / 3
    big_p = b - a * third
    big_q = third * (2 * third * third - b) + c
    q_abs = big_q.abs()
    t = (-big_p).clamp_min(0).sqrt() + q_abs.pow(1 / 3)
    for _ in range(_CUBIC_ITERATIONS):
        t_2 = t * t
        t = (2 * t * t_2 + q_abs) / (3 * t_2 + big_p).clamp_min(tiny)
    gamma = torch.copysign(t, -big_q) - third
    for _ in range(2):  # the shift by a third may have cancelled digits
        value = ((gamma + a) * gamma + b) * gamma + c
        slope = (3 * gamma + 2 * a) * gamma + b
        step = value / torch.where(slope.abs() < tiny, torch.inf, slope)
        gamma = gamma - step
    return gamma


def split_into_lines(
    d: Float[Tensor, "6 *batch"],
) -> tuple[Float[Tensor, "3 2 *batch"], Bool[Tensor, "*batch"]]:
    """The two lines (3, 2, *batch) of a degenerate conic, and whether they are real.

    ``adj(D) = -v vᵀ`` for the lines' meeting point ``v``, and ``D + hat(v)`` has rank one: a column is one
    line, a row the other (Richter-Gebert, Perspectives on Projective Geometry, 2011, section 11.3).
    """
    adj = adjugate(d)
    diagonal = torch.stack([-adj[0], -adj[3], -adj[5]])
    largest, index = diagonal.max(dim=0, keepdim=True)
    real = largest[0] > 0
    root = largest.clamp_min(torch.finfo(d.dtype).tiny).sqrt()
    a_00, a_01, a_02, a_11, a_12, a_22 = adj
    columns = torch.stack([a_00, a_01, a_02, a_01, a_11, a_12, a_02, a_12, a_22])
    columns = columns.reshape(3, 3, *adj.shape[1:])
    column = columns.gather(0, index[None].expand(1, 3, *index.shape[1:]))[0]
    v = -column / root
    n_01, n_02, n_12 = d[1] - v[2], d[2] + v[1], d[4] - v[0]
    n_10, n_20, n_21 = d[1] + v[2], d[2] - v[1], d[4] + v[0]
    flat = torch.stack([d[0], n_01, n_02, n_10, d[3], n_12, n_20, n_21, d[5]])
    best = flat.abs().argmax(dim=0, keepdim=True)
    matrix = flat.reshape(3, 3, *flat.shape[1:])
    row = (best // 3)[None].expand(1, 3, *best.shape[1:])
    col = (best % 3)[None].expand(3, 1, *best.shape[1:])
    return torch.stack([matrix.gather(0, row)[0], matrix.gather(1, col)[:, 0]], dim=1), real


def meet(
    lines: Float[Tensor, "3 2 *batch"], conic: Float[Tensor, "6 *batch"]
) -> tuple[Float[Tensor, "3 4 *batch"], Bool[Tensor, "4 *batch"]]:
    """Points (3, 4, *batch), up to scale, where each line meets the conic, and whether they are real.

    Points of a line are ``a u + b v`` for a basis ``u, v`` of the plane orthogonal to it; the quadratic in
    ``(a : b)`` is solved in homogeneous form, which has no division.
    """
    tiny = torch.finfo(lines.dtype).tiny
    x, y, z = lines / lines.square().sum(0).sqrt().clamp_min(tiny)
    # Orthonormal basis without cases (Duff et al., JCGT 2017).
    sign = torch.copysign(torch.ones_like(z), z)
    a = -1 / (sign + z)
    b = x * y * a
    u = torch.stack([1 + sign * x * x * a, sign * b, -sign * x])
    v = torch.stack([b, sign + y * y * a, -y])
    per_line = conic[:, None]
    q_uu, q_uv, q_vv = (bilinear_form(per_line, *pair) for pair in ((u, u), (u, v), (v, v)))
    discriminant = q_uv * q_uv - q_uu * q_vv
    bound = q_uv * q_uv + (q_uu * q_vv).abs()
    real = discriminant >= -16 * torch.finfo(lines.dtype).eps * bound
    h = -(q_uv + torch.copysign(discriminant.clamp_min(0).sqrt(), q_uv))
    points = torch.cat([h * u + q_uu * v, q_vv * u + h * v], dim=1)
    return points, torch.cat([real, real])
