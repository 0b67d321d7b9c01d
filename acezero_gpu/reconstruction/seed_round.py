"""The first round: several starts are mapped, the one whose map registers most images is kept."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from acezero_gpu.data.depth import DepthSource
from acezero_gpu.geometry import PinholeCamera
from acezero_gpu.mapping import PoseRefinementConfig
from acezero_gpu.network import Head
from acezero_gpu.reconstruction.rounds import Loop, Round
from acezero_gpu.reconstruction.seeds import SeedBlock, depth_targets, propose_blocks
from acezero_gpu.reconstruction.state import ReconstructionError, ReconstructionState, ReconstructionStep
from acezero_gpu.runtime import random_stream

DEPTH_CELL_PX = 4
"""Side of the cells of the coarse grid that target depths are kept on."""


@dataclass(frozen=True, slots=True)
class _Start:
    """Posed views with some known depths: what a seed's map is trained on."""

    views: Int[Tensor, " v"]
    """Image indices, ascending."""
    cam_from_world: Float[Tensor, "v 3 4"]
    camera: PinholeCamera
    radial: Float[Tensor, " 2"]
    depths: Float[Tensor, "v dr dc"]
    description: str


def seed_round(loop: Loop, camera: PinholeCamera) -> tuple[ReconstructionStep, ReconstructionState, Head]:
    """Maps the best few starts and keeps the one whose map registers most images.

    With depth maps every start is a single image, as in ACE0; otherwise a block found by two-view geometry.
    ``ReconstructionError`` if there is no start.
    """
    loop.begin("seed", 0, 0)
    with loop.timer.stage("seeds"):
        starts = (
            _block_starts(loop, camera) if loop.depth is None else _depth_starts(loop, camera, loop.depth)
        )
    best: tuple[ReconstructionStep, ReconstructionState, Head] | None = None
    for start in starts:
        tried = _map_start(loop, start)
        if best is None or tried[0].registered > best[0].registered:
            best = tried
    assert best is not None
    return best


def _block_starts(loop: Loop, camera: PinholeCamera) -> list[_Start]:
    bank, config = loop.bank, loop.config
    bundle = replace(config.seeds.joint.bundle, refine_focal=not config.fix_focal)
    seeds = replace(config.seeds, joint=replace(config.seeds.joint, bundle=bundle))
    blocks = propose_blocks(bank, loop.matches, camera, seeds, random_stream(loop.seed, "seeds"))
    if not blocks:
        raise ReconstructionError(
            "No two images share enough matches with enough parallax to start from; add images taken from "
            "neighbouring positions, or give depth maps with --depth."
        )
    return [_block_start(loop, block) for block in blocks[: seeds.mapped_tries]]


def _block_start(loop: Loop, block: SeedBlock) -> _Start:
    joint, bank = block.joint, loop.bank
    order = block.views.argsort()
    return _Start(
        block.views[order],
        joint.cam_from_world[order],
        joint.camera,
        joint.radial,
        depth_targets(joint, bank.height, bank.width, DEPTH_CELL_PX)[order],
        f"{len(block.views)} views around image {int(block.views[0])}, {len(joint.points)} points, "
        f"focal {bank.focal_original_px(joint.camera):.1f} px",
    )


def _depth_starts(loop: Loop, camera: PinholeCamera, depth: DepthSource) -> list[_Start]:
    """Single images with a depth map, drawn at random, each at the origin of its own world; metres are kept."""
    bank = loop.bank
    order = torch.randperm(len(bank), generator=random_stream(loop.seed, "seeds")).tolist()
    starts: list[_Start] = []
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
            _Start(
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


def _map_start(loop: Loop, start: _Start) -> tuple[ReconstructionStep, ReconstructionState, Head]:
    config = loop.config
    round_ = Round(
        "seed", 0, config.seed_schedule, PoseRefinementConfig(name="none"), False, config.training.loss.name
    )
    mapped = loop.map(round_, start.views, start.cam_from_world, start.camera, targets=start.depths)
    scene_map = loop.scene_map(mapped, start.radial)
    by_map = loop.register(scene_map, mapped.camera, start.radial, round_)
    state = _with_views(by_map, start)
    mapped_state = _only_views(state, start)
    step = loop.step(round_, mapped_state, mapped, scene_map, state, None)
    loop.log(f"seed of {start.description}: its map registers {state.registered_by_map} of {len(loop.bank)}")
    return step, state, mapped.head


def _with_views(state: ReconstructionState, start: _Start) -> ReconstructionState:
    """The start's own views are registered, at the poses that they had, also where the young map misses one."""
    missed = ~state.registered[start.views]
    poses, registered = state.cam_from_world.clone(), state.registered.clone()
    poses[start.views[missed]] = start.cam_from_world[missed]
    registered[start.views] = True
    return replace(state, cam_from_world=poses, registered=registered)


def _only_views(state: ReconstructionState, start: _Start) -> ReconstructionState:
    registered = torch.zeros_like(state.registered)
    registered[start.views] = True
    return replace(state, registered=registered)
