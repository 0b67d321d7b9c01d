"""The loop: seed, map, register, grow, refit (ACE0, ECCV 2024), in one process."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from acezero_gpu.geometry import PinholeCamera
from acezero_gpu.mapping import (
    FrameTable,
    LossName,
    MappingResult,
    PoseRefinementConfig,
    ScheduleConfig,
    TrainingConfig,
    train_map,
)
from acezero_gpu.network import Head, SceneMap
from acezero_gpu.reconstruction.image_bank import ImageBank
from acezero_gpu.reconstruction.joint_refinement import JointRefinementConfig, adjust_registered
from acezero_gpu.reconstruction.matching import MatchStore
from acezero_gpu.reconstruction.seeds import SeedBlock, SeedConfig, depth_targets, propose_blocks
from acezero_gpu.reconstruction.state import ReconstructionState, ReconstructionStep, StepName, to_posed_views
from acezero_gpu.reconstruction.stopping import StoppingConfig, should_stop
from acezero_gpu.registration import RegistrationConfig, register_images
from acezero_gpu.runtime import StageTimer, random_stream


class ReconstructionError(RuntimeError):
    """The images do not allow a reconstruction; the message says why and what to try."""


@dataclass(frozen=True, slots=True)
class LoopConfig:
    """The loop and its three kinds of mapping rounds."""

    seeds: SeedConfig = field(default_factory=SeedConfig)
    stopping: StoppingConfig = field(default_factory=StoppingConfig)
    registration: RegistrationConfig = field(default_factory=RegistrationConfig)
    joint: JointRefinementConfig = field(default_factory=JointRefinementConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """What all rounds share; the three schedules and pose refinements below replace its own."""
    seed_schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(iterations=10000))
    """Rounds that map a seed's few images; their poses and the focal length stay fixed."""
    growth_schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """Rounds in between."""
    final_schedule: ScheduleConfig = field(
        default_factory=lambda: ScheduleConfig(name="circle", lr_max=0.005)
    )
    """The last round, with a fresh head and the loss ``dyntanh``."""
    final_pose_wait: int = 5000
    """Steps of the last round before poses move."""
    warm_start: bool = True
    """Growth rounds continue the head of the round before; otherwise each starts afresh."""
    fix_focal: bool = False
    """Keep the focal length as given."""


@dataclass(frozen=True, slots=True)
class _Round:
    """One mapping with what it was started from."""

    name: StepName
    index: int
    schedule: ScheduleConfig
    poses: PoseRefinementConfig
    refine_focal: bool
    loss_name: LossName


