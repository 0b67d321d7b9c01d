"""Adjusts all registered images together, with matches only between images that look alike."""

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from acezero_gpu.adjustment.joint import JointConfig, JointResult, adjust_views
from acezero_gpu.geometry import camera_centres, fit_similarity
from acezero_gpu.reconstruction.image_bank import ImageBank
from acezero_gpu.reconstruction.matching import MatchStore, neighbours
from acezero_gpu.reconstruction.state import ReconstructionState

RefineJoint = Literal["off", "final", "every"]


@dataclass(frozen=True, slots=True)
class JointRefinementConfig:
    """When and how registered images are adjusted together."""

    when: RefineJoint = "every"
    """``every``: after each registration, ``final``: before the final round only, ``off``: never."""
    partners: int = 12
    """Images that each image is matched with; their number bounds the cost per image."""
    min_observations: int = 15
    """An adjusted view needs this many points; with fewer its pose stays as registered."""
    joint: JointConfig = field(default_factory=JointConfig)


@dataclass(frozen=True, slots=True)
class JointRefinement:
    """The state with adjusted poses, and how they were come by."""

    state: ReconstructionState
    joint: JointResult
    """Over the registered images only, in ``views`` order."""
    views: Int[Tensor, " v"]
    adjusted: Tensor
    """Per image: whether tracks hold its pose."""


def adjust_registered(
    bank: ImageBank,
    matches: MatchStore,
    state: ReconstructionState,
    config: JointRefinementConfig,
    *,
    refine_focal: bool,
) -> JointRefinement:
    """Bundle adjustment of the registered images; the others keep their poses."""
    views = state.registered.nonzero()[:, 0]
    pairs = partner_pairs(bank, state.registered, config.partners)
    graph = matches.between(pairs, views)
    pixels = bank.keypoints(views).pixels[views]
    bundle = replace(config.joint.bundle, refine_focal=refine_focal)
    joint = adjust_views(
        graph,
        pixels,
        state.cam_from_world[views],
        state.camera,
        replace(config.joint, bundle=bundle),
        pixel_scale=bank.pixel_scale,
    )
    held = joint.observations_per_view >= config.min_observations
    joint = _in_frame_of(joint, state.cam_from_world[views], held)
    poses = state.cam_from_world.clone()
    poses[views] = torch.where(held[:, None, None], joint.cam_from_world, poses[views])
    adjusted = torch.zeros_like(state.registered)
    adjusted[views] = held
    return JointRefinement(
        replace(state, cam_from_world=poses, camera=joint.camera), joint, views, adjusted
    )


def _in_frame_of(
    joint: JointResult, before: Float[Tensor, "v 3 4"], held: Bool[Tensor, " v"]
) -> JointResult:
    """The adjusted views moved rigidly, as one, to where they were on average.

    Adjustment holds one view, so that view's own error would turn the whole world against the map. Cameras on a
    line leave a rotation about it open; a point ahead of each camera on every axis closes it.
    """
    lever = joint.depth().median() if len(joint.view_index) else before.new_ones(())
    weights = held.to(before.dtype).repeat_interleave(4)
    rigid = fit_similarity(
        _camera_tripods(joint.cam_from_world, lever), _camera_tripods(before, lever), weights, with_scale=False
    )
    return replace(
        joint, cam_from_world=rigid.apply_to_cameras(joint.cam_from_world), points=rigid.apply(joint.points)
    )


def _camera_tripods(cam_from_world: Float[Tensor, "v 3 4"], lever: Tensor) -> Float[Tensor, "tips 3"]:
    """Each camera's centre and the ends of its axes, in world coordinates."""
    centres = camera_centres(cam_from_world)[:, None]
    return torch.cat([centres, centres + lever * cam_from_world[..., :3]], dim=1).flatten(0, 1)


def partner_pairs(bank: ImageBank, registered: Tensor, partners: int) -> Int[Tensor, "p 2"]:
    """For every registered image a bounded number of registered look-alikes; each pair once, smaller index first."""
    similarity = bank.similarity()
    rows = []
    for image in registered.nonzero()[:, 0].tolist():
        found = neighbours(similarity, image, registered.cpu(), partners)
        rows.append(torch.stack([torch.full_like(found, image), found], dim=-1))
    pairs = torch.cat(rows).sort(dim=1).values
    return pairs.unique(dim=0)
