"""Points seen by an RGB-D camera, with known poses."""

import torch
from reference.posed_scene import random_poses

from acezero_gpu.geometry import camera_centres, invert, matrix_from_se3, rotation_angle_deg, transform_points
from acezero_gpu.ransac.rigid_pose import RigidRansacConfig

SMALL = RigidRansacConfig(samples=512, hypotheses=16)


def depth_scene(
    batch, n=300, *, outliers=0.0, noise=0.0, flat=False, seed=0, dtype=torch.float32, device="cpu"
):
    """World points, camera points two to six metres away, poses and which pairs are outliers."""
    g = torch.Generator().manual_seed(seed)
    f64 = torch.float64
    depth = 2 + 4 * torch.rand(batch, n, 1, generator=g, dtype=f64)
    rays = 1.2 * (torch.rand(batch, n, 2, generator=g, dtype=f64) - 0.5)
    if flat:
        depth = 1 / (0.3 + 0.2 * rays[..., :1])
    points_cam = torch.cat([rays * depth, depth], dim=-1)
    pose = random_poses(batch, g)
    points = transform_points(invert(pose), points_cam)
    points = points + noise * torch.randn(batch, n, 3, generator=g, dtype=f64)
    outlier = torch.rand(batch, n, generator=g, dtype=f64) < outliers
    box = 8 * (torch.rand(batch, n, 3, generator=g, dtype=f64) - 0.5)
    points = torch.where(outlier[..., None], box, points)
    to = {"dtype": dtype, "device": device}
    return points.to(**to), points_cam.to(**to), pose, outlier


def pose_errors(result, pose):
    estimate = matrix_from_se3(result.cam_from_world).cpu().double()
    rotation = rotation_angle_deg(estimate[..., :3], pose[..., :3])
    return rotation, (camera_centres(estimate) - camera_centres(pose)).norm(dim=-1)
