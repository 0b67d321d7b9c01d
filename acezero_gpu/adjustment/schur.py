"""The normal equations of a joint adjustment and their solution by elimination of the points.

With pose steps ``x``, intrinsic steps ``c`` and point steps ``q`` the damped Gauss-Newton system is::

    | U   B   W | |x|     |g_x|
    | Bᵀ  C   E | |c| = - |g_c|          W, V per point; V is block diagonal (3x3)
    | Wᵀ  Eᵀ  V | |q|     |g_q|

With ``V = L Lᵀ`` and ``Y = [W; E] L⁻ᵀ`` the reduced system is ``([U B; Bᵀ C] - Y Yᵀ) [x; c] = -(g - Y L⁻¹ g_q)``.
Reference: Triggs et al., Bundle Adjustment - A Modern Synthesis, 2000, section 6.1.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

PAIRS_PER_CHUNK = 1 << 20
"""Pairs of observations worked on at once: about 0.6 GB of working memory in double precision."""
CACHED_PAIRS = 1 << 24
"""Pair lists up to this length are kept between iterations."""
SMALLEST_DIAGONAL = 1e-9
"""Damping never uses a diagonal entry below this share of the mean one: what nothing observes then stands still."""


class Structure:
    """Who observes what. Observations are ordered by point; views that do not move share one spare slot.

    Fixed during an adjustment, so that everything that depends on indices alone is computed once.
    """

    def __init__(
        self,
        view_index: Int[Tensor, " k"],
        point_index: Int[Tensor, " k"],
        free: Bool[Tensor, " views"],
        points: int,
        points_move: bool = True,
    ) -> None:
        self.free_views = free.nonzero()[:, 0]
        self.views = len(self.free_views)
        self.points = points
        slot_of_view = torch.where(free, free.cumsum(0) - 1, self.views)
        self.slot = slot_of_view[view_index]
        self.point = point_index
        self._pairs: list[tuple[Tensor, Tensor, Tensor]] | None = None if points_move else []

    def per_view(self, values: Float[Tensor, "k *rest"]) -> Float[Tensor, "views *rest"]:
        """Sums over the observations of each free view."""
        flat = values.flatten(1)
        total = flat.new_zeros(self.views + 1, flat.shape[1]).index_add_(0, self.slot, flat)
        return total[: self.views].unflatten(1, values.shape[1:])

    def per_point(self, values: Float[Tensor, "k *rest"]) -> Float[Tensor, "points *rest"]:
        """Sums over the observations of each point."""
        flat = values.flatten(1)
        total = flat.new_zeros(self.points, flat.shape[1]).index_add_(0, self.point, flat)
        return total.unflatten(1, values.shape[1:])

    def of_view(self, values: Float[Tensor, "views n"]) -> Float[Tensor, "k n"]:
        """The row of the observing view for each observation; zero for fixed views."""
        return torch.cat([values, values.new_zeros(1, values.shape[1])]).index_select(0, self.slot)

    def pairs(self) -> Iterator[tuple[Int[Tensor, " m"], Int[Tensor, " m"], Int[Tensor, " m"]]]:
        """Chunks of ``(first, second, block)``: two observations of one point, and where their product goes.

        Of each two views only the order with the larger slot first is given: the lower triangle.
        """
        if self._pairs is not None:
            yield from self._pairs
            return
        kept = []
        moving = (self.slot < self.views).nonzero()[:, 0]
        slot, point = self.slot[moving], self.point[moving]
        count = torch.bincount(point, minlength=self.points)
        start = (count.cumsum(0) - count)[point]
        count = count[point]
        ends = count.cumsum(0)
        total = int(ends[-1]) if len(ends) else 0
        cuts = torch.arange(0, total + PAIRS_PER_CHUNK, PAIRS_PER_CHUNK, device=ends.device)
        bounds = torch.searchsorted(ends, cuts).unique().tolist() if total else []
        if bounds and bounds[-1] < len(ends):
            bounds.append(len(ends))
        for low, high in zip(bounds[:-1], bounds[1:], strict=True):
            repeats = count[low:high]
            first = torch.arange(low, high, device=slot.device).repeat_interleave(repeats)
            group_start = (repeats.cumsum(0) - repeats).repeat_interleave(repeats)
            second = start[first] + torch.arange(len(first), device=slot.device) - group_start
            keep = (slot[first] >= slot[second]) & (first != second)
            first, second = first[keep], second[keep]
            chunk = (moving[first], moving[second], slot[first] * self.views + slot[second])
            if total <= CACHED_PAIRS:
                kept.append(chunk)
            yield chunk
        if total <= CACHED_PAIRS:
            self._pairs = kept


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
    poses_by_points: Float[Tensor, "k 6 3"]
    """``W``, one block per observation."""
    intrinsics_by_points: Float[Tensor, "points c 3"]
    """``E``."""
    gradient_poses: Float[Tensor, "views 6"]
    """``g_x``."""
    gradient_intrinsics: Float[Tensor, " c"]
    """``g_c``."""
    gradient_points: Float[Tensor, "points 3"]
    """``g_q``."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step in all parameters."""

    poses: Float[Tensor, "views 6"]
    """Pose steps ``(translation, rotation vector)`` of the free views."""
    intrinsics: Float[Tensor, " c"]
    """Steps of the free intrinsics."""
    points: Float[Tensor, "points 3"]
    """Steps of the points."""
    predicted_decrease: Float[Tensor, ""]
    """By how much the quadratic model falls."""
    solved: Bool[Tensor, ""]
    """False if the reduced system was not positive definite or the step is not finite."""


