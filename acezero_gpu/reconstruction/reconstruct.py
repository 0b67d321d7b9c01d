"""The loop: seed, map, register, grow, refit (ACE0, ECCV 2024), in one process."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

from acezero_gpu.data.depth import DepthSource
from acezero_gpu.geometry import PinholeCamera
from acezero_gpu.mapping import MappingResult
from acezero_gpu.network import Head, SceneMap
from acezero_gpu.reconstruction.given_poses import GivenPoses
from acezero_gpu.reconstruction.image_bank import ImageBank
from acezero_gpu.reconstruction.loop_config import LoopConfig
from acezero_gpu.reconstruction.rounds import (
    Loop,
    Round,
    adjusted,
    refining_round,
    scene_map_of,
    with_consistent_confidence,
)
from acezero_gpu.reconstruction.seed_round import first_round
from acezero_gpu.reconstruction.state import ReconstructionError, ReconstructionState, ReconstructionStep
from acezero_gpu.reconstruction.stopping import should_stop
from acezero_gpu.runtime import StageTimer


def reconstruct(
    bank: ImageBank,
    camera: PinholeCamera,
    config: LoopConfig,
    *,
    depth: DepthSource | None = None,
    given: GivenPoses | None = None,
    seed_map: SceneMap | None = None,
    seed: int = 0,
    timer: StageTimer | None = None,
    log: Callable[[str], None] = lambda _line: None,
) -> Iterator[ReconstructionStep]:
    """Poses, focal length and a map from images alone (ACE0's algorithm); yields after every round.

    ``camera`` (in pixels of the network image) is the starting guess. At most one of ``depth``, ``given`` and
    ``seed_map`` replaces two-view geometry at the start: depth maps of seed images, poses of some images, or a map
    that an earlier run made. Raises ``ReconstructionError`` when there is no start: no two images that give one, or
    no image that the map registers.
    """
    if sum(source is not None for source in (depth, given, seed_map)) > 1:
        raise ValueError("A reconstruction starts from depth maps, from given poses or from a map: give one.")
    loop = Loop(bank, config, seed, timer or StageTimer(bank.device), log, depth, given)
    every_round, in_the_end = config.joint.when == "every", config.joint.when != "off"
    first = first_round(loop, camera, seed_map)
    yield first.step
    state, head, best_share = first.state, first.head, first.state.share
    if head is not None:
        state = adjusted(loop, state, every_round, 1)
    iteration = 1
    # Where keypoints have placed every image already, another map on the way would change nothing.
    while not (every_round and state.share >= config.stopping.registration_share):
        round_ = refining_round(config, "iteration", iteration, every_round)
        mapped, scene_map, found = _map_and_register(loop, round_, state, head if config.warm_start else None)
        reason = should_stop(found.share, best_share, iteration, config.stopping)
        yield loop.step(round_, state, mapped, scene_map, found, reason)
        iteration += 1
        best_share = max(best_share, found.share)
        state = adjusted(loop, found, every_round if reason is None else in_the_end, iteration)
        head = mapped.head
        if reason is not None:
            break
    else:
        reason = "all images are registered"
    final = refining_round(config, "final", iteration, in_the_end)
    mapped, scene_map, found = _map_and_register(loop, final, state, None)
    found = _final_state(loop, state, found, iteration + 1)
    yield loop.step(final, state, mapped, scene_map, found, reason)


def _map_and_register(
    loop: Loop, round_: Round, state: ReconstructionState, head: Head | None
) -> tuple[MappingResult, SceneMap, ReconstructionState]:
    """A map of the registered images, and what it registers; images that tracks hold stay registered."""
    frames = state.registered.nonzero()[:, 0]
    if len(frames) == 0:
        raise ReconstructionError(
            "No image agrees with the map any more; give sharper or more strongly overlapping images, or their focal "
            "length with --focal-px."
        )
    loop.begin(round_.name, round_.index, len(frames))
    mapped = loop.map(
        round_, frames, state.cam_from_world[frames], state.camera, head=head, radial=state.radial
    )
    scene_map = scene_map_of(loop.bank, mapped, state.radial)
    found = loop.register(scene_map, mapped.camera, state.radial, round_)
    missed = state.held & ~found.registered
    found = replace(
        found,
        cam_from_world=torch.where(missed[:, None, None], state.cam_from_world, found.cam_from_world),
        registered=found.registered | missed,
        contradicted=state.contradicted & ~found.registered,
    )
    loop.log(
        f"{round_.name} {round_.index}: mapped {len(frames)} images in {mapped.iterations} steps "
        f"(inliers {100 * mapped.inlier_share:.0f} %), its map registers {found.registered_by_map} of "
        f"{len(loop.bank)}, {int(missed.sum())} more are held by keypoints; "
        f"focal {loop.bank.focal_original_px(mapped.camera):.1f} px"
    )
    return mapped, scene_map, with_consistent_confidence(found, loop)


def _final_state(
    loop: Loop, before: ReconstructionState, found: ReconstructionState, index: int
) -> ReconstructionState:
    """The last poses: those that tracks hold are more exact than the map's; if the map found further images, all are
    adjusted once more."""
    joint = loop.config.joint
    if joint.when == "off" or not joint.holds:
        return found
    poses = torch.where(before.held[:, None, None], before.cam_from_world, found.cam_from_world)
    found = replace(found, cam_from_world=poses, held=before.held, tracks=before.tracks)
    further = bool((found.registered & ~before.held).any())
    return adjusted(loop, found, further, index)
