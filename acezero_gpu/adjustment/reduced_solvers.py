"""The reduced camera system: formed and factorised for few views, by conjugate gradients for many."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from acezero_gpu.adjustment.schur import ReducedSystem, Structure

SYNC_EVERY = 8
"""Conjugate-gradient iterations between two looks at the residual from the host."""

Solution = tuple[Float[Tensor, "views 6"], Float[Tensor, " c"], Bool[Tensor, ""]]


def reduced_matrix(system: ReducedSystem, structure: Structure) -> Float[Tensor, "n n"]:
    """The reduced matrix of size ``6 views + c``; only its lower triangle is filled.

    ``S_ab = U_ab - sum over the points that a and b share of Y_a Y_bᵀ``, added up over pairs of observations.
    """
    views, c = structure.views, len(system.intrinsics)
    blocks = system.y_poses.new_zeros(views * views, 36)
    own = structure.per_view(system.y_poses @ system.y_poses.mT)
    diagonal = torch.arange(views, device=blocks.device) * (views + 1)
    blocks.index_add_(0, diagonal, (system.poses - own).flatten(1))
    flat = system.y_poses.flatten(1)
    for first, second, block in structure.pairs():
        left = flat.index_select(0, first).unflatten(1, (6, 3))
        right = flat.index_select(0, second).unflatten(1, (6, 3))
        blocks.index_add_(0, block, torch.bmm(left, right.mT).flatten(1), alpha=-1)
    matrix = blocks.new_zeros(6 * views + c, 6 * views + c)
    matrix[: 6 * views, : 6 * views] = (
        blocks.view(views, views, 6, 6).transpose(1, 2).reshape(6 * views, 6 * views)
    )
    matrix[6 * views :, : 6 * views] = _intrinsic_rows(system, structure).permute(2, 0, 1).flatten(1)
    matrix[6 * views :, 6 * views :] = _intrinsic_block(system)
    return matrix


def solve_dense(system: ReducedSystem, structure: Structure) -> Solution:
    """Cholesky factorisation of the reduced matrix."""
    gradient = torch.cat([system.gradient_poses.flatten(), system.gradient_intrinsics])
    factor, info = torch.linalg.cholesky_ex(reduced_matrix(system, structure))
    step = -torch.cholesky_solve(gradient[:, None], factor)[:, 0]
    poses = step[: 6 * structure.views].unflatten(0, (structure.views, 6))
    return poses, step[6 * structure.views :], (info == 0) & step.isfinite().all()


def solve_conjugate_gradients(
    system: ReducedSystem, structure: Structure, max_iterations: int, tolerance: float
) -> Solution:
    """Preconditioned conjugate gradients on the reduced system, which is applied but never formed.

    The preconditioner is the block diagonal of the reduced matrix (Schur-Jacobi; Agarwal et al., Bundle
    Adjustment in the Large, ECCV 2010). Stops when the residual has fallen to ``tolerance`` of the right-hand
    side in the preconditioner's norm; a truncated solution is still a descent direction.
    """
    views = structure.views
    own = structure.per_view(system.y_poses @ system.y_poses.mT)
    pose_factor, pose_info = torch.linalg.cholesky_ex(system.poses - own)
    intrinsic_factor, intrinsic_info = torch.linalg.cholesky_ex(_intrinsic_block(system))
    coupling = _intrinsic_rows(system, structure)
    intrinsic_block = _intrinsic_block(system)

    def split(vector: Tensor) -> tuple[Tensor, Tensor]:
        return vector[: 6 * views].view(views, 6), vector[6 * views :]

    def apply(vector: Tensor) -> Tensor:
        poses, intrinsics = split(vector)
        pull = structure.per_point((system.y_poses * structure.of_view(poses)[..., None]).sum(1))
        push = structure.per_view((system.y_poses @ pull.index_select(0, structure.point)[..., None])[..., 0])
        of_poses = (system.poses @ poses[..., None])[..., 0] - push + coupling @ intrinsics
        of_intrinsics = (coupling * poses[..., None]).sum((0, 1)) + intrinsic_block @ intrinsics
        return torch.cat([of_poses.flatten(), of_intrinsics])

    def precondition(vector: Tensor) -> Tensor:
        poses, intrinsics = split(vector)
        of_poses = torch.cholesky_solve(poses[..., None], pose_factor)[..., 0]
        of_intrinsics = torch.cholesky_solve(intrinsics[:, None], intrinsic_factor)[:, 0]
        return torch.cat([of_poses.flatten(), of_intrinsics])

    residual = -torch.cat([system.gradient_poses.flatten(), system.gradient_intrinsics])
    step = torch.zeros_like(residual)
    preconditioned = precondition(residual)
    direction = preconditioned
    energy = residual @ preconditioned
    smallest = torch.finfo(residual.dtype).tiny
    goal = energy * tolerance**2
    for iteration in range(max_iterations):
        if iteration % SYNC_EVERY == 0 and not bool(energy > goal):
            break
        moved = apply(direction)
        length = energy / (direction @ moved).clamp_min(smallest)
        step = step + length * direction
        residual = residual - length * moved
        preconditioned = precondition(residual)
        previous, energy = energy, residual @ preconditioned
        direction = preconditioned + energy / previous.clamp_min(smallest) * direction
    poses, intrinsics = split(step)
    solved = (pose_info == 0).all() & (intrinsic_info == 0) & step.isfinite().all()
    return poses, intrinsics, solved


def _intrinsic_rows(system: ReducedSystem, structure: Structure) -> Float[Tensor, "views 6 c"]:
    """The reduced block between poses and intrinsics."""
    shared = system.y_poses @ system.y_intrinsics.mT.index_select(0, structure.point)
    return system.poses_by_intrinsics - structure.per_view(shared)


def _intrinsic_block(system: ReducedSystem) -> Float[Tensor, "c c"]:
    """The reduced block of the intrinsics."""
    rows = system.y_intrinsics.transpose(0, 1).flatten(1)
    return system.intrinsics - rows @ rows.mT