class _Loop:
    """The pieces that all rounds use."""

    def __init__(
        self, bank: ImageBank, config: LoopConfig, seed: int, timer: StageTimer, log: Callable[[str], None]
    ) -> None:
        self.bank, self.config, self.seed, self.timer, self.log = bank, config, seed, timer, log
        self.matches = MatchStore(bank)
        self.everything = torch.arange(len(bank))

    def map(
        self,
        round_: _Round,
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
            self.bank.fill_buffer(frames.cpu())
        training = self.config.training
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
        )

        def report(entry: object) -> None:
            self.log(f"  map {entry}")

        with self.timer.stage("mapping"):
            return train_map(
                self.bank.buffer,
                table,
                training,
                generator=random_stream(
                    self.seed, "mapping", round_.name, round_.index, device=self.bank.device
                ),
                initial_head=head,
                progress=None,
            )

    def register(
        self, scene_map: SceneMap, camera: PinholeCamera, radial: Tensor, round_: _Round
    ) -> ReconstructionState:
        """Registers all images from scratch."""
        config = self.config.registration
        with self.timer.stage("registration"):
            found = register_images(
                self.bank.features,
                self.everything,
                scene_map,
                camera,
                config,
                stride=self.bank.encoder.stride,
                pixel_scale=self.bank.pixel_scale,
                radial=radial,
                generator=random_stream(self.seed, "registration", round_.name, round_.index),
            )
        registered = found.registered(config)
        return ReconstructionState(
            found.cam_from_world, found.inlier_count.float(), registered, camera, radial
        )

    def scene_map(self, mapped: MappingResult, radial: Tensor) -> SceneMap:
        bank = self.bank
        shortest = min(bank.height, bank.width)
        focal = float(mapped.camera.focal_px.mean())
        k1, k2 = radial.tolist()
        return SceneMap(mapped.head, bank.encoder.identifier, shortest, focal / shortest, (k1, k2))

    def step(
        self,
        round_: _Round,
        frames: Tensor,
        mapped: MappingResult,
        scene_map: SceneMap,
        state: ReconstructionState,
        stop_reason: str | None,
    ) -> ReconstructionStep:
        poses = torch.eye(3, 4, device=self.bank.device).repeat(len(self.bank), 1, 1)
        confidence = torch.zeros(len(self.bank), device=self.bank.device)
        rows = frames.to(self.bank.device)
        poses[rows] = mapped.cam_from_world
        confidence[rows] = torch.inf
        return ReconstructionStep(
            round_.index,
            round_.name,
            scene_map,
            to_posed_views(self.bank, poses, confidence, mapped.camera),
            to_posed_views(self.bank, state.cam_from_world, state.inlier_count, state.camera),
            int(state.registered.sum()),
            stop_reason,
            mapped.log,
        )


def reconstruct(
    bank: ImageBank,
    camera: PinholeCamera,
    config: LoopConfig,
    *,
    seed: int = 0,
    timer: StageTimer | None = None,
    log: Callable[[str], None] = lambda _line: None,
) -> Iterator[ReconstructionStep]:
    """Poses, focal length and a map from images alone; yields after every round.

    ``camera`` (in pixels of the network image) is the starting guess. Raises ``ReconstructionError`` when no two
    images give a start.
    """
    loop = _Loop(bank, config, seed, timer or StageTimer(bank.device), log)
    step, state, head = _seed_round(loop, camera)
    yield step
    best_share = state.share
    iteration = 0
    reason: str | None = None
    while reason is None:
        iteration += 1
        adjust = config.joint.when == "every"
        state = _adjusted(loop, state, adjust, iteration)
        round_ = _refining_round(config, "iteration", iteration, adjust)
        step, state, head = _mapping_round(
            loop, round_, state, head if config.warm_start else None, best_share
        )
        reason = step.stop_reason
        best_share = max(best_share, state.share)
        yield step
    adjust = config.joint.when != "off"
    state = _adjusted(loop, state, adjust, iteration + 1)
    final = _refining_round(config, "final", iteration + 1, adjust)
    step, state, _ = _mapping_round(loop, final, state, None, best_share)
    yield step


def _refining_round(config: LoopConfig, name: StepName, index: int, adjusted: bool) -> _Round:
    """A growth or final round; what an adjustment has just fitted to the keypoints is not refined again by the map."""
    final = name == "final"
    poses = replace(config.training.poses, wait=config.final_pose_wait) if final else config.training.poses
    held = adjusted and config.joint.holds
    return _Round(
        name,
        index,
        config.final_schedule if final else config.growth_schedule,
        PoseRefinementConfig(name="none") if held else poses,
        not (held or config.fix_focal),
        "dyntanh" if final else config.training.loss.name,
    )


def _adjusted(loop: _Loop, state: ReconstructionState, wanted: bool, index: int) -> ReconstructionState:
    if not wanted:
        return state
    with loop.timer.stage("adjustment"):
        refined = adjust_registered(
            loop.bank,
            loop.matches,
            state,
            loop.config.joint,
            refine_focal=not loop.config.fix_focal,
            generator=random_stream(loop.seed, "adjustment", index),
        )
    joint = refined.joint
    state = _with_consistent_confidence(refined.state, loop)
    if len(joint.points) == 0:
        loop.log("  adjustment: no tracks between the registered views")
        return state
    k1, k2 = joint.radial.tolist()
    loop.log(
        f"  adjusted {int(refined.adjusted.sum())} of {len(refined.views)} views with {len(joint.points)} points "
        f"in {len(joint.view_index)} observations, median error {float(joint.error_px.median()):.2f} px; "
        f"{refined.joined} joined, {refined.contradicted} contradicted; "
        f"focal {loop.bank.focal_original_px(joint.camera):.1f} px, radial {k1:.3f} {k2:.3f}"
    )
    return state


