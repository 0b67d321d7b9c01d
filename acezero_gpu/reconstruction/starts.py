"""Posed views that a reconstruction can start from: of two-view geometry, of depth maps, or given."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from acezero_gpu.adjustment.joint import triangulate_views
from acezero_gpu.data.depth import DepthSource
from acezero_gpu.geometry import PinholeCamera
from acezero_gpu.reconstruction.depth_seed import DepthSeed, grow_depth_seed
from acezero_gpu.reconstruction.given_poses import GivenPoses
from acezero_gpu.reconstruction.matching import partner_pairs
from acezero_gpu.reconstruction.rounds import Loop
from acezero_gpu.reconstruction.seeds import SeedBlock, depth_targets, posed_views, propose_blocks
from acezero_gpu.reconstruction.state import ReconstructionError
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
    """Starts, the best first, no more of them than should be mapped.

    Blocks found by two-view geometry; or, with depth maps, an image with the look-alikes that its points place. Where
    keypoints are not asked (``grow_first``) or place nobody, single images with depth, as in ACE0. Where poses are
    given, their images are the one start. ``ReconstructionError`` if there is none.
    """
    with loop.timer.stage("seeds"):
        if loop.given is not None:
            return [_given_start(loop, camera, loop.given)]
        if loop.depth is not None:
            return _depth_starts(loop, camera, loop.depth)
        return _block_starts(loop, camera)


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
    loop.log(f"keypoints are described {'upright' if bank.upright else 'with their own orientation'}")
    return [_block_start(loop, block) for block in blocks[: config.seeds.mapped_tries]]


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
    """An image with the look-alikes that its keypoints place, then single images, each in its own camera's world.

    Images with a depth map are drawn at random; metres are kept.
    """
    bank, config = loop.bank, loop.config
    stream = random_stream(loop.seed, "seeds")
    depth_maps: dict[int, Float[Tensor, "h w"]] = {}
    for image in torch.randperm(len(bank), generator=stream).tolist():
        if len(depth_maps) == config.seeds.tries:
            break
        found = depth.depth_m(image)
        if found is not None and bool((found > 0).any()):
            depth_maps[image] = found.float()
    if not depth_maps:
        raise ReconstructionError("--depth: no image has a depth map with any depth in it.")
    starts = [_single_image(loop, image, camera, found) for image, found in depth_maps.items()]
    if not loop.grows_first:
        return starts
    factor = 1.0 if config.fix_focal else config.seeds.max_focal_factor
    seed = grow_depth_seed(
        bank,
        loop.matches,
        camera,
        depth_maps,
        config.joint,
        max_focal_factor=factor,
        generator=stream,
    )
    if seed is None:
        loop.log(
            f"keypoints with depth place no further image; {len(starts)} single images with their depth maps are "
            "mapped, and what these maps register decides"
        )
        return starts
    by_image = dict(zip(depth_maps, starts, strict=True))
    return [_with_look_alikes(loop, by_image.pop(seed.image), seed), *by_image.values()]


def _single_image(loop: Loop, image: int, camera: PinholeCamera, depth_m: Float[Tensor, "h w"]) -> Start:
    bank = loop.bank
    size = (bank.height // DEPTH_CELL_PX, bank.width // DEPTH_CELL_PX)
    # Nearest: a mean across an edge would be a depth where nothing is.
    grid = torch.nn.functional.interpolate(depth_m[None, None], size, mode="nearest-exact")[0]
    return Start(
        torch.tensor([image], device=bank.device),
        torch.eye(3, 4, device=bank.device)[None],
        camera,
        torch.zeros(2, device=bank.device),
        grid.to(bank.device),
        f"image {image} with its depth map",
    )


def _with_look_alikes(loop: Loop, single: Start, seed: DepthSeed) -> Start:
    """The same start with the views that its points placed; only its own depths are known."""
    depths = single.depths.new_zeros(len(seed.views), *single.depths.shape[1:])
    depths[seed.views == seed.image] = single.depths
    focal_px = loop.bank.focal_original_px(seed.camera)
    return replace(
        single,
        views=seed.views,
        cam_from_world=seed.cam_from_world,
        camera=seed.camera,
        depths=depths,
        description=f"{single.description} and {len(seed.views) - 1} look-alikes, focal {focal_px:.1f} px",
    )
