"""The first round: a start grows by its keypoints, or several are mapped and the one that registers most is kept."""

from dataclasses import dataclass, replace

import torch

from acezero_gpu.geometry import PinholeCamera
from acezero_gpu.mapping import MappingResult, PoseRefinementConfig
from acezero_gpu.network import Head, SceneMap
from acezero_gpu.reconstruction.rounds import (
    Loop,
    Round,
    adjusted,
    lens_of,
    scene_map_of,
    with_consistent_confidence,
)
from acezero_gpu.reconstruction.starts import Start, find_starts
from acezero_gpu.reconstruction.state import (
    Placement,
    ReconstructionError,
    ReconstructionState,
    ReconstructionStep,
    posed_state,
)


@dataclass(frozen=True, slots=True)
class FirstRound:
    """What the loop goes on from."""

    step: ReconstructionStep
    state: ReconstructionState
    head: Head | None
    """Of the map that gave the poses; None where keypoints did, and have adjusted them already."""


def first_round(loop: Loop, camera: PinholeCamera, seed_map: SceneMap | None = None) -> FirstRound:
    """The images that a map registers, if one is given; else a start with those that its keypoints or its map add.

    ``ReconstructionError`` when there is no start.
    """
    if seed_map is not None:
        return _round_of_map(loop, seed_map, camera)
    loop.begin("seed", 0, 0, maps_seeds=not loop.grows_first)
    starts = find_starts(loop, camera)
    grown = _grown_round(loop, starts[0]) if loop.grows_first and len(starts[0].views) > 1 else None
    if grown is not None:
        return grown
    loop.begin("seed", 0, 0)
    return max((_mapped_round(loop, start) for start in starts), key=lambda found: found.step.registered)


def _grown_round(loop: Loop, start: Start) -> FirstRound | None:
    """The start with all images that its keypoints add, adjusted, without any map; None if none joins."""
    before = _start_state(loop, start)
    state = adjusted(loop, before, True, 0)
    joined = int((state.registered & ~before.registered).sum())
    if joined == 0 and state.share < loop.config.stopping.registration_share:
        return None
    loop.log(
        f"seed of {start.description}: {joined} images join by keypoints, "
        f"{int(state.registered.sum())} of {len(loop.bank)} are registered"
    )
    given = torch.where(before.registered, torch.inf, 0.0)
    step = ReconstructionStep(
        0,
        "seed",
        None,
        loop.output_views(before.cam_from_world, given, before.camera),
        loop.output_views(state.cam_from_world, state.inlier_count, state.camera),
        int(state.registered.sum()),
        0,
        None,
        (),
        Placement.of(state),
        state.tracks,
        lens_of(state),
    )
    return FirstRound(step, state, None)


def _mapped_round(loop: Loop, start: Start) -> FirstRound:
    """A map of the start's views, and what it registers."""
    round_ = _seed(loop)
    mapped = loop.map(round_, start.views, start.cam_from_world, start.camera, targets=start.depths)
    scene_map = scene_map_of(loop.bank, mapped, start.radial)
    by_map = loop.register(scene_map, mapped.camera, start.radial, round_)
    state = with_consistent_confidence(_with_views(by_map, start), loop)
    mapped_state = _only_views(state, start)
    step = loop.step(round_, mapped_state, mapped, scene_map, state, None)
    loop.log(f"seed of {start.description}: its map registers {state.registered_by_map} of {len(loop.bank)}")
    return FirstRound(step, state, mapped.head)


def _round_of_map(loop: Loop, scene_map: SceneMap, camera: PinholeCamera) -> FirstRound:
    """What a map that exists registers, in place of a seed; its head, if it has one only, is what the next round goes
    on from.

    ``ReconstructionError`` if it registers no image.
    """
    radial = torch.tensor(scene_map.radial, device=loop.bank.device)
    round_ = _seed(loop)
    state = with_consistent_confidence(loop.register(scene_map, camera, radial, round_), loop)
    loop.log(f"seed map: registers {state.registered_by_map} of {len(loop.bank)}")
    if not bool(state.registered.any()):
        raise ReconstructionError(
            "The seed map registers none of the images; is it of the same place, and --focal-px right?"
        )
    nothing = replace(state, registered=torch.zeros_like(state.registered))
    unchanged = MappingResult(scene_map.head, state.cam_from_world[:0], camera, 0, 0.0, ())
    step = loop.step(round_, nothing, unchanged, scene_map, state, None)
    if scene_map.head.count > 1:
        loop.log(f"its {scene_map.head.count} heads are not trained on: the next map starts afresh")
    return FirstRound(step, state, scene_map.head)


def _start_state(loop: Loop, start: Start) -> ReconstructionState:
    bank = loop.bank
    poses = torch.eye(3, 4, device=bank.device).repeat(len(bank), 1, 1)
    poses[start.views] = start.cam_from_world
    posed = torch.zeros(len(bank), dtype=torch.bool, device=bank.device)
    posed[start.views] = True
    return posed_state(bank, poses, posed, start.camera, start.radial)


def _seed(loop: Loop) -> Round:
    config = loop.config
    return Round(
        "seed", 0, config.seed_schedule, PoseRefinementConfig(name="none"), False, config.training.loss.name
    )


def _with_views(state: ReconstructionState, start: Start) -> ReconstructionState:
    """The start's own views are registered, at the poses that they had, also where the young map misses one."""
    missed = ~state.registered[start.views]
    poses, registered = state.cam_from_world.clone(), state.registered.clone()
    poses[start.views[missed]] = start.cam_from_world[missed]
    registered[start.views] = True
    return replace(state, cam_from_world=poses, registered=registered)


def _only_views(state: ReconstructionState, start: Start) -> ReconstructionState:
    registered = torch.zeros_like(state.registered)
    registered[start.views] = True
    return replace(state, registered=registered)
