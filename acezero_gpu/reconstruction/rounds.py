"""One round of the loop and its pieces: map, register, adjust."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from acezero_gpu.data.depth import DepthSource
from acezero_gpu.data.posed_views import PosedViews
from acezero_gpu.geometry import PinholeCamera
from acezero_gpu.mapping import (
    FrameTable,
    LossName,
    MappingResult,
    PoseRefinementConfig,
    ScheduleConfig,
    TrainingProgress,
)
from acezero_gpu.network import Head, SceneMap
from acezero_gpu.reconstruction import parallel
from acezero_gpu.reconstruction.final_map import final_training
from acezero_gpu.reconstruction.given_poses import GivenPoses
from acezero_gpu.reconstruction.held_tracks import held_tracks
from acezero_gpu.reconstruction.image_bank import ImageBank
from acezero_gpu.reconstruction.joint_refinement import adjust_registered
from acezero_gpu.reconstruction.loop_config import LoopConfig
from acezero_gpu.reconstruction.matching import MatchStore
from acezero_gpu.reconstruction.metric_scale import in_metres
from acezero_gpu.reconstruction.plan import expected_work
from acezero_gpu.reconstruction.state import (
    Placement,
    ReconstructionState,
    ReconstructionStep,
    StepName,
    to_posed_views,
)
from acezero_gpu.reconstruction.two_view import OverlapChecks
from acezero_gpu.runtime import StageTimer, random_stream
from acezero_gpu.runtime.progress import expect


@dataclass(frozen=True, slots=True)
class Round:
    """One mapping with what it was started from."""

    name: StepName
    index: int
    schedule: ScheduleConfig
    poses: PoseRefinementConfig
    refine_focal: bool
    loss_name: LossName

    @property
    def final(self) -> bool:
        """Whether its map is the one that is kept."""
        return self.name == "final"


class Loop:
    """The pieces that all rounds use."""

    def __init__(
        self,
        bank: ImageBank,
        config: LoopConfig,
        seed: int,
        timer: StageTimer,
        log: Callable[[str], None],
        depth: DepthSource | None = None,
        given: GivenPoses | None = None,
    ) -> None:
        self.bank, self.config, self.seed, self.timer, self.log = bank, config, seed, timer, log
        self.depth, self.given = depth, given
        self.fixed = given.mask(len(bank)).to(bank.device) if given is not None and given.fixed else None
        """Images whose poses nothing may move, where there are any."""
        self.matches = MatchStore(bank)
        self.overlaps = OverlapChecks(bank, self.matches, config.joint.check.overlap)

    @property
    def grows_first(self) -> bool:
        """Whether a start is to grow by its keypoints before any map is trained."""
        return self.config.grow_first and self.config.joint.when == "every"

    def map(
        self,
        round_: Round,
        frames: Tensor,
        cam_from_world: Float[Tensor, "f 3 4"],
        camera: PinholeCamera,
        *,
        head: Head | None = None,
        radial: Tensor | None = None,
        targets: Tensor | None = None,
    ) -> MappingResult:
        """Trains a map of these frames."""
        with self.timer.stage("buffer"):
            parallel.fill_buffer(self.bank, frames.cpu())
        training, heads = self.config.training, 1
        if round_.final:
            final = self.config.final_map.with_encoder(self.bank.encoder.identifier)
            training, heads = final_training(final, training, round_.poses, len(frames), self.log)
        training = replace(
            training,
            schedule=round_.schedule,
            poses=round_.poses,
            calibration=replace(training.calibration, refine=round_.refine_focal),
            loss=replace(training.loss, name=round_.loss_name),
        ).scaled(self.bank.pixel_scale)
        table = FrameTable(
            frames.to(self.bank.device),
            cam_from_world,
            camera,
            radial,
            targets,
            (self.bank.height, self.bank.width),
            None if self.fixed is None else self.fixed[frames.to(self.bank.device)],
        )

        def report(entry: TrainingProgress) -> None:
            self.log(
                f"    step {entry.iteration} of {entry.total_iterations}: loss {entry.loss:.2f} px, at least "
                f"{100 * entry.inlier_share:.0f} % inliers, learning rate {entry.learning_rate:.5f}"
            )

        with self.timer.stage("mapping"):
            return parallel.train(
                self.bank,
                table,
                training,
                generator=random_stream(
                    self.seed, "mapping", round_.name, round_.index, device=self.bank.device
                ),
                heads=heads,
                initial_head=head if head is not None and head.count == 1 else None,
                progress=report,
            )

    def begin(self, part: StepName, index: int, placed: int, *, maps_seeds: bool = True) -> None:
        """Says what is expected from here on."""
        name = f"{part} {index}" if part == "iteration" else part
        expect(name, expected_work(self.bank, self.config, part, placed=placed, maps_seeds=maps_seeds))

    def register(
        self, scene_map: SceneMap, camera: PinholeCamera, radial: Tensor, round_: Round
    ) -> ReconstructionState:
        """Registers all images from scratch, but for those whose poses are fixed."""
        config = self.config.registration
        with self.timer.stage("registration"):
            found = parallel.register(
                self.bank,
                scene_map,
                camera,
                config,
                radial=radial,
                generator=random_stream(self.seed, "registration", round_.name, round_.index),
            )
        state = ReconstructionState.by_one_map(
            found.cam_from_world,
            found.inlier_count.float(),
            found.registered(config),
            camera,
            radial,
        )
        if self.given is None or self.fixed is None:
            return state
        return replace(
            state,
            cam_from_world=self.given.put_into(state.cam_from_world),
            registered=state.registered | self.fixed,
            held=self.fixed,
        )

    def step(
        self,
        round_: Round,
        mapped_state: ReconstructionState,
        mapped: MappingResult,
        scene_map: SceneMap,
        state: ReconstructionState,
        stop_reason: str | None,
    ) -> ReconstructionStep:
        """What the loop gives out: the poses that were mapped, and those that came of it."""
        bank = self.bank
        poses = torch.eye(3, 4, device=bank.device).repeat(len(bank), 1, 1)
        poses[mapped_state.registered] = mapped.cam_from_world
        confidence = torch.where(mapped_state.registered, torch.inf, 0.0)
        return ReconstructionStep(
            round_.index,
            round_.name,
            scene_map,
            self.output_views(poses, confidence, mapped.camera),
            self.output_views(state.cam_from_world, state.inlier_count, state.camera),
            int(state.registered.sum()),
            state.registered_by_map,
            stop_reason,
            mapped.log,
            Placement.of(state),
            state.tracks,
            lens_of(state),
        )

    def output_views(
        self, cam_from_world: Float[Tensor, "n 3 4"], confidence: Float[Tensor, " n"], camera: PinholeCamera
    ) -> PosedViews:
        """As a step gives them out; fixed poses as they came, not by way of a matrix."""
        views = to_posed_views(self.bank, cam_from_world, confidence, camera)
        if self.given is None or self.fixed is None:
            return views
        return self.given.into_views(views, views.cam_from_world.dtype)


def scene_map_of(bank: ImageBank, mapped: MappingResult, radial: Float[Tensor, " 2"]) -> SceneMap:
    """The map with all that registration needs to know of its images."""
    shortest = min(bank.height, bank.width)
    focal = float(mapped.camera.focal_px.mean())
    k1, k2 = radial.tolist()
    files = bank.images.image_set
    shape = max(files.width, files.height) / min(files.width, files.height)
    return SceneMap(mapped.head, bank.encoder.identifier, shortest, focal / shortest, (k1, k2), shape)


def lens_of(state: ReconstructionState) -> tuple[float, float]:
    """``k1, k2`` as numbers."""
    k1, k2 = state.radial.tolist()
    return k1, k2


def refining_round(config: LoopConfig, name: StepName, index: int, adjusted: bool) -> Round:
    """A growth or final round; what an adjustment has just fitted to the keypoints is not refined again by the map."""
    poses = (
        replace(config.training.poses, wait=config.final_pose_wait)
        if name == "final"
        else config.training.poses
    )
    held = adjusted and config.joint.holds
    return Round(
        name,
        index,
        config.final_schedule if name == "final" else config.growth_schedule,
        PoseRefinementConfig(name="none") if held else poses,
        not (held or config.fix_focal),
        "dyntanh" if name == "final" else config.training.loss.name,
    )


def adjusted(loop: Loop, state: ReconstructionState, wanted: bool, index: int) -> ReconstructionState:
    if not wanted or not bool(state.registered.any()):
        return state
    with loop.timer.stage("adjustment"):
        refined = adjust_registered(
            loop.bank,
            loop.matches,
            loop.overlaps,
            state,
            loop.config.joint,
            refine_focal=not loop.config.fix_focal,
            fixed=loop.fixed,
            generator=random_stream(loop.seed, "adjustment", index),
        )
    if loop.depth is not None:
        refined = in_metres(refined, loop.bank, loop.depth)
    joint = refined.joint
    state = with_consistent_confidence(refined.state, loop)
    if len(joint.points) == 0:
        loop.log("  adjustment: no tracks between the registered views")
        return replace(state, tracks=None)
    state = replace(state, tracks=held_tracks(refined, loop.bank))
    k1, k2 = joint.radial.tolist()
    loop.log(
        f"  adjusted {int(refined.state.held.sum())} of {len(refined.views)} views with {len(joint.points)} points "
        f"in {len(joint.view_index)} observations, median error {float(joint.error_px.median()):.2f} px; "
        f"{refined.joined} joined, {refined.contradicted} contradicted; "
        f"focal {loop.bank.focal_original_px(joint.camera):.1f} px, radial {k1:.3f} {k2:.3f}"
    )
    apart = int((refined.part[refined.state.held[refined.views]] > 0).sum())
    if apart:
        loop.log(
            f"  {apart} views share no place with the largest part of the reconstruction; they may lie anywhere"
        )
    return state


def with_consistent_confidence(state: ReconstructionState, loop: Loop) -> ReconstructionState:
    """Images that keypoints placed are given the least confidence of a registered image, and images that keypoints
    contradict less than that: readers of a pose file know the threshold, not our flags."""
    threshold = loop.config.registration.min_inlier_share * loop.bank.grid[0] * loop.bank.grid[1]
    count = state.inlier_count
    return replace(
        state,
        inlier_count=torch.where(
            state.registered, count.clamp_min(threshold), count.clamp_max(0.99 * threshold)
        ),
    )