def _with_consistent_confidence(state: ReconstructionState, loop: _Loop) -> ReconstructionState:
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


def _mapping_round(
    loop: _Loop, round_: _Round, state: ReconstructionState, head: Head | None, best_share: float
) -> tuple[ReconstructionStep, ReconstructionState, Head]:
    frames = state.registered.nonzero()[:, 0]
    mapped = loop.map(
        round_, frames, state.cam_from_world[frames], state.camera, head=head, radial=state.radial
    )
    scene_map = loop.scene_map(mapped, state.radial)
    state = loop.register(scene_map, mapped.camera, state.radial, round_)
    if round_.name == "final":
        state = _adjusted(loop, state, loop.config.joint.when != "off", round_.index + 1)
    reason = (
        "finished"
        if round_.name == "final"
        else should_stop(state.share, best_share, round_.index, loop.config.stopping)
    )
    step = loop.step(round_, frames, mapped, scene_map, state, reason)
    loop.log(
        f"{round_.name} {round_.index}: mapped {len(frames)} images in {mapped.iterations} steps "
        f"(inliers {100 * mapped.inlier_share:.0f} %), registered {step.registered} of {len(loop.bank)}, "
        f"focal {loop.bank.focal_original_px(mapped.camera):.1f} px" + (f"; {reason}" if reason else "")
    )
    return step, state, mapped.head


def _seed_round(loop: _Loop, camera: PinholeCamera) -> tuple[ReconstructionStep, ReconstructionState, Head]:
    """Maps the best few blocks and keeps the one whose map registers most images."""
    bank, config = loop.bank, loop.config
    joint = replace(
        config.seeds.joint, bundle=replace(config.seeds.joint.bundle, refine_focal=not config.fix_focal)
    )
    seeds = replace(config.seeds, joint=joint)
    with loop.timer.stage("seeds"):
        blocks = propose_blocks(bank, loop.matches, camera, seeds, random_stream(loop.seed, "seeds"))
    if not blocks:
        raise ReconstructionError(
            "No two images share enough matches with enough parallax to start from; add images taken from "
            "neighbouring positions, or give depth maps with --depth."
        )
    best: tuple[ReconstructionStep, ReconstructionState, Head] | None = None
    for block in blocks[: config.seeds.mapped_tries]:
        tried = _map_seed(loop, block)
        if best is None or tried[0].registered > best[0].registered:
            best = tried
    assert best is not None
    return best


def _map_seed(loop: _Loop, block: SeedBlock) -> tuple[ReconstructionStep, ReconstructionState, Head]:
    bank, config = loop.bank, loop.config
    round_ = _Round(
        "seed", 0, config.seed_schedule, PoseRefinementConfig(name="none"), False, config.training.loss.name
    )
    targets = depth_targets(block.joint, bank.height, bank.width)
    mapped = loop.map(round_, block.views, block.joint.cam_from_world, block.joint.camera, targets=targets)
    scene_map = loop.scene_map(mapped, block.joint.radial)
    state = loop.register(scene_map, mapped.camera, block.joint.radial, round_)
    step = loop.step(round_, block.views, mapped, scene_map, state, None)
    loop.log(
        f"seed at image {int(block.views[0])}: {len(block.views)} views, {len(block.joint.points)} points, "
        f"focal {bank.focal_original_px(block.joint.camera):.1f} px; its map registers {step.registered} of {len(bank)}"
    )
    return step, state, mapped.head
