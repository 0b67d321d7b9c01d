"""Motions of whole groups of views: what conjugate gradients find slowest, solved directly.

Errors that are left after a few iterations bend a reconstruction as a whole: groups of views that agree among
themselves move, turn and grow against each other. Seven numbers per group describe these motions, and the reduced
system restricted to them is small and dense. Added to a block-diagonal preconditioner it takes them out (two-level
additive Schwarz; Toselli & Widlund, Domain Decomposition Methods, 2005, chapter 2).
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from acezero_gpu.adjustment.observation_graph import ObservationGraph
from acezero_gpu.adjustment.observation_model import Estimate
from acezero_gpu.adjustment.schur import ReducedSystem
from acezero_gpu.geometry import camera_centres

GROUPS = 32
"""Most groups; more cost more than the iterations that they save."""
VIEWS_PER_GROUP = 8
"""Few views make fewer groups, of about this size."""
RIDGE = 1e-10
"""Added to the diagonal, relative to it, against rounding; at least ten times the rounding."""
CPU_ROWS, GPU_ROWS = 1 << 14, 1 << 18
"""Pairs of a point and a group that are held at once, 42 numbers each."""


@dataclass(frozen=True, slots=True)
class CoarseSpace:
    """Groups of the moving views and how their views step when a group moves."""

    groups: int
    group: Int[Tensor, " views_and_1"]
    """The group of each moving view; behind them any for what does not move."""
    motions: Float[Tensor, "views_and_1 6 7"]
    """Steps ``(translation, rotation)`` of a view for its group's translation, rotation and growth; zeros at last."""
    chunks: list[tuple[slice, int, int]]
    """Observations to be taken at once, the first point of theirs and how many points they are of."""

    def restricted(self, poses: Float[Tensor, "views 6"]) -> Float[Tensor, " n"]:
        """``Pᵀ v``: forces on the views as forces on their groups."""
        forces = (self.motions[:-1].mT @ poses[..., None])[..., 0]
        total = forces.new_zeros(self.groups, 7).index_add_(0, self.group[:-1], forces)
        return total.flatten()

    def prolonged(self, coarse: Float[Tensor, " n"]) -> Float[Tensor, "views 6"]:
        """``P v``: steps of the groups as steps of their views."""
        of_view = coarse.view(self.groups, 7).index_select(0, self.group[:-1])
        return (self.motions[:-1] @ of_view[..., None])[..., 0]


