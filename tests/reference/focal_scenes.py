"""Points seen by cameras of many focal lengths, with known poses."""

import torch
from reference.posed_scene import random_poses

from acezero_gpu.geometry import invert, matrix_from_se3, rotation_angle_deg, transform_points
from acezero_gpu.pnp import PoseStatus
from acezero_gpu.ransac.unknown_focal import FocalRansacConfig

SIZE = (640.0, 480.0)


DIAGONAL = 800.0


SMALL = FocalRansacConfig(samples=96, prescore_keep=16)


class Scene:
    """Points two to six metres away, or on a plane; focal lengths of 0.4 to 3 diagonals; known truth."""

    def __init__(
        self,
        batch,
        n=200,
        *,
        outliers=0.0,
        noise_px=0.0,
        noise=0.0,
        plane="",
        seed=0,
        dtype=None,
        device="cpu",
    ):
        g = torch.Generator().manual_seed(seed)

        def uniform(*shape):
            return torch.rand(*shape, generator=g, dtype=torch.float64)

        self.focal = DIAGONAL * 0.4 * (3 / 0.4) ** uniform(batch)
        principal = torch.tensor(SIZE, dtype=torch.float64) / 2
        pixels = uniform(batch, n, 2) * torch.tensor(SIZE)
        rays = (pixels - principal) / self.focal[:, None, None]
        depth = 2 + 4 * uniform(batch, n, 1)
        if plane:
            slope = 2 * self.focal[:, None, None] / DIAGONAL if plane == "tilted" else 0
            depth = 4 / (1 + slope * rays[..., :1])
        points_cam = torch.cat([rays, torch.ones_like(depth)], dim=-1) * depth
        low, high = points_cam.amin(1, keepdim=True), points_cam.amax(1, keepdim=True)
        box = low + (high - low) * uniform(batch, n, 3)
        self.outlier = uniform(batch, n) < outliers
        self.pose = random_poses(batch, g)
        points = transform_points(invert(self.pose), torch.where(self.outlier[..., None], box, points_cam))
        points = points + noise * torch.randn(batch, n, 3, generator=g, dtype=torch.float64)
        pixels = pixels + noise_px * torch.randn(batch, n, 2, generator=g, dtype=torch.float64)
        to = {"dtype": dtype or torch.float32, "device": device}
        self.points, self.pixels, self.principal = points.to(**to), pixels.to(**to), principal.to(**to)

    @property
    def inputs(self):
        return self.points, self.pixels, self.principal

    def focal_errors(self, result) -> torch.Tensor:
        assert torch.equal(result.camera.focal_px[:, 0], result.camera.focal_px[:, 1])
        return (result.camera.focal_px[:, 0].cpu().double() / self.focal - 1).abs()

    def succeeded(self, result) -> torch.Tensor:
        """Focal length within 5 %, rotation within a degree."""
        estimate = matrix_from_se3(result.cam_from_world).cpu().double()
        turned = rotation_angle_deg(estimate[..., :3], self.pose[..., :3])
        return (self.focal_errors(result) < 0.05) & (turned < 1) & (result.status.cpu() == PoseStatus.OK)
