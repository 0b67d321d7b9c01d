"""Poses as exact as keypoints allow: all registered images adjusted, others placed beside them, all adjusted again."""

from dataclasses import replace

import torch
from jaxtyping import Bool
from torch import Tensor

from acezero_gpu.reconstruction.growth_rounds import grown_out
from acezero_gpu.reconstruction.image_bank import ImageBank
from acezero_gpu.reconstruction.joint_adjustment import JointRefinement, JointRefinementConfig, Refiner
from acezero_gpu.reconstruction.matching import MatchStore
from acezero_gpu.reconstruction.state import ReconstructionState
from acezero_gpu.reconstruction.two_view import OverlapChecks


def adjust_registered(
    bank: ImageBank,
    matches: MatchStore,
    overlaps: OverlapChecks,
    state: ReconstructionState,
    config: JointRefinementConfig,
    *,
    refine_focal: bool,
    generator: torch.Generator,
    fixed: Bool[Tensor, " n"] | None = None,
) -> JointRefinement:
    """Bundle adjustment of the registered images, and of those that their keypoints add to them.

    An image that shares a place with others at another pose than theirs is contradicted: it loses its registration.
    Unregistered images are placed by resection against the adjusted points, with quick adjustments of all on the way,
    and a thorough one ends it. Parts that hardly any point ties to the others go where matches say
    (``settle_loose_parts``), unless any pose is fixed. ``fixed`` images keep their poses and their registration, and
    define the frame. Without them the images that were registered at first do, on average, but for those that were
    moved so: few views bend before others join, and the world must not turn with them.
    """
    thorough = replace(config.joint, bundle=replace(config.joint.bundle, refine_focal=refine_focal))
    refiner = Refiner(bank, matches, overlaps, config, thorough.quick(), generator, fixed)
    refined = refiner.adjusted(state)
    at_home = refined.state.held.clone()
    at_home[refined.views[refined.settled]] = False
    refiner = replace(refiner, home=state.cam_from_world, at_home=at_home)
    refined = refiner.thorough(grown_out(refiner, refined), thorough)
    if not bool(refined.state.registered.all()):
        # The thorough adjustment has moved the others, and may have brought contradictions to light.
        before = int(refined.state.registered.sum())
        again = grown_out(refiner, refined)
        if int(again.state.registered.sum()) > before:
            refined = refiner.thorough(again, thorough)
    registered = refined.state.registered
    lost = state.registered & ~registered
    return replace(
        refined,
        state=replace(refined.state, contradicted=(state.contradicted | lost) & ~registered),
        joined=int((registered & ~state.registered).sum()),
        contradicted=int(lost.sum()),
    )
