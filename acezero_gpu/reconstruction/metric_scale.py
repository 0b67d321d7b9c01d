"""The scale of a reconstruction whose images have depth maps: metres."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from acezero_gpu.data.depth import DepthSource, depth_at
from acezero_gpu.reconstruction.image_bank import ImageBank
from acezero_gpu.reconstruction.joint_adjustment import JointRefinement

SAMPLED_VIEWS = 24
"""Depth maps are read for so many views at the most, evenly spread."""
ENOUGH_RATIOS = 20
"""With fewer points that have a depth, the scale stays as it is."""


def in_metres(refined: JointRefinement, bank: ImageBank, depth: DepthSource) -> JointRefinement:
    """State and points scaled by the median of (measured depth / depth of the adjusted point).

    Adjustment leaves the scale free; it would keep whatever the first, rough poses happened to have.
    """
    joint, state = refined.joint, refined.state
    pixels = bank.keypoints(refined.views).pixels[refined.views][joint.view_index, joint.keypoint_index]
    adjusted_depth = joint.depth()
    every = max(1, len(refined.views) // SAMPLED_VIEWS)
    ratios = []
    for row in range(0, len(refined.views), every):
        found = depth.depth_m(int(refined.views[row]))
        if found is None:
            continue
        seen = joint.view_index == row
        measured = depth_at(found.to(pixels.device), pixels[seen], bank.width, bank.height)
        known = measured > 0
        ratios.append(measured[known] / adjusted_depth[seen][known])
    if sum(len(part) for part in ratios) < ENOUGH_RATIOS:
        return refined
    scale = torch.cat(ratios).median()
    return replace(
        refined,
        state=replace(state, cam_from_world=_scaled(state.cam_from_world, scale)),
        joint=replace(
            joint, cam_from_world=_scaled(joint.cam_from_world, scale), points=scale * joint.points
        ),
    )


def _scaled(cam_from_world: Float[Tensor, "v 3 4"], scale: Tensor) -> Float[Tensor, "v 3 4"]:
    poses = cam_from_world.clone()
    poses[..., 3] *= scale
    return poses
