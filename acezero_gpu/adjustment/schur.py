"""The normal equations of a joint adjustment and the elimination of the points from them.

With pose steps ``x``, intrinsic steps ``c`` and point steps ``q`` the damped Gauss-Newton system is::

    | U   B   W | |x|     |g_x|
    | Bᵀ  C   E | |c| = - |g_c|          V has one 3x3 block per point
    | Wᵀ  Eᵀ  V | |q|     |g_q|

With ``V = L Lᵀ`` and ``Y = [W; E] L⁻ᵀ`` the reduced system is
``([U B; Bᵀ C] - Y Yᵀ) [x; c] = -(g - Y L⁻¹ g_q)``, and ``q = -L⁻ᵀ (L⁻¹ g_q + Yᵀ [x; c])``.
Reference: Triggs et al., Bundle Adjustment - A Modern Synthesis, 2000, section 6.1.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from acezero_gpu.adjustment.observation_graph import ObservationGraph, rows_per_chunk
from acezero_gpu.runtime import chunk_ranges

SMALLEST_DIAGONAL = 1e-9
"""Damping takes no diagonal entry below this share of the mean one: what nothing observes stands still."""


@dataclass(frozen=True, slots=True)
class NormalEquations:
    """The undamped blocks of the module's equation, with the gradient of the cost."""

    poses: Float[Tensor, "views 6 6"]
    """``U``."""
    poses_by_intrinsics: Float[Tensor, "views 6 c"]
    """``B``."""
    intrinsics: Float[Tensor, "c c"]
    """``C``."""
    points: Float[Tensor, "points 3 3"]
    """``V``."""
    by_pose: Float[Tensor, "k 2 6"]
    """Weighted derivatives by the poses; with ``by_point`` they make ``W = by_poseᵀ by_point``."""
    by_point: Float[Tensor, "k 2 3"]
    """Weighted derivatives by the points."""
    intrinsics_by_points: Float[Tensor, "points c 3"]
    """``E``."""
    gradient_poses: Float[Tensor, "views 6"]
    """``g_x``."""
    gradient_intrinsics: Float[Tensor, " c"]
    """``g_c``."""
    gradient_points: Float[Tensor, "points 3"]
    """``g_q``."""


def empty_table(like: Tensor, rows: int, *shape: int) -> Tensor:
    """One row for each, to be filled, and behind them the row of zeros that pads groups."""
    table = like.new_empty(rows + 1, *shape)
    table[-1] = 0
    return table


class NormalEquationsBuilder:
    """Collects weighted Jacobians and residuals over chunks of observations, then forms ``JᵀJ`` and ``Jᵀr``."""

    def __init__(self, graph: ObservationGraph, intrinsics: int, like: Tensor) -> None:
        self._graph, self._c = graph, intrinsics
        self._of_pose = empty_table(like, len(graph), 2, 7 + intrinsics)
        self._of_point = empty_table(like, len(graph), 2, 4 + intrinsics)

    def add(
        self,
        chunk: slice,
        by_pose: Float[Tensor, "k 2 6"],
        by_point: Float[Tensor, "k 2 3"],
        by_intrinsics: Float[Tensor, "k 2 c"],
        residual: Float[Tensor, "k 2"],
        root: Float[Tensor, "k 1 1"],
    ) -> None:
        """Jacobians and residuals of the observations in ``chunk``, and the root of their weight."""
        of_pose, of_point, c = self._of_pose[chunk], self._of_point[chunk], self._c
        torch.mul(by_pose, root, out=of_pose[..., :6])
        torch.mul(by_intrinsics, root, out=of_pose[..., 6 : 6 + c])
        torch.mul(residual[..., None], root, out=of_pose[..., 6 + c :])
        torch.mul(by_point, root, out=of_point[..., :3])
        of_point[..., 3:] = of_pose[..., 6:]

    def result(self) -> NormalEquations:
        c = self._c
        of_views = self._graph.by_view.products(self._of_pose, self._of_pose)
        views, of_all = of_views[:-1], of_views.sum(0)
        points = self._graph.by_point.products(self._of_point, self._of_point)
        return NormalEquations(
            poses=views[:, :6, :6],
            poses_by_intrinsics=views[:, :6, 6 : 6 + c],
            intrinsics=of_all[6 : 6 + c, 6 : 6 + c],
            points=points[:, :3, :3],
            by_pose=self._of_pose[:-1, :, :6],
            by_point=self._of_point[:-1, :, :3],
            intrinsics_by_points=points[:, 3 : 3 + c, :3],
            gradient_poses=views[:, :6, 6 + c],
            gradient_intrinsics=of_all[6 : 6 + c, 6 + c],
            gradient_points=points[:, :3, 3 + c],
        )


