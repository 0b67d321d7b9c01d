"""States to refine, refinement in one call, and how far it ends from the truth."""

from dataclasses import replace

import torch
from reference.rendered_room import Room
from torch import Tensor

from acezero_gpu.geometry import camera_centres, compose, retract, rotation_angle_deg
from acezero_gpu.reconstruction import ImageBank, JointRefinementConfig, ReconstructionState
from acezero_gpu.reconstruction.growth import GrowthConfig
from acezero_gpu.reconstruction.joint_adjustment import JointRefinement
from acezero_gpu.reconstruction.joint_refinement import adjust_registered
from acezero_gpu.reconstruction.matching import MatchStore
from acezero_gpu.reconstruction.two_view import OverlapChecks

CONFIG = JointRefinementConfig(partners=5)
NO_GROWTH = replace(CONFIG, growth=GrowthConfig(rounds=0))


def state_of(
    room: Room, bank: ImageBank, poses: Tensor, registered: list[int], focal_factor: float = 1.0
) -> ReconstructionState:
    mask = torch.zeros(len(room), dtype=torch.bool)
    mask[registered] = True
    mask = mask.to(bank.device)
    camera = bank.camera(focal_factor * float(room.camera.focal_px[0]))
    return ReconstructionState.by_one_map(
        poses.to(bank.device), 100.0 * mask, mask, camera, torch.zeros(2, device=bank.device)
    )


def rough(room: Room, size: float = 0.01) -> Tensor:
    """Half a degree and a centimetre off, or so."""
    noise = size * torch.randn(len(room), 6, generator=torch.Generator().manual_seed(1))
    return retract(room.cam_from_world, noise)


def moved_as_one(cam_from_world: Tensor, rows: list[int]) -> Tensor:
    """These cameras turned by 50 degrees about the world's z axis and shifted by two metres."""
    angle = torch.deg2rad(torch.tensor(50.0))
    motion = torch.eye(3, 4)
    motion[:2, :2] = torch.tensor([[angle.cos(), -angle.sin()], [angle.sin(), angle.cos()]])
    motion[:, 3] = torch.tensor([1.0, 1.5, 0.5])
    poses = cam_from_world.clone()
    poses[rows] = compose(poses[rows], motion)
    return poses


def refine(
    bank: tuple[ImageBank, MatchStore],
    state: ReconstructionState,
    config: JointRefinementConfig = CONFIG,
    *,
    refine_focal: bool = True,
) -> JointRefinement:
    generator = torch.Generator().manual_seed(0)
    return adjust_registered(
        *bank,
        OverlapChecks(*bank, config.check.overlap),
        state,
        config,
        refine_focal=refine_focal,
        generator=generator,
    )


def errors(room: Room, state: ReconstructionState, images: list[int]) -> tuple[float, float]:
    """Mean error in degrees and metres, in the world that the start was given in."""
    poses, truth = state.cam_from_world.cpu()[images], room.cam_from_world[images]
    angle = rotation_angle_deg(poses[:, :, :3], truth[:, :, :3])
    return float(angle.mean()), float((camera_centres(poses) - camera_centres(truth)).norm(dim=-1).mean())
