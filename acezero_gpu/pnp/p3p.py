"""Absolute pose from three points: all solutions of all problems of a batch at once, without branches.

Inside, components lie in the leading dimensions (structure of arrays), so that each elementary operation is
one contiguous pass over the batch. Results are views of memory laid out the same way.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from acezero_gpu.pnp.conics import (
    adjugate,
    isolated_cubic_root,
    meet,
    quadratic_form,
    split_into_lines,
    trace_product,
)
from acezero_gpu.runtime import compiled

_POLISH_ITERATIONS = 2
_MIX = 0.6


@dataclass(frozen=True, slots=True)
class P3PSolutions:
    """Four slots per problem."""

    cam_from_world: Float[Tensor, "*batch 4 3 4"]
    """``[R | t]``; finite in every slot, meaningful where ``valid``."""
    valid: Bool[Tensor, "*batch 4"]
    """The slot holds a real solution with all three points in front of the camera."""


def p3p(
    bearings: Float[Tensor, "*batch 3 3"], points: Float[Tensor, "*batch 3 3"], *, compile: bool = False
) -> P3PSolutions:
    """Absolute pose from three bearing-point pairs: ``depth_i * bearing_i = R @ point_i + t``.

    With ``r = depth_3``, ``p = depth_1 - r``, ``q = depth_2 - r`` and the squared chords
    ``m_ij = |bearing_i - bearing_j|²`` the law of cosines reads, for the squared sides ``s_ij``,

        ``(p - q)² + m_12 (p + r)(q + r) = s_12``, ``p² + m_13 r (p + r) = s_13``,
        ``q² + m_23 r (q + r) = s_23``.

    Chords instead of cosines, and ``w = r sqrt(max m)`` as the third unknown, keep float32 accurate where
    the bearings are close. Two combinations of the equations have no right-hand side: conics ``D`` in
    ``(p, q, w)``. A real root of the cubic ``det(D_1 + g D_2) = 0`` gives a pair of lines, and each line
    meets the conics in up to two points; Newton steps on the three equations polish them.

    Bearings must have unit norm. Up to four poses exist; all four slots are always returned. Degenerate
    samples (collinear or repeated points, equal bearings, values that are not finite) give no valid slot.
    ``compile`` fuses the passes over the batch by ``torch.compile``.

    Reference: Persson and Nordberg, Lambda Twist, ECCV 2018, and Ding et al., Revisiting the P3P problem,
    CVPR 2023, for the way through one cubic and a pair of lines. Differs from ACE0, which calls OpenCV's
    solver.
    """
    batch = bearings.shape[:-2]
    b = bearings.movedim((-2, -1), (0, 1)).reshape(3, 3, -1)  # point, xyz, batch
    x = points.movedim((-2, -1), (0, 1)).reshape(3, 3, -1)
    pose, valid = (compiled(p3p_rows) if compile else p3p_rows)(b, x)
    pose, valid = pose.reshape(3, 4, 4, *batch), valid.reshape(4, *batch)
    return P3PSolutions(pose.movedim((2, 0, 1), (-3, -2, -1)), valid.movedim(0, -1))


def p3p_rows(
    b: Float[Tensor, "3 3 *batch"], x: Float[Tensor, "3 3 *batch"]
) -> tuple[Float[Tensor, "3 4 4 *batch"], Bool[Tensor, "4 *batch"]]:
    """``p3p`` on rows: bearings and points are (point, xyz, *batch), ``[R | t]`` has the roots third."""
    e = torch.stack([x[0] - x[1], x[0] - x[2], x[1] - x[2]])  # sides 12, 13, 23
    s = e.square().sum(1)
    m = torch.stack([b[0] - b[1], b[0] - b[2], b[1] - b[2]]).square().sum(1)
    well_posed = _well_posed(e, s, m)
    scale = torch.where(well_posed, s.amax(0), 1).sqrt()
    s = torch.where(well_posed, s / (scale * scale), 1)
    m = torch.where(well_posed, m, 1)
    mu = m.amax(0).sqrt()

    pqw, real = _intersections(s, m, mu)
    pqw, residual = _polish(pqw, s, m, mu)
    p, q, r = pqw[0] * scale, pqw[1] * scale, pqw[2] * (scale / mu)
    in_front = (r > 0) & (p + r > 0) & (q + r > 0)
    pose = _pose_from_depths(p, q, r, b, x, e)

    tolerance = torch.finfo(x.dtype).eps ** 0.6
    finite = pose.isfinite().all(0).all(0)
    valid = well_posed & real & in_front & (residual < tolerance) & finite
    identity = torch.eye(3, 4, dtype=pose.dtype, device=pose.device)
    return torch.where(finite, pose, identity.view(3, 4, *[1] * (pose.dim() - 2))), valid


def _well_posed(e: Tensor, s: Tensor, m: Tensor) -> Tensor:
    """The triangle has an area, no two bearings coincide, and everything is finite."""
    eps = torch.finfo(s.dtype).eps
    normal = _cross(e[1], e[2]).square().sum(0)
    smallest_sine = 10 * eps**0.5
    area = normal > smallest_sine**2 * s[1] * s[2]
    distinct = (s > eps * s.amax(0)).all(0) & (m > (100 * eps) ** 2).all(0)
    return area & distinct & s.isfinite().all(0) & m.isfinite().all(0)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    """Cross product of vectors that lie along dimension 0."""
    return torch.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])


def _intersections(s: Tensor, m: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
    """Unpolished ``(p, q, w)`` of the four slots (3, 4, *batch), and whether they are real (4, *batch)."""
    one, zero = torch.ones_like(mu), torch.zeros_like(mu)
    half = m / (2 * mu)
    full = m / (mu * mu)
    f_12 = torch.stack([one, m[0] / 2 - 1, half[0], one, half[0], full[0]])
    f_13 = torch.stack([one, zero, half[1], zero, zero, full[1]])
    f_23 = torch.stack([zero, zero, zero, one, half[2], full[2]])
    d_1 = s[2] * f_12 - s[0] * f_23
    d_2 = s[2] * f_13 - s[1] * f_23
    # In symmetric samples both are degenerate, and the cubic would lose its ends; any other pair will do.
    d_1, d_2 = d_1 + _MIX * d_2, d_2 - _MIX * d_1

    adj_1, adj_2 = adjugate(d_1), adjugate(d_2)
    c_0 = trace_product(adj_1, d_1) / 3
    c_1 = trace_product(adj_1, d_2)
    c_2 = trace_product(adj_2, d_1)
    c_3 = trace_product(adj_2, d_2) / 3
    # The larger determinant leads, so that the cubic never loses its degree.
    swap = c_3.abs() < c_0.abs()
    c_0, c_1, c_2, c_3 = (
        torch.where(swap, c_3, c_0),
        torch.where(swap, c_2, c_1),
        torch.where(swap, c_1, c_2),
        torch.where(swap, c_0, c_3),
    )
    d_1, d_2 = torch.where(swap, d_2, d_1), torch.where(swap, d_1, d_2)
    gamma = isolated_cubic_root(c_0, c_1, c_2, c_3)
    lines, real_lines = split_into_lines(d_1 + gamma * d_2)
    # On the lines D_1 = -gamma D_2: the smaller of the two would be mostly rounding error.
    conic = torch.where(gamma.abs() < 1, d_2, d_1)
    vectors, real_points = meet(lines, conic)

    total = quadratic_form(f_12 + f_13 + f_23, vectors)
    length = (s.sum(0) / total.clamp_min(torch.finfo(s.dtype).tiny)).sqrt()
    return vectors * (length * torch.copysign(one, vectors[2])), real_points & real_lines


def _polish(pqw: Tensor, s: Tensor, m: Tensor, mu: Tensor) -> tuple[Tensor, Tensor]:
    """Newton steps on the three equations, kept where they reduce the largest residual; that residual."""
    half, full = m / mu, m / (mu * mu)
    p, q, w = pqw
    g = _equations(p, q, w, s, m, half, full)
    residual = _largest(g)
    for _ in range(_POLISH_ITERATIONS):
        g_12, g_13, g_23 = g
        a_1, c_1 = 2 * p + half[1] * w, half[1] * p + 2 * full[1] * w
        b_2, c_2 = 2 * q + half[2] * w, half[2] * q + 2 * full[2] * w
        a_3, b_3 = 2 * p + (m[0] - 2) * q + half[0] * w, 2 * q + (m[0] - 2) * p + half[0] * w
        c_3 = half[0] * (p + q) + 2 * full[0] * w
        # Cramer's rule for rows (a_1, 0, c_1), (0, b_2, c_2), (a_3, b_3, c_3).
        minor = b_2 * c_3 - c_2 * b_3
        determinant = a_1 * minor - a_3 * b_2 * c_1
        inverse = -1 / determinant
        mixed = g_12 * b_2 - g_23 * b_3
        p_new = p + (g_13 * minor - c_1 * mixed) * inverse
        q_new = q + (a_1 * (g_23 * c_3 - c_2 * g_12) + a_3 * (g_13 * c_2 - g_23 * c_1)) * inverse
        w_new = w + (a_1 * mixed - a_3 * b_2 * g_13) * inverse
        g_new = _equations(p_new, q_new, w_new, s, m, half, full)
        residual_new = _largest(g_new)
        better = residual_new < residual  # false for NaN
        p, q, w = torch.where(better, p_new, p), torch.where(better, q_new, q), torch.where(better, w_new, w)
        g = [torch.where(better, new, old) for new, old in zip(g_new, g, strict=True)]
        residual = torch.where(better, residual_new, residual)
    return torch.stack([p, q, w]), residual


def _equations(
    p: Tensor, q: Tensor, w: Tensor, s: Tensor, m: Tensor, half: Tensor, full: Tensor
) -> list[Tensor]:
    """Left minus right of the three equations, sides 12, 13, 23; ``half = m / mu``, ``full = m / mu²``."""
    w_2 = w * w
    difference = p - q
    g_12 = difference * difference + m[0] * (p * q) + half[0] * (w * (p + q)) + (full[0] * w_2 - s[0])
    g_13 = p * p + half[1] * (w * p) + (full[1] * w_2 - s[1])
    g_23 = q * q + half[2] * (w * q) + (full[2] * w_2 - s[2])
    return [g_12, g_13, g_23]


def _largest(g: list[Tensor]) -> Tensor:
    return torch.maximum(torch.maximum(g[0].abs(), g[1].abs()), g[2].abs())


def _pose_from_depths(p: Tensor, q: Tensor, r: Tensor, b: Tensor, x: Tensor, e: Tensor) -> Tensor:
    """``[R | t]`` (3, 4, root, *batch): R turns the triangle's orthonormal triad onto that of its image.

    Camera-side edges are ``p b_1 + r (b_1 - b_3)``: no difference of two large vectors.
    """
    b_13, b_23 = (b[0] - b[2])[:, None], (b[1] - b[2])[:, None]
    world = _triad(e[1], e[2])
    camera = _triad(p * b[0][:, None] + r * b_13, q * b[1][:, None] + r * b_23)
    rotation = torch.stack(
        [
            torch.stack([a * world[0][j] + c * world[1][j] + n * world[2][j] for j in range(3)])
            for a, c, n in zip(*camera, strict=True)
        ]
    )
    centroid_cam = ((p + r) * b[0][:, None] + (q + r) * b[1][:, None] + r * b[2][:, None]) / 3
    centroid = x.mean(0)
    turned = sum(rotation[:, j] * centroid[j] for j in range(3))
    return torch.cat([rotation, (centroid_cam - turned)[:, None]], dim=1)


def _triad(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Orthonormal vectors: along the first edge, in the plane of both, normal to it."""
    normal = _cross(first, second)
    a = first * first.square().sum(0).rsqrt()
    n = normal * normal.square().sum(0).rsqrt()
    return a, _cross(n, a), n
