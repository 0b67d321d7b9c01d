"""Adjustment leaves a world's place, rotation and scale open: adjusted views keep those that they had."""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from acezero_gpu.adjustment.joint import JointResult
from acezero_gpu.geometry import camera_centres, fit_similarity

LEAST_SPREAD = 0.02
"""Cameras closer together than this share of the depth say nothing of the scale."""


def in_frame_of(joint: JointResult, before: Float[Tensor, "v 3 4"], held: Bool[Tensor, " v"]) -> JointResult:
    """The adjusted views moved rigidly, as one, to where they were on average.

    Adjustment holds one view, so that view's own error would turn the whole world against the map. Cameras on a
    line leave a rotation about it open; a point ahead of each camera on every axis closes it.
    """
    lever = joint.depth().median() if len(joint.view_index) else before.new_ones(())
    weights = held.to(before.dtype).repeat_interleave(4)
    rigid = fit_similarity(
        _camera_tripods(joint.cam_from_world, lever),
        _camera_tripods(before, lever),
        weights,
        with_scale=False,
    )
    return replace(
        joint, cam_from_world=rigid.apply_to_cameras(joint.cam_from_world), points=rigid.apply(joint.points)
    )


def in_scale_of(joint: JointResult, before: Float[Tensor, "v 3 4"], held: Bool[Tensor, " v"]) -> JointResult:
    """The adjusted views with the distances that they had on average, about the world's origin.

    What was before may be rough, what is adjusted is not: the fit is unbiased this way round. Views in one place have
    no distances, and nothing changes.
    """
    centres = camera_centres(joint.cam_from_world)
    chosen = centres[held]
    lever = joint.depth().median() if len(joint.view_index) else centres.new_ones(())
    if len(chosen) < 2 or bool((chosen - chosen.mean(0)).norm(dim=-1).max() < LEAST_SPREAD * lever):
        return joint
    scale = fit_similarity(centres, camera_centres(before), held.to(before.dtype)).scale
    poses = joint.cam_from_world.clone()
    poses[..., 3] *= scale
    return replace(joint, cam_from_world=poses, points=scale * joint.points)


def _camera_tripods(cam_from_world: Float[Tensor, "v 3 4"], lever: Tensor) -> Float[Tensor, "tips 3"]:
    """Each camera's centre and the ends of its axes, in world coordinates."""
    centres = camera_centres(cam_from_world)[:, None]
    return torch.cat([centres, centres + lever * cam_from_world[..., :3]], dim=1).flatten(0, 1)
