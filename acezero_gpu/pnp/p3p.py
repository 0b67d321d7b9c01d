"""Absolute pose from three points: all solutions of all problems of a batch at once, without branches.

Inside, components lie in the leading dimensions (structure of arrays), so that each elementary operation is
one contiguous pass over the batch. Results are views of memory laid out the same way.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_CUBIC_ITERATIONS = 6
_POLISH_ITERATIONS = 3
_MIX = 0.6


@dataclass(frozen=True, slots=True)
class P3PSolutions:
    """Four slots per problem."""

    cam_from_world: Float[Tensor, "*batch 4 3 4"]
    """``[R | t]``; finite in every slot, meaningful where ``valid``."""
    valid: Bool[Tensor, "*batch 4"]
    """The slot holds a real solution with all three points in front of the camera."""


def p3p(bearings: Float[Tensor, "*batch 3 3"], points: Float[Tensor, "*batch 3 3"]) -> P3PSolutions:
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

    Reference: Persson and Nordberg, Lambda Twist, ECCV 2018, and Ding et al., Revisiting the P3P problem,
    CVPR 2023, for the way through one cubic and a pair of lines. Differs from ACE0, which calls OpenCV's
    solver.
    """
    b = bearings.movedim((-2, -1), (0, 1)).contiguous()  # point, xyz, *batch
    x = points.movedim((-2, -1), (0, 1)).contiguous()
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

    tolerance = torch.finfo(points.dtype).eps ** 0.6
    finite = pose.isfinite().all(0).all(0)
    valid = well_posed & real & in_front & (residual < tolerance) & finite
    identity = torch.eye(3, 4, dtype=pose.dtype, device=pose.device)
    pose = torch.where(finite, pose, identity.reshape(3, 4, *[1] * (pose.dim() - 2)))
    return P3PSolutions(pose.movedim((2, 0, 1), (-3, -2, -1)), valid.movedim(0, -1))


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
    """Unpolished ``(p, q, w)`` of the four slots (3, 4, *batch), and whether they are real (4, *batch).

    Symmetric matrices are stored as their six entries ``00 01 02 11 12 22``.
    """
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

    adj_1, adj_2 = _adjugate(d_1), _adjugate(d_2)
    c_0 = _trace_product(adj_1, d_1) / 3
    c_1 = _trace_product(adj_1, d_2)
    c_2 = _trace_product(adj_2, d_1)
    c_3 = _trace_product(adj_2, d_2) / 3
    # The larger determinant leads, so that the cubic never loses its degree.
    swap = c_3.abs() < c_0.abs()
    c_0, c_1, c_2, c_3 = (
        torch.where(swap, c_3, c_0),
        torch.where(swap, c_2, c_1),
        torch.where(swap, c_1, c_2),
        torch.where(swap, c_0, c_3),
    )
    d_1, d_2 = torch.where(swap, d_2, d_1), torch.where(swap, d_1, d_2)
    gamma = _isolated_cubic_root(c_0, c_1, c_2, c_3)
    lines, real_lines = _split_into_lines(d_1 + gamma * d_2)
    # On the lines D_1 = -gamma D_2: the smaller of the two would be mostly rounding error.
    conic = torch.where(gamma.abs() < 1, d_2, d_1)
    vectors, real_points = _meet(lines, conic)

    total = _quadratic_form(f_12 + f_13 + f_23, vectors)
    length = (s.sum(0) / total.clamp_min(torch.finfo(s.dtype).tiny)).sqrt()
    return vectors * (length * torch.copysign(one, vectors[2])), real_points & real_lines


def _adjugate(d: Tensor) -> Tensor:
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


def _trace_product(a: Tensor, b: Tensor) -> Tensor:
    """``tr(A B)`` of symmetric matrices."""
    product = a * b
    return product[0] + product[3] + product[5] + 2 * (product[1] + product[2] + product[4])


def _quadratic_form(d: Tensor, v: Tensor) -> Tensor:
    """``vᵀ D v``."""
    return _bilinear_form(d, v, v)


def _bilinear_form(d: Tensor, v: Tensor, u: Tensor) -> Tensor:
    """``vᵀ D u``; the vectors may have a root dimension that ``d`` lacks."""
    d_u_0 = d[0] * u[0] + d[1] * u[1] + d[2] * u[2]
    d_u_1 = d[1] * u[0] + d[3] * u[1] + d[4] * u[2]
    d_u_2 = d[2] * u[0] + d[4] * u[1] + d[5] * u[2]
    return v[0] * d_u_0 + v[1] * d_u_1 + v[2] * d_u_2


def _isolated_cubic_root(c_0: Tensor, c_1: Tensor, c_2: Tensor, c_3: Tensor) -> Tensor:
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


def _split_into_lines(d: Tensor) -> tuple[Tensor, Tensor]:
    """The two lines (3, 2, *batch) of a degenerate conic, and whether they are real.

    ``adj(D) = -v vᵀ`` for the lines' meeting point ``v``, and ``D + hat(v)`` has rank one: a column is one
    line, a row the other (Richter-Gebert, Perspectives on Projective Geometry, 2011, section 11.3).
    """
    adj = _adjugate(d)
    diagonal = torch.stack([-adj[0], -adj[3], -adj[5]])
    largest, index = diagonal.max(dim=0, keepdim=True)
    real = largest[0] > 0
    root = largest.clamp_min(torch.finfo(d.dtype).tiny).sqrt()
    columns = adj[[0, 1, 2, 1, 3, 4, 2, 4, 5]].reshape(3, 3, *adj.shape[1:])
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


def _meet(lines: Tensor, conic: Tensor) -> tuple[Tensor, Tensor]:
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
    q_uu, q_uv, q_vv = (_bilinear_form(per_line, *pair) for pair in ((u, u), (u, v), (v, v)))
    discriminant = q_uv * q_uv - q_uu * q_vv
    bound = q_uv * q_uv + (q_uu * q_vv).abs()
    real = discriminant >= -16 * torch.finfo(lines.dtype).eps * bound
    h = -(q_uv + torch.copysign(discriminant.clamp_min(0).sqrt(), q_uv))
    points = torch.cat([h * u + q_uu * v, q_vv * u + h * v], dim=1)
    return points, torch.cat([real, real])


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