def build_normal_equations(
    structure: Structure,
    by_pose: Float[Tensor, "k 2 6"],
    by_point: Float[Tensor, "k 2 3"],
    by_intrinsics: Float[Tensor, "k 2 c"],
    residual: Float[Tensor, "k 2"],
) -> NormalEquations:
    """Blocks of ``JᵀJ`` and ``Jᵀr`` from Jacobians and residuals that already carry the root of their weight."""
    c = by_intrinsics.shape[-1]
    right = torch.cat([by_intrinsics, residual[..., None]], dim=-1)
    of_poses = structure.per_view(torch.cat([by_pose.mT @ by_pose, by_pose.mT @ right], dim=-1))
    of_points = structure.per_point(torch.cat([by_point.mT @ by_point, by_point.mT @ right], dim=-1))
    of_intrinsics = by_intrinsics.flatten(0, 1).mT @ right.flatten(0, 1)
    return NormalEquations(
        poses=of_poses[..., :6],
        poses_by_intrinsics=of_poses[..., 6 : 6 + c],
        intrinsics=of_intrinsics[:, :c],
        points=of_points[..., :3],
        poses_by_points=by_pose.mT @ by_point,
        intrinsics_by_points=of_points[..., 3 : 3 + c].mT,
        gradient_poses=of_poses[..., 6 + c],
        gradient_intrinsics=of_intrinsics[:, c],
        gradient_points=of_points[..., 3 + c],
    )