@dataclass(frozen=True, slots=True)
class ReducedSystem:
    """Poses and intrinsics after the points are eliminated; the matrix itself is not formed here."""

    poses: Float[Tensor, "views 6 6"]
    """``U``, damped, before elimination."""
    diagonal: Float[Tensor, "views 6 6"]
    """The reduced matrix's diagonal block of each view."""
    coupling: Float[Tensor, "views 6 c"]
    """The reduced matrix between poses and intrinsics."""
    intrinsics: Float[Tensor, "c c"]
    """The reduced matrix's block of the intrinsics."""
    y_poses: Float[Tensor, "k_and_1 3 6"]
    """``(W L⁻ᵀ)ᵀ`` per observation, and a row of zeros."""
    y_intrinsics: Float[Tensor, "points c 3"]
    """``E L⁻ᵀ`` per point."""
    gradient_poses: Float[Tensor, "views 6"]
    """Reduced gradient of the poses."""
    gradient_intrinsics: Float[Tensor, " c"]
    """Reduced gradient of the intrinsics."""

    def pull(self, graph: ObservationGraph, poses: Float[Tensor, "views 6"]) -> Float[Tensor, "points 3"]:
        """``Yᵀ x``, the poses' part."""
        return graph.per_point(torch.bmm(self.y_poses[:-1], graph.of_view(poses)[..., None])[..., 0])


ReducedSolver = Callable[[ReducedSystem, ObservationGraph], tuple[Tensor, Tensor, Tensor]]
"""Gives pose steps, intrinsic steps, and whether the system could be solved."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step in all parameters."""

    poses: Float[Tensor, "views 6"]
    """Steps ``(translation, rotation vector)`` of the moving views, as ``geometry.retract`` takes them."""
    intrinsics: Float[Tensor, " c"]
    """Steps of the free intrinsics."""
    points: Float[Tensor, "points 3"]
    """Steps of the points."""
    predicted_decrease: Float[Tensor, ""]
    """By how much the quadratic model falls."""
    solved: Bool[Tensor, ""]
    """False if the reduced system was not positive definite or the step is not finite."""


