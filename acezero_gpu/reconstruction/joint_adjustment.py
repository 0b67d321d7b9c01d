"""All registered images adjusted together, with matches only between images that look alike."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from acezero_gpu.adjustment.covisibility import covisible_pairs
from acezero_gpu.adjustment.joint import JointConfig, JointResult, adjust_views
from acezero_gpu.adjustment.loose_parts import LoosePartsConfig, settle_loose_parts
from acezero_gpu.adjustment.match_graph import PairMatches
from acezero_gpu.reconstruction.growth import GrowthConfig
from acezero_gpu.reconstruction.image_bank import ImageBank
from acezero_gpu.reconstruction.matching import MatchStore, partner_pairs
from acezero_gpu.reconstruction.pose_checks import PoseCheckConfig, check_poses
from acezero_gpu.reconstruction.state import ReconstructionState
from acezero_gpu.reconstruction.two_view import OverlapChecks
from acezero_gpu.reconstruction.world_frame import in_frame_of, in_scale_of

RefineJoint = Literal["off", "final", "every"]


@dataclass(frozen=True, slots=True)
class JointRefinementConfig:
    """When and how registered images are adjusted together."""

    when: RefineJoint = "every"
    """``every``: after each registration, ``final``: before the final round only, ``off``: never."""
    holds: bool = True
    """A mapping round that follows an adjustment keeps its poses and focal length; otherwise it refines them on."""
    refine_radial: bool = True
    """Estimate two coefficients of radial distortion, once ``radial_views`` views are registered; also where the focal
    length is kept."""
    radial_views: int = 16
    """With fewer views than this the lens is taken to be free of distortion: little would hold the coefficients."""
    partners: int = 12
    """Look-alikes that each image is matched with; their number bounds the cost per image."""
    covisible: int = 8
    """Images that each image is matched with besides, once adjusted poses tell which ones see the same place; 0: the
    look-alikes remain all there is."""
    near: int = 4
    """Look-alikes that stay in the thorough adjustment, beside the covisible images."""
    min_overlap: float = 0.2
    """Images are covisible if they share this much of what either of them sees."""
    every_keypoint: bool = True
    """The thorough adjustment matches all keypoints of its pairs, not only the strongest ones."""
    min_observations: int = 15
    """An adjusted view needs this many points; with fewer its pose stays as registered."""
    joint: JointConfig = field(default_factory=JointConfig)
    loose: LoosePartsConfig = field(default_factory=LoosePartsConfig)
    """When parts that nothing with parallax ties to the others are moved to their place and scale."""
    check: PoseCheckConfig = field(default_factory=PoseCheckConfig)
    """When images contradict the others and lose their registration."""
    growth: GrowthConfig = field(default_factory=GrowthConfig)
    """How images that the map misses join by their keypoints."""


@dataclass(frozen=True, slots=True)
class JointRefinement:
    """The state with adjusted poses, and how they were come by."""

    state: ReconstructionState
    """Images that joined are registered in it, contradicted ones are not."""
    joint: JointResult
    """Over ``views`` only, in their order."""
    views: Int[Tensor, " v"]
    """Indices of the images that were adjusted together."""
    joined: int
    """Images that the map had not registered and that their keypoints placed."""
    contradicted: int
    """Images that the map had registered and that their keypoints do not confirm."""
    part: Int[Tensor, " v"]
    """Views that nothing ties to the largest part, 0, have other numbers: they may lie anywhere."""
    settled: Bool[Tensor, " v"]
    """Views that the last adjustment put elsewhere, as parts that hung loose."""


@dataclass(frozen=True, slots=True)
class Refiner:
    """What every step of a refinement uses."""

    bank: ImageBank
    matches: MatchStore
    overlaps: OverlapChecks
    config: JointRefinementConfig
    quick: JointConfig
    generator: torch.Generator
    fixed: Bool[Tensor, " n"] | None
    home: Float[Tensor, "n 3 4"] | None = None
    """Poses that hold the world's place, rotation and scale; None: those before each adjustment."""
    at_home: Bool[Tensor, " n"] | None = None
    """Which images have one; those that turn out to be elsewhere lose it."""

    def thorough(self, refined: JointRefinement, joint_config: JointConfig) -> JointRefinement:
        """The registered images adjusted together, also by matches with those that see the same place."""
        config, registered = self.config, refined.state.registered.cpu()
        pairs = partner_pairs(self.bank, registered, config.near if config.covisible else config.partners)
        if config.covisible:
            seen = refined.views.cpu()[covisible_pairs(refined.joint, config.covisible, config.min_overlap)]
            pairs = torch.cat([pairs, seen[registered[seen].all(-1)]])
        if config.every_keypoint:
            self.matches.deepen(pairs)
        return self.adjusted(refined.state, joint_config, pairs)

    def adjusted(
        self,
        state: ReconstructionState,
        joint_config: JointConfig | None = None,
        pairs: Int[Tensor, "p 2"] | None = None,
    ) -> JointRefinement:
        """The registered images adjusted together, quickly if not said how; contradicted ones are dropped.

        By the matches of ``pairs``, or of look-alikes. What contradicts them is judged by look-alikes: which images
        see the same place by their poses would agree with these poses.
        """
        bank, config, joint_config = self.bank, self.config, joint_config or self.quick
        views = state.registered.nonzero()[:, 0]
        graph = self.matches.between(partner_pairs(bank, state.registered, config.partners), views)
        pixels = bank.keypoints(views).pixels[views]
        bundle = joint_config.bundle
        radial = config.refine_radial and len(views) >= config.radial_views
        used = graph if pairs is None else self.matches.between(pairs, views)
        adjust = partial(
            adjust_views,
            used,
            pixels,
            config=replace(joint_config, bundle=replace(bundle, refine_radial=radial)),
            pixel_scale=bank.pixel_scale,
            fixed_views=None if self.fixed is None else self.fixed[views],
        )
        joint = adjust(state.cam_from_world[views], state.camera, radial=state.radial)
        joint, moved = self._settled(joint, used, graph, pixels, adjust)
        check = check_poses(
            graph,
            pixels,
            joint.cam_from_world,
            joint.camera,
            joint.radial,
            views,
            self.overlaps,
            config.check,
            pixel_scale=bank.pixel_scale,
            generator=self.generator,
        )
        contradicted = check.contradicted
        held = (joint.observations_per_view >= config.min_observations) & ~contradicted
        if self.fixed is None:
            joint = self._at_home(joint, state, views, held & ~moved)
            if self.at_home is not None:
                self.at_home[views[moved]] = False
        else:
            stays = self.fixed[views]
            held, contradicted = held | stays, contradicted & ~stays
            given = state.cam_from_world[views]
            joint = replace(
                joint, cam_from_world=torch.where(stays[:, None, None], given, joint.cam_from_world)
            )
        state = _with_adjusted(state, joint, views, held, contradicted)
        return JointRefinement(state, joint, views, 0, int(contradicted.sum()), check.part, moved)

    def _settled(
        self,
        joint: JointResult,
        used: PairMatches,
        graph: PairMatches,
        pixels: Float[Tensor, "v k 2"],
        adjust: Callable[..., JointResult],
    ) -> tuple[JointResult, Bool[Tensor, " v"]]:
        """With loose parts where they belong and adjusted there, and which views were moved.

        None is where poses are given that must not move, or where adjustment does not confirm it: in the right place
        matches with the others become observations.
        """
        unmoved = joint, torch.zeros(len(pixels), dtype=torch.bool, device=pixels.device)
        if self.fixed is not None:
            return unmoved
        settled = settle_loose_parts(
            joint,
            used,
            graph,
            pixels,
            self.config.loose,
            pixel_scale=self.bank.pixel_scale,
            generator=self.generator,
        )
        if settled is None:
            return unmoved
        again = adjust(settled.cam_from_world, settled.camera, radial=settled.radial)
        if len(again.view_index) <= len(joint.view_index):
            return unmoved
        return again, (settled.cam_from_world != joint.cam_from_world).flatten(1).any(1)

    def _at_home(
        self,
        joint: JointResult,
        state: ReconstructionState,
        views: Int[Tensor, " v"],
        held: Bool[Tensor, " v"],
    ) -> JointResult:
        """The adjusted views moved as one to where they belong on average."""
        if self.home is not None and self.at_home is not None and bool((held & self.at_home[views]).any()):
            home, stays = self.home[views], held & self.at_home[views]
            return in_frame_of(in_scale_of(joint, home, stays), home, stays)
        return in_frame_of(joint, state.cam_from_world[views], held)


def _with_adjusted(
    state: ReconstructionState,
    joint: JointResult,
    views: Int[Tensor, " v"],
    held: Bool[Tensor, " v"],
    contradicted: Bool[Tensor, " v"],
) -> ReconstructionState:
    """The state with the adjusted camera and the poses of held views; contradicted ones are not registered."""
    poses, registered = state.cam_from_world.clone(), state.registered.clone()
    poses[views] = torch.where(held[:, None, None], joint.cam_from_world, poses[views])
    registered[views[contradicted]] = False
    adjusted = torch.zeros_like(registered)
    adjusted[views] = held
    return replace(
        state,
        cam_from_world=poses,
        registered=registered,
        camera=joint.camera,
        radial=joint.radial,
        held=adjusted,
    )