def make_coarse_space(estimate: Estimate, graph: ObservationGraph, counts: Bool[Tensor, " k"]) -> CoarseSpace:
    """Groups of views that stand near each other and look at the same place, by the observations that ``counts``."""
    poses = estimate.cam_from_world[graph.moving_views]
    centres = camera_centres(poses)
    seen = graph.per_view(estimate.points.index_select(0, graph.point) * counts[:, None])
    count = graph.per_view(counts[:, None].to(seen.dtype))
    seen = torch.where(count > 0, seen / count.clamp_min(1), centres)
    groups = max(1, min(GROUPS, graph.views // VIEWS_PER_GROUP))
    group = _nearest_of_spread(torch.cat([centres, seen], dim=1), groups)
    motions = torch.cat([_group_motions(poses, centres, group, groups), poses.new_zeros(1, 6, 7)])
    return CoarseSpace(groups, torch.cat([group, group.new_zeros(1)]), motions, _chunks(graph, groups))


def _nearest_of_spread(places: Float[Tensor, "n d"], count: int) -> Int[Tensor, " n"]:
    """Which of ``count`` places is nearest, each of which is the farthest from those before (Gonzalez, 1985)."""
    nearest = (places - places.mean(0)).square().sum(1)
    group = torch.zeros(len(places), dtype=torch.long, device=places.device)
    for number in range(count):
        distance = (places - places[nearest.argmax()]).square().sum(1)
        closer = distance < nearest if number else torch.ones_like(group, dtype=torch.bool)
        nearest, group = torch.where(closer, distance, nearest), torch.where(closer, number, group)
    return group


def _group_motions(
    poses: Float[Tensor, "views 3 4"],
    centres: Float[Tensor, "views 3"],
    group: Int[Tensor, " views"],
    groups: int,
) -> Float[Tensor, "views 6 7"]:
    """Steps of ``geometry.retract`` that move a view by ``X + t``, ``X + r × d`` and ``X + s d`` in the world.

    ``d`` is the way from the middle of the group to the camera.
    """
    total = centres.new_zeros(groups, 3).index_add_(0, group, centres)
    middle = total / torch.bincount(group, minlength=groups).clamp_min(1)[:, None]
    away, rotation = centres - middle[group], poses[..., :3]
    axes = torch.eye(3, dtype=poses.dtype, device=poses.device)
    turned = torch.linalg.cross(axes[None], away[:, None], dim=-1).mT
    motions = poses.new_zeros(len(poses), 6, 7)
    motions[:, :3, :3] = motions[:, 3:, 3:6] = -rotation
    motions[:, :3, 3:6] = -rotation @ turned
    motions[:, :3, 6:] = -rotation @ away[..., None]
    return motions


def _chunks(graph: ObservationGraph, groups: int) -> list[tuple[slice, int, int]]:
    rows = CPU_ROWS if graph.point.device.type == "cpu" else GPU_ROWS
    size = max(1, rows // groups)
    first = torch.arange(0, graph.points + size, size, device=graph.point.device).clamp_max(graph.points)
    ends = torch.searchsorted(graph.point.contiguous(), first).tolist()
    return [
        (slice(low, high), number * size, min(size, graph.points - number * size))
        for number, (low, high) in enumerate(pairwise(ends))
        if high > low
    ]


@dataclass(frozen=True, slots=True)
class CoarseSolver:
    """The reduced system restricted to motions of groups, and to the intrinsics, factorised."""

    space: CoarseSpace
    factor: Float[Tensor, "n n"]
    usable: Bool[Tensor, ""]
    """False where rounding left a matrix that is not positive definite: then there is no correction."""

    def correction(
        self, poses: Float[Tensor, "views 6"], intrinsics: Float[Tensor, " c"]
    ) -> tuple[Float[Tensor, "views 6"], Float[Tensor, " c"]]:
        """The best step within the space against a residual."""
        right = torch.cat([self.space.restricted(poses), intrinsics])
        solution = torch.cholesky_solve(right[:, None], self.factor)[:, 0]
        solution = torch.where(self.usable, solution, 0.0)
        n = 7 * self.space.groups
        return self.space.prolonged(solution[:n]), solution[n:]


def factorise(space: CoarseSpace, system: ReducedSystem, graph: ObservationGraph) -> CoarseSolver:
    """``Pᵀ S P`` and its factor, with ``S = U - Y Yᵀ`` summed up point by point.

    A motion without effect (growth of a single view) has a row of zeros; it gets a diagonal entry and stays zero.
    """
    n, c = 7 * space.groups, len(system.intrinsics)
    motions = space.motions
    matrix = motions.new_zeros(n + c, n + c)
    blocks = motions[:-1].mT @ system.poses @ motions[:-1]
    blocks = blocks.new_zeros(space.groups, 7, 7).index_add_(0, space.group[:-1], blocks)
    inner = torch.zeros_like(matrix[:n, :n])
    inner.view(space.groups, 7, space.groups, 7).diagonal(dim1=0, dim2=2).copy_(blocks.permute(1, 2, 0))
    for chunk, first, points in space.chunks:
        slot = graph.slot[chunk]
        rows = torch.bmm(system.y_poses[chunk], motions.index_select(0, slot))
        place = (graph.point[chunk] - first) * space.groups + space.group[slot]
        table = rows.new_zeros(points * space.groups, 21).index_add_(0, place, rows.flatten(1))
        wide = table.view(points, space.groups, 3, 7).transpose(1, 2).reshape(3 * points, n)
        inner.addmm_(wide.mT, wide, alpha=-1)
    matrix[:n, :n] = inner
    for column in range(c):
        matrix[n + column, :n] = matrix[:n, n + column] = space.restricted(system.coupling[..., column])
    matrix[n:, n:] = system.intrinsics
    diagonal = matrix.diagonal()
    least = torch.finfo(matrix.dtype).eps * diagonal.abs().mean()
    ridge = max(RIDGE, 10 * torch.finfo(matrix.dtype).eps)
    diagonal.copy_(torch.where(diagonal > least, diagonal * (1 + ridge), 1.0))
    factor, info = torch.linalg.cholesky_ex(matrix)
    return CoarseSolver(space, factor, (info == 0) & factor.isfinite().all())