def cholesky_3x3(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 6"]:
    """``l00, l10, l11, l20, l21, l22`` of ``L Lᵀ``, written out; pivots are kept positive."""
    smallest = torch.finfo(matrix.dtype).tiny
    l00 = matrix[..., 0, 0].clamp_min(smallest).sqrt()
    l10 = matrix[..., 1, 0] / l00
    l20 = matrix[..., 2, 0] / l00
    l11 = (matrix[..., 1, 1] - l10 * l10).clamp_min(smallest).sqrt()
    l21 = (matrix[..., 2, 1] - l20 * l10) / l11
    l22 = (matrix[..., 2, 2] - l20 * l20 - l21 * l21).clamp_min(smallest).sqrt()
    return _side_by_side(l00, l10, l11, l20, l21, l22)


def rows_by_inverse_transpose(
    factor: Float[Tensor, "*batch 6"], rows: Float[Tensor, "*batch n 3"]
) -> Float[Tensor, "*batch n 3"]:
    """``rows @ L⁻ᵀ``, that is ``L⁻¹`` applied to each row."""
    l00, l10, l11, l20, l21, l22 = factor[..., None].unbind(-2)
    y0 = rows[..., 0] / l00
    y1 = (rows[..., 1] - l10 * y0) / l11
    y2 = (rows[..., 2] - l20 * y0 - l21 * y1) / l22
    return _side_by_side(y0, y1, y2)


def solve_transpose(
    factor: Float[Tensor, "*batch 6"], vector: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 3"]:
    """``L⁻ᵀ vector``."""
    l00, l10, l11, l20, l21, l22 = factor.unbind(-1)
    z2 = vector[..., 2] / l22
    z1 = (vector[..., 1] - l21 * z2) / l11
    z0 = (vector[..., 0] - l10 * z1 - l20 * z2) / l00
    return _side_by_side(z0, z1, z2)


def _side_by_side(*columns: Tensor) -> Tensor:
    """``torch.stack`` along the last dimension, which copies number by number on a CPU."""
    table = columns[0].new_empty(*columns[0].shape, len(columns))
    for index, column in enumerate(columns):
        table[..., index] = column
    return table


def solve_3x3(
    matrix: Float[Tensor, "*batch 3 3"], vector: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 3"]:
    """``matrix⁻¹ vector`` for positive definite matrices."""
    factor = cholesky_3x3(matrix)
    return solve_transpose(factor, rows_by_inverse_transpose(factor, vector[..., None, :])[..., 0, :])


def damped(blocks: Float[Tensor, "*batch n n"], damping: float) -> Float[Tensor, "*batch n n"]:
    """With the damping, a share of the diagonal, on the diagonal."""
    return blocks + damping * torch.diag_embed(_damping_diagonal(blocks))


def solve_damped(
    normal: NormalEquations, graph: ObservationGraph, damping: float, solver: ReducedSolver
) -> Step:
    """The step of ``(H + damping * diag(H)) step = -gradient``.

    ``predicted_decrease = ½ step·(damping diag(H) step - gradient)``, which also holds for a truncated
    conjugate-gradient solution started at zero.
    """
    diagonals = [_damping_diagonal(blocks) for blocks in (normal.poses, normal.intrinsics, normal.points)]
    factor = cholesky_3x3(normal.points + damping * torch.diag_embed(diagonals[2]))
    half = rows_by_inverse_transpose(factor, normal.gradient_points[:, None, :])
    system = _eliminate(
        normal,
        graph,
        factor,
        half,
        damped_poses=normal.poses + damping * torch.diag_embed(diagonals[0]),
        damped_intrinsics=normal.intrinsics + damping * torch.diag_embed(diagonals[1]),
    )
    poses, intrinsics, solved = solver(system, graph)
    pull = system.pull(graph, poses) + (system.y_intrinsics * intrinsics[:, None]).sum(1)
    points = -solve_transpose(factor, half[:, 0] + pull)
    steps = (poses, intrinsics, points)
    gradients = (normal.gradient_poses, normal.gradient_intrinsics, normal.gradient_points)
    decrease = poses.new_zeros(())
    for step, gradient, diagonal in zip(steps, gradients, diagonals, strict=True):
        decrease = decrease + 0.5 * (step * (damping * diagonal * step - gradient)).sum()
    return Step(*steps, decrease, solved & decrease.isfinite() & (decrease >= 0))


def _eliminate(
    normal: NormalEquations,
    graph: ObservationGraph,
    factor: Float[Tensor, "points 6"],
    half: Float[Tensor, "points 1 3"],
    *,
    damped_poses: Float[Tensor, "views 6 6"],
    damped_intrinsics: Float[Tensor, "c c"],
) -> ReducedSystem:
    """Everything of the reduced system but its blocks between different views; ``half = L⁻¹ g_q``."""
    c = len(damped_intrinsics)
    y_intrinsics = rows_by_inverse_transpose(factor, normal.intrinsics_by_points)
    # Transposed W L⁻ᵀ, and beside it what it meets: itself, the intrinsics' part, the gradient's.
    y_poses, right = empty_table(half, len(graph), 3, 6), empty_table(half, len(graph), 3, 7 + c)
    of_point = torch.cat([y_intrinsics, half], dim=1).mT.contiguous()
    for chunk in chunk_ranges(len(graph), rows_per_chunk(half.device)):
        point = graph.point[chunk]
        y = rows_by_inverse_transpose(factor.index_select(0, point), normal.by_point[chunk])
        torch.bmm(y.mT, normal.by_pose[chunk], out=y_poses[chunk])
        right[chunk, :, :6], right[chunk, :, 6:] = y_poses[chunk], of_point.index_select(0, point)
    of_views = graph.by_view.products(y_poses, right)[:-1]
    rows = y_intrinsics.transpose(0, 1).flatten(1)
    return ReducedSystem(
        poses=damped_poses,
        diagonal=damped_poses - of_views[..., :6],
        coupling=normal.poses_by_intrinsics - of_views[..., 6 : 6 + c],
        intrinsics=damped_intrinsics - rows @ rows.mT,
        y_poses=y_poses,
        y_intrinsics=y_intrinsics,
        gradient_poses=normal.gradient_poses - of_views[..., 6 + c],
        gradient_intrinsics=normal.gradient_intrinsics - rows @ half.flatten(),
    )


def _damping_diagonal(blocks: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n"]:
    diagonal = blocks.diagonal(dim1=-2, dim2=-1)
    floor = SMALLEST_DIAGONAL * diagonal.mean().nan_to_num(0.0) + torch.finfo(diagonal.dtype).tiny ** 0.5
    return diagonal.maximum(floor)
