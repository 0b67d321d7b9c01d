"""Adjusts all registered images together, with matches only between images that look alike."""

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from acezero_gpu.adjustment.covisibility import covisible_pairs
from acezero_gpu.adjustment.joint import JointConfig, JointResult, adjust_views, triangulate_views
from acezero_gpu.reconstruction.growth import GrowthConfig, grow
from acezero_gpu.reconstruction.image_bank import ImageBank
from acezero_gpu.reconstruction.matching import MatchStore, partner_pairs
from acezero_gpu.reconstruction.pose_checks import PoseCheckConfig, check_poses
from acezero_gpu.reconstruction.resection import PointMap
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
    Unregistered images are placed by resection against the adjusted points; as long as some join, this is repeated
    with quick adjustments, and a thorough one ends it. ``fixed`` images keep their poses and their registration, and
    define the frame. Without them the images that were registered at first do, on average: few views bend before
    others join, and the world must not turn with them.
    """
    thorough = replace(config.joint, bundle=replace(config.joint.bundle, refine_focal=refine_focal))
    refiner = _Refiner(bank, matches, overlaps, config, thorough.quick(), generator, fixed)
    refined = refiner.adjusted(state)
    refiner = replace(refiner, home=state.cam_from_world, at_home=refined.state.held)
    refined = refiner.thorough(refiner.grown_out(refined), thorough)
    if not bool(refined.state.registered.all()):
        # The thorough adjustment has moved the others, and may have brought contradictions to light.
        before = int(refined.state.registered.sum())
        again = refiner.grown_out(refined)
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


@dataclass(frozen=True, slots=True)
class _Refiner:
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
    """Which images have one."""

    def thorough(self, refined: JointRefinement, joint_config: JointConfig) -> JointRefinement:
        """The registered images adjusted together, also by matches with those that see the same place."""
        config, registered = self.config, refined.state.registered
        pairs = partner_pairs(self.bank, registered, config.near if config.covisible else config.partners)
        if config.covisible:
            seen = covisible_pairs(refined.joint, config.covisible, config.min_overlap)
            pairs = torch.cat([pairs, refined.views.cpu()[seen]])
            pairs = pairs[registered.cpu()[pairs].all(-1)]
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
        joint = adjust_views(
            graph if pairs is None else self.matches.between(pairs, views),
            pixels,
            state.cam_from_world[views],
            state.camera,
            replace(joint_config, bundle=replace(bundle, refine_radial=radial)),
            pixel_scale=bank.pixel_scale,
            radial=state.radial,
            fixed_views=None if self.fixed is None else self.fixed[views],
        )
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
            joint = self._at_home(joint, state, views, held)
        else:
            stays = self.fixed[views]
            held, contradicted = held | stays, contradicted & ~stays
            given = state.cam_from_world[views]
            joint = replace(
                joint, cam_from_world=torch.where(stays[:, None, None], given, joint.cam_from_world)
            )
        state = _with_adjusted(state, joint, views, held, contradicted)
        return JointRefinement(state, joint, views, 0, int(contradicted.sum()), check.part)

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

    def grown_out(self, refined: JointRefinement) -> JointRefinement:
        """With all images that can be placed, quickly adjusted; by points without parallax when nothing else helps."""
        last_resort = False
        for _ in range(self.config.growth.rounds):
            before = int(refined.state.registered.sum())
            grown = self.grown(refined, every_point=last_resort)
            if int(grown.registered.sum()) > before:
                refined = self.adjusted(grown)
            if int(refined.state.registered.sum()) > before:
                last_resort = False
            elif self.deepened(refined.state):
                refined = self.adjusted(refined.state)
            elif last_resort:
                break
            else:
                last_resort = True
        return refined

    def grown(self, refined: JointRefinement, *, every_point: bool = False) -> ReconstructionState:
        """The state with the unregistered images that their keypoints place; the same if there are none.

        ``every_point``: also by points without parallax.
        """
        bank, state, views = self.bank, refined.state, refined.views
        if bool(state.registered.all()) or len(refined.joint.points) == 0:
            return state
        placed = torch.zeros_like(state.registered)
        placed[views] = (refined.part == 0) & state.registered[views]
        slots = bank.config.keypoints.per_image
        point_map = PointMap.of(refined.joint, views, len(bank), slots)
        if every_point:
            points = triangulate_views(
                self.matches.between(partner_pairs(bank, placed, self.config.partners), views),
                bank.keypoints(views).pixels[views],
                replace(refined.joint, cam_from_world=state.cam_from_world[views]),
                self.quick,
                pixel_scale=bank.pixel_scale,
            )
            point_map = PointMap.of(points, views, len(bank), slots).with_points_of(refined.joint, views)
        return grow(
            bank,
            self.matches,
            self._graph(),
            state,
            placed,
            point_map,
            self.config.growth,
            self.quick,
            self.generator,
            every_point=every_point,
        )

    def deepened(self, state: ReconstructionState) -> bool:
        """Whether more keypoints could be matched around images that could not be placed.

        Between these images, between them and their placed neighbours, and between these neighbours: the new
        matches with a neighbour help only if it sees new points too.
        """
        waiting = ~state.registered.cpu()
        graph = self._graph()
        border = waiting.clone()
        border[graph[waiting[graph].any(-1)].flatten()] = True
        if not bool((border & ~waiting).any()):
            return False
        return self.matches.deepen(graph[border[graph].all(-1)]) > 0

    def _graph(self) -> Int[Tensor, "p 2"]:
        return partner_pairs(self.bank, torch.ones(len(self.bank), dtype=torch.bool), self.config.partners)


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
