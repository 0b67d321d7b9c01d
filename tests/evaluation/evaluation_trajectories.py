"""Trajectories with exact truth, and ways to spoil them."""

import math

import torch
from scipy.spatial.transform import Rotation

from acezero_gpu.data.posed_views import PosedViews
from acezero_gpu.geometry import Similarity, retract, se3_from_matrix


def normal(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def rotations(generator: torch.Generator, n: int, angle: float = 1.0) -> torch.Tensor:
    vectors = angle * normal(generator, n, 3)
    return torch.from_numpy(Rotation.from_rotvec(vectors.numpy()).as_matrix())


def cameras_at(centres: torch.Tensor, rotation: torch.Tensor) -> torch.Tensor:
    """``cam_from_world`` of cameras that stand at the centres."""
    return torch.cat([rotation, -rotation @ centres[..., None]], dim=-1)


def random_trajectory(generator: torch.Generator, n: int) -> torch.Tensor:
    """Cameras anywhere in a cloud about two units wide, looking anywhere."""
    return cameras_at(normal(generator, n, 3), rotations(generator, n))


def straight_trajectory(generator: torch.Generator, n: int) -> torch.Tensor:
    """A drive along a line with slightly swaying cameras."""
    centres = (
        torch.linspace(0, 10, n, dtype=torch.float64)[:, None] * torch.tensor([[0.36, 0.48, 0.8]]).double()
    )
    return cameras_at(centres, rotations(generator, n, 0.1))


def random_similarity(generator: torch.Generator) -> Similarity:
    scale = torch.exp(normal(generator, 1))[0]
    return Similarity(scale, rotations(generator, 1, 2.0)[0], 5 * normal(generator, 3))


def inverse(similarity: Similarity) -> Similarity:
    rotation = similarity.rotation.T
    return Similarity(1 / similarity.scale, rotation, -(rotation @ similarity.translation) / similarity.scale)


def jittered(
    generator: torch.Generator, poses: torch.Tensor, distance: float, angle_deg: float
) -> torch.Tensor:
    """Every camera moved by normal noise of the given size per axis."""
    size = torch.tensor([distance] * 3 + [math.radians(angle_deg)] * 3, dtype=torch.float64)
    return retract(poses, size * normal(generator, len(poses), 6))


def views(
    poses: torch.Tensor, confidence: float | torch.Tensor = 1000.0, focal_px: float = 500.0
) -> PosedViews:
    n = len(poses)
    return PosedViews(
        names=tuple(f"image{i:04}.jpg" for i in range(n)),
        cam_from_world=se3_from_matrix(poses).tensor(),
        focal_px=torch.full((n,), focal_px, dtype=torch.float64),
        confidence=torch.zeros(n, dtype=torch.float64) + confidence,
    )