def _damping_diagonal(blocks: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n"]:
    diagonal = blocks.diagonal(dim1=-2, dim2=-1)
    if diagonal.numel() == 0:
        return diagonal
    floor = SMALLEST_DIAGONAL * diagonal.mean() + torch.finfo(diagonal.dtype).tiny ** 0.5
    return diagonal.maximum(floor)


def cholesky_3x3(matrix: Float[Tensor, "*batch 3 3"]) -> Float[Tensor, "*batch 6"]:
    """``l00, l10, l11, l20, l21, l22`` of ``L Lᵀ``, written out. A pivot that is not positive is raised to a tiny one."""
    smallest = torch.finfo(matrix.dtype).tiny
    l00 = matrix[..., 0, 0].clamp_min(smallest).sqrt()
    l10 = matrix[..., 1, 0] / l00
    l20 = matrix[..., 2, 0] / l00
    l11 = (matrix[..., 1, 1] - l10 * l10).clamp_min(smallest).sqrt()
    l21 = (matrix[..., 2, 1] - l20 * l10) / l11
    l22 = (matrix[..., 2, 2] - l20 * l20 - l21 * l21).clamp_min(smallest).sqrt()
    return torch.stack([l00, l10, l11, l20, l21, l22], dim=-1)


def rows_by_inverse_transpose(
    factor: Float[Tensor, "*batch 6"], rows: Float[Tensor, "*batch n 3"]
) -> Float[Tensor, "*batch n 3"]:
    """``rows @ L⁻ᵀ``, that is ``L⁻¹`` applied to each row."""
    l00, l10, l11, l20, l21, l22 = factor[..., None].unbind(-2)
    y0 = rows[..., 0] / l00
    y1 = (rows[..., 1] - l10 * y0) / l11
    y2 = (rows[..., 2] - l20 * y0 - l21 * y1) / l22
    return torch.stack([y0, y1, y2], dim=-1)


def solve_transpose(
    factor: Float[Tensor, "*batch 6"], vector: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 3"]:
    """``L⁻ᵀ vector``."""
    l00, l10, l11, l20, l21, l22 = factor.unbind(-1)
    z2 = vector[..., 2] / l22
    z1 = (vector[..., 1] - l21 * z2) / l11
    z0 = (vector[..., 0] - l10 * z1 - l20 * z2) / l00
    return torch.stack([z0, z1, z2], dim=-1)


@dataclass(frozen=True, slots=True)
class ReducedSystem:
    """Poses and intrinsics after the points are eliminated; the matrix itself is not formed here."""

    poses: Float[Tensor, "views 6 6"]
    """``U``, damped."""
    poses_by_intrinsics: Float[Tensor, "views 6 c"]
    """``B``."""
    intrinsics: Float[Tensor, "c c"]
    """``C``, damped."""
    y_poses: Float[Tensor, "k 6 3"]
    """``W L⁻ᵀ`` per observation."""
    y_intrinsics: Float[Tensor, "points c 3"]
    """``E L⁻ᵀ`` per point."""
    gradient_poses: Float[Tensor, "views 6"]
    """Reduced gradient of the poses."""
    gradient_intrinsics: Float[Tensor, " c"]
    """Reduced gradient of the intrinsics."""

    def points_pull(
        self, structure: Structure, poses: Float[Tensor, "views 6"], intrinsics: Float[Tensor, " c"]
    ) -> Float[Tensor, "points 3"]:
        """``Yᵀ [x; c]``."""
        from_poses = structure.per_point((self.y_poses * structure.of_view(poses)[..., None]).sum(1))
        return from_poses + (self.y_intrinsics * intrinsics[:, None]).sum(1)


ReducedSolver = Callable[[ReducedSystem, Structure], tuple[Tensor, Tensor, Tensor]]
"""Gives pose steps, intrinsic steps, and whether the system could be solved."""


def solve_damped(
    normal: NormalEquations, structure: Structure, damping: float, solver: ReducedSolver
) -> Step:
    """The step of ``(H + damping * diag(H)) step = -gradient``.

    ``predicted_decrease = ½ step·(damping diag(H) step - gradient)``, which also holds for a truncated
    conjugate-gradient solution started at zero.
    """
    diag_poses = _damping_diagonal(normal.poses)
    diag_intrinsics = _damping_diagonal(normal.intrinsics)
    diag_points = _damping_diagonal(normal.points)
    factor = cholesky_3x3(normal.points + damping * torch.diag_embed(diag_points))
    y_poses = rows_by_inverse_transpose(factor.index_select(0, structure.point), normal.poses_by_points)
    y_intrinsics = rows_by_inverse_transpose(factor, normal.intrinsics_by_points)
    half = rows_by_inverse_transpose(factor, normal.gradient_points[:, None, :])[:, 0]
    pulled = (y_poses * half.index_select(0, structure.point)[:, None, :]).sum(-1)
    system = ReducedSystem(
        poses=normal.poses + damping * torch.diag_embed(diag_poses),
        poses_by_intrinsics=normal.poses_by_intrinsics,
        intrinsics=normal.intrinsics + damping * torch.diag_embed(diag_intrinsics),
        y_poses=y_poses,
        y_intrinsics=y_intrinsics,
        gradient_poses=normal.gradient_poses - structure.per_view(pulled),
        gradient_intrinsics=normal.gradient_intrinsics - (y_intrinsics * half[:, None, :]).sum((0, 2)),
    )
    poses, intrinsics, solved = solver(system, structure)
    points = -solve_transpose(factor, half + system.points_pull(structure, poses, intrinsics))
    decrease = poses.new_zeros(())
    for step, gradient, diagonal in (
        (poses, normal.gradient_poses, diag_poses),
        (intrinsics, normal.gradient_intrinsics, diag_intrinsics),
        (points, normal.gradient_points, diag_points),
    ):
        decrease = decrease + 0.5 * (step * (damping * diagonal * step - gradient)).sum()
    return Step(poses, intrinsics, points, decrease, solved & decrease.isfinite() & (decrease > 0))
