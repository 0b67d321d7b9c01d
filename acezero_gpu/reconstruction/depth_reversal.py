"""Whether a block of views could as well be the other way round: near where far is, with the motion reversed.

Seen from far away, or by a camera that hardly moves, a scene and its reversed relief look alike (the Necker cube;
for points and cameras the bas-relief and two-fold ambiguities, e.g. Maybank, Theory of Reconstruction from Image
Motion, ch. 6). Bundle adjustment does not leave one for the other, and a reconstruction that starts from the wrong one
keeps its rotations and loses all else.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from acezero_gpu.adjustment.bundle_adjustment import BundleAdjustmentConfig, BundleProblem, bundle_adjust
from acezero_gpu.adjustment.joint import JointResult
from acezero_gpu.geometry import matrix_from_se3, undistort_pixels
from acezero_gpu.ransac import RansacConfig, estimate_absolute_pose

LEAST_INVERSE_DEPTH = 0.1
"""What was nearest would come to lie behind the camera: it stays this share of the median inverse depth ahead."""


def reversal_cost_ratio(
    joint: JointResult,
    observed_px: Float[Tensor, "k 2"],
    bundle: BundleAdjustmentConfig,
    *,
    max_error_px: float,
    generator: torch.Generator,
) -> float:
    """Cost of the reversed block over that of the block itself, both adjusted to the same observations.

    Around 1 nothing tells them apart; below 1 the reversed one fits better. ``observed_px`` are the observations as
    seen, ``max_error_px`` is how far off they may be when the views are placed anew. Infinite for a block that
    fits exactly.
    """
    points = reversed_points(joint)
    poses = _placed(joint, points, observed_px, max_error_px, generator)
    costs = []
    for cam_from_world, world in ((joint.cam_from_world, joint.points), (poses, points)):
        problem = BundleProblem(
            cam_from_world,
            world,
            joint.camera,
            joint.view_index,
            joint.point_index,
            observed_px,
            radial=joint.radial,
        )
        costs.append(bundle_adjust(problem, bundle).cost_final)
    return costs[1] / costs[0] if costs[0] > 0 else float("inf")


def reversed_points(joint: JointResult) -> Float[Tensor, "p 3"]:
    """Points on the same rays of the first view, with inverse depths mirrored at their median."""
    pose = joint.cam_from_world[0]
    seen = joint.points @ pose[:, :3].T + pose[:, 3]
    inverse = 1.0 / seen[:, 2].clamp_min(1e-6)
    median = inverse.median()
    mirrored = (2 * median - inverse).clamp_min(LEAST_INVERSE_DEPTH * median)
    return (seen * (inverse / mirrored)[:, None] - pose[:, 3]) @ pose[:, :3]


def _placed(
    joint: JointResult,
    points: Float[Tensor, "p 3"],
    observed_px: Float[Tensor, "k 2"],
    max_error_px: float,
    generator: torch.Generator,
) -> Float[Tensor, "v 3 4"]:
    """Every view by resection from these points."""
    views = len(joint.cam_from_world)
    order = joint.view_index.argsort(stable=True)
    count = joint.observations_per_view
    first = count.cumsum(0) - count
    place = torch.arange(len(order), device=order.device) - first[joint.view_index[order]]
    at = joint.view_index[order], place
    most = max(4, int(count.max()))
    world, pixels = points.new_zeros(views, most, 3), points.new_zeros(views, most, 2)
    mask = torch.zeros(views, most, dtype=torch.bool, device=points.device)
    world[at] = points[joint.point_index[order]]
    pixels[at] = undistort_pixels(observed_px, joint.camera, joint.radial)[order]
    mask[at] = True
    found = estimate_absolute_pose(
        world,
        pixels,
        joint.camera,
        RansacConfig(hypotheses=128, max_error_px=max_error_px),
        mask=mask,
        generator=generator,
    )
    known = (found.inlier_count >= 6)[:, None, None]
    return torch.where(known, matrix_from_se3(found.cam_from_world), joint.cam_from_world)
