"""The first round: a start grows by its keypoints, or several are mapped and the one that registers most is kept."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from acezero_gpu.adjustment.joint import triangulate_views
from acezero_gpu.data.depth import DepthSource
from acezero_gpu.geometry import PinholeCamera
from acezero_gpu.mapping import MappingResult, PoseRefinementConfig
from acezero_gpu.network import Head, SceneMap
from acezero_gpu.reconstruction.given_poses import GivenPoses
from acezero_gpu.reconstruction.matching import partner_pairs
from acezero_gpu.reconstruction.rounds import Loop, Round, adjusted, with_consistent_confidence
from acezero_gpu.reconstruction.seeds import SeedBlock, depth_targets, posed_views, propose_blocks
from acezero_gpu.reconstruction.state import (
    Placement,
    ReconstructionError,
    ReconstructionState,
    ReconstructionStep,
    posed_state,
)
from acezero_gpu.runtime import random_stream

DEPTH_CELL_PX = 4
"""Side of the cells of the coarse grid that target depths are kept on."""


@dataclass(frozen=True, slots=True)
class Start:
    """Posed views with some known depths: what a seed's map is trained on."""

    views: Int[Tensor, " v"]
    """Image indices, ascending."""
    cam_from_world: Float[Tensor, "v 3 4"]
    camera: PinholeCamera
    radial: Float[Tensor, " 2"]
    depths: Float[Tensor, "v dr dc"]
    description: str


def find_starts(loop: Loop, camera: PinholeCamera) -> list[Start]:
    """Starts, the best first: blocks found by two-view geometry, or, with depth maps, single images as in ACE0.

    Where poses are given, their images are the one start. ``ReconstructionError`` if there is none.
    """
    grows = loop.config.grow_first and loop.config.joint.when == "every" and loop.depth is None
    loop.begin("seed", 0, 0, maps_seeds=not grows)
    with loop.timer.stage("seeds"):
        if loop.given is not None:
            return [_given_start(loop, camera, loop.given)]
        if loop.depth is not None:
            return _depth_starts(loop, camera, loop.depth)
        return _block_starts(loop, camera)


def grown_round(loop: Loop, start: Start) -> tuple[ReconstructionStep, ReconstructionState] | None:
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
    )
    return step, state


def mapped_round(loop: Loop, starts: list[Start]) -> tuple[ReconstructionStep, ReconstructionState, Head]:
    """Maps the best few starts and keeps the one whose map registers most images."""
    loop.begin("seed", 0, 0)
    tries = loop.config.seeds.mapped_tries if loop.depth is None else len(starts)
    tried = [_map_start(loop, start) for start in starts[:tries]]
    return max(tried, key=lambda found: found[0].registered)


def round_of_map(
    loop: Loop, scene_map: SceneMap, camera: PinholeCamera
) -> tuple[ReconstructionStep, ReconstructionState, Head]:
    """What a map that exists registers, in place of a seed; its head is what the next round goes on from.

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
    return loop.step(round_, nothing, unchanged, scene_map, state, None), state, scene_map.head


def _start_state(loop: Loop, start: Start) -> ReconstructionState:
    bank = loop.bank
    poses = torch.eye(3, 4, device=bank.device).repeat(len(bank), 1, 1)
    poses[start.views] = start.cam_from_world
    posed = torch.zeros(len(bank), dtype=torch.bool, device=bank.device)
    posed[start.views] = True
    return posed_state(bank, poses, posed, start.camera, start.radial)


def _given_start(loop: Loop, camera: PinholeCamera, given: GivenPoses) -> Start:
    """All images with given poses at once. Points that these agree on keep a young map from guessing depths."""
    bank, seeds = loop.bank, loop.config.seeds
    views = given.images.to(bank.device)
    poses = given.matrices(torch.zeros((), device=bank.device))
    posed = given.mask(len(bank))
    found = triangulate_views(
        loop.matches.between(partner_pairs(bank, posed, seeds.partners), views),
        bank.keypoints(views).pixels[views],
        posed_views(poses, camera),
        replace(seeds.joint, max_error_px=seeds.resection_error_px),
        pixel_scale=bank.pixel_scale,
    )
    return Start(
        views,
        poses,
        camera,
        torch.zeros(2, device=bank.device),
        depth_targets(found, bank.height, bank.width, DEPTH_CELL_PX),
        f"{len(views)} given poses, {len(found.points)} points",
    )


def _block_starts(loop: Loop, camera: PinholeCamera) -> list[Start]:
    bank, config = loop.bank, loop.config
    bundle = replace(config.seeds.joint.bundle, refine_focal=not config.fix_focal)
    seeds = replace(config.seeds, joint=replace(config.seeds.joint, bundle=bundle))
    blocks = propose_blocks(bank, loop.matches, camera, seeds, random_stream(loop.seed, "seeds"))
    if not blocks:
        raise ReconstructionError(
            "No two images share enough matches with enough parallax to start from; add images taken from "
            "neighbouring positions, or give depth maps with --depth."
        )
    return [_block_start(loop, block) for block in blocks]


def _block_start(loop: Loop, block: SeedBlock) -> Start:
    joint, bank = block.joint, loop.bank
    order = block.views.argsort()
    return Start(
        block.views[order],
        joint.cam_from_world[order],
        joint.camera,
        joint.radial,
        depth_targets(joint, bank.height, bank.width, DEPTH_CELL_PX)[order],
        f"{len(block.views)} views around image {int(block.views[0])}, {len(joint.points)} points, "
        f"focal {bank.focal_original_px(joint.camera):.1f} px",
    )


def _depth_starts(loop: Loop, camera: PinholeCamera, depth: DepthSource) -> list[Start]:
    """Single images with a depth map, drawn at random, each at the origin of its own world; metres are kept."""
    bank = loop.bank
    order = torch.randperm(len(bank), generator=random_stream(loop.seed, "seeds")).tolist()
    starts: list[Start] = []
    for image in order:
        if len(starts) == loop.config.seeds.tries:
            break
        found = depth.depth_m(image)
        if found is None or not bool((found > 0).any()):
            continue
        size = (bank.height // DEPTH_CELL_PX, bank.width // DEPTH_CELL_PX)
        # Nearest: a mean across an edge would be a depth where nothing is.
        grid = torch.nn.functional.interpolate(found[None, None].float(), size, mode="nearest-exact")[0]
        starts.append(
            Start(
                torch.tensor([image], device=bank.device),
                torch.eye(3, 4, device=bank.device)[None],
                camera,
                torch.zeros(2, device=bank.device),
                grid.to(bank.device),
                f"image {image} with its depth map",
            )
        )
    if not starts:
        raise ReconstructionError("--depth: no image has a depth map with any depth in it.")
    return starts


def _map_start(loop: Loop, start: Start) -> tuple[ReconstructionStep, ReconstructionState, Head]:
    round_ = _seed(loop)
    mapped = loop.map(round_, start.views, start.cam_from_world, start.camera, targets=start.depths)
    scene_map = loop.scene_map(mapped, start.radial)
    by_map = loop.register(scene_map, mapped.camera, start.radial, round_)
    state = with_consistent_confidence(_with_views(by_map, start), loop)
    mapped_state = _only_views(state, start)
    step = loop.step(round_, mapped_state, mapped, scene_map, state, None)
    loop.log(f"seed of {start.description}: its map registers {state.registered_by_map} of {len(loop.bank)}")
    return step, state, mapped.head


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
