"""The reduced camera system: formed and factorised for few views, by conjugate gradients for many."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from acezero_gpu.adjustment.coarse_space import CoarseSpace, factorise
from acezero_gpu.adjustment.observation_graph import ObservationGraph
from acezero_gpu.adjustment.schur import ReducedSystem

SYNC_EVERY = 8
"""Conjugate-gradient iterations between two looks at the residual from the host."""

Solution = tuple[Float[Tensor, "views 6"], Float[Tensor, " c"], Bool[Tensor, ""]]


def reduced_matrix(system: ReducedSystem, graph: ObservationGraph) -> Float[Tensor, "n n"]:
    """The reduced matrix of size ``6 views + c``; only its lower triangle is filled.

    ``S_ab = U_ab - sum over the points that a and b share of Y_a Y_bᵀ``, added up over pairs of observations.
    """
    views, c = graph.views, len(system.intrinsics)
    blocks = -graph.by_view_pair.products(system.y_poses, system.y_poses).flatten(1)
    blocks[:: views + 1] += system.diagonal.flatten(1)
    n = 6 * views
    matrix = blocks.new_zeros(n + c, n + c)
    matrix[:n, :n].view(views, 6, views, 6).copy_(blocks.view(views, views, 6, 6).transpose(1, 2))
    matrix[n:, :n] = system.coupling.flatten(0, 1).mT
    matrix[n:, n:] = system.intrinsics
    return matrix


def solve_dense(system: ReducedSystem, graph: ObservationGraph) -> Solution:
    """Cholesky factorisation of the reduced matrix."""
    gradient = torch.cat([system.gradient_poses.flatten(), system.gradient_intrinsics])
    factor, info = torch.linalg.cholesky_ex(reduced_matrix(system, graph))
    step = -torch.cholesky_solve(gradient[:, None], factor)[:, 0]
    poses = step[: 6 * graph.views].view(graph.views, 6)
    return poses, step[6 * graph.views :], (info == 0) & step.isfinite().all()


def solve_conjugate_gradients(
    system: ReducedSystem,
    graph: ObservationGraph,
    *,
    max_iterations: int,
    tolerance: float,
    space: CoarseSpace | None = None,
) -> Solution:
    """Preconditioned conjugate gradients on the reduced system, which is applied but never formed.

    The preconditioner is the block diagonal of the reduced matrix (Schur-Jacobi; Agarwal et al., Bundle
    Adjustment in the Large, ECCV 2010) and, where a ``space`` is given, the solution within it. Stops when the
    residual, in the preconditioner's norm, has fallen to ``tolerance`` of the right-hand side; a truncated solution is
    still a descent direction.
    """
    n = 6 * graph.views
    pose_factor, pose_info = torch.linalg.cholesky_ex(system.diagonal)
    intrinsic_factor, intrinsic_info = torch.linalg.cholesky_ex(system.intrinsics)
    coarse = None if space is None else factorise(space, system, graph)

    def precondition(vector: Tensor) -> Tensor:
        poses, intrinsics = vector[:n].view(-1, 6), vector[n:]
        of_poses = torch.cholesky_solve(poses[..., None], pose_factor)[..., 0]
        of_intrinsics = torch.cholesky_solve(intrinsics[:, None], intrinsic_factor)[:, 0]
        if coarse is not None:
            of_groups, of_camera = coarse.correction(poses, intrinsics)
            of_poses, of_intrinsics = of_poses + of_groups, of_intrinsics + of_camera
        return torch.cat([of_poses.flatten(), of_intrinsics])

    residual = -torch.cat([system.gradient_poses.flatten(), system.gradient_intrinsics])
    step = torch.zeros_like(residual)
    direction = precondition(residual)
    energy = residual @ direction
    goal = energy * tolerance**2
    smallest = torch.finfo(residual.dtype).tiny
    for iteration in range(max_iterations):
        if iteration % SYNC_EVERY == 0 and not bool(energy > goal):
            break
        moved = _apply(system, graph, direction)
        length = energy / (direction @ moved).clamp_min(smallest)
        step = step + length * direction
        residual = residual - length * moved
        preconditioned = precondition(residual)
        previous, energy = energy, residual @ preconditioned
        direction = preconditioned + energy / previous.clamp_min(smallest) * direction
    solved = (pose_info == 0).all() & (intrinsic_info == 0) & step.isfinite().all()
    return step[:n].view(-1, 6), step[n:], solved


def _apply(
    system: ReducedSystem, graph: ObservationGraph, vector: Float[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """The reduced matrix times a vector."""
    poses, intrinsics = vector[: 6 * graph.views].view(-1, 6), vector[6 * graph.views :]
    pull = system.pull(graph, poses).index_select(0, graph.point)
    push = graph.per_view(torch.bmm(pull[:, None], system.y_poses[:-1])[:, 0])
    of_poses = (system.poses @ poses[..., None])[..., 0] - push + system.coupling @ intrinsics
    of_intrinsics = (system.coupling * poses[..., None]).sum((0, 1)) + system.intrinsics @ intrinsics
    return torch.cat([of_poses.flatten(), of_intrinsics])
