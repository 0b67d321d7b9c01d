"""A block of a few images with poses and points, grown view by view from two."""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from acezero_gpu.adjustment import Tracks, widest_angle_deg
from acezero_gpu.adjustment.joint import JointConfig, JointResult, adjust_views
from acezero_gpu.reconstruction.image_bank import ImageBank
from acezero_gpu.reconstruction.matching import MatchStore, all_pairs
from acezero_gpu.reconstruction.resection import PointMap, resect_images


@dataclass(frozen=True, slots=True)
class SeedConfig:
    """How many starts are tried, and how large each is made before the first mapping."""

    tries: int = 5
    """Images drawn as starting points; each is paired with its look-alikes."""
    mapped_tries: int = 2
    """So many of the best blocks are mapped; the one whose map registers most images wins."""
    partners: int = 16
    """Look-alikes that a starting image is matched with."""
    block_views: int = 10
    """A block grows to this many views by resection, triangulation and adjustment."""
    neighbours: int = 12
    """Look-alikes of each of a block's views that are tried to tell how far the block reaches."""
    growth_candidates: int = 8
    """Look-alikes of the block that are tried for each next view."""
    min_inliers: int = 40
    """Matches that a pair, or points that a further view, must explain."""
    min_angle_deg: float = 2.0
    """Median triangulation angle below which a pair has too little parallax to start from."""
    good_angle_deg: float = 8.0
    """Parallax beyond this earns a pair, or a point of a block, nothing more; below, the score falls in proportion."""
    max_rotation_only_share: float = 0.8
    """A pair whose matches a mere rotation explains to this share says nothing about depth."""
    pair_error_px: float = 3.0
    """Sampson distance of a two-view inlier, in pixels at a shortest side of 480; scaled with the resolution."""
    resection_error_px: float = 12.0
    """Reprojection error of an inlier when a view joins, likewise; adjustment follows at once."""
    min_reversal_ratio: float = 3.0
    """A block is trusted if its depths the other way round cost at least so many times as much."""
    max_focal_factor: float = 2.0
    """A block is trusted if its focal length is within this factor of the one that it started with, or agrees with
    another block's."""
    focal_agreement: float = 0.05
    """Focal lengths of blocks of more than two views agree if they differ by no more than this share."""
    enough_reach: float = 0.8
    """No further start is tried once ``mapped_tries`` blocks are trusted and one places this share of its
    look-alikes."""
    median_depth: float = 3.0
    """The scale of the world: the block's points have this median depth (scene units)."""
    joint: JointConfig = field(default_factory=JointConfig)


@dataclass(frozen=True, slots=True)
class SeedBlock:
    """Views with poses, and the points that they agree on."""

    views: Int[Tensor, " v"]
    """Image indices; the first is where the block started."""
    joint: JointResult
    reach: int = 0
    """Images around the block that its points would place at once."""
    reach_share: float = 0.0
    """The same, of all that were asked."""
    sure_depths: bool = True
    """Its depths the other way round fit much worse."""
    trusted: bool = True
    """Its depths and focal length are not in doubt."""

    def score(self, good_angle_deg: float) -> float:
        """Observations in agreement, each by its point's parallax: grows with views, coverage and tightness.

        Many points under small angles hold no scale: what is built on them bends.
        """
        joint = self.joint
        tracks = Tracks(joint.view_index, joint.keypoint_index, joint.point_index, len(joint.points))
        angle = widest_angle_deg(tracks, joint.points, joint.cam_from_world)
        return float((angle / good_angle_deg).clamp_max(1.0)[joint.point_index].sum())


def grow_block(
    bank: ImageBank,
    matches: MatchStore,
    block: SeedBlock,
    config: SeedConfig,
    generator: torch.Generator,
) -> SeedBlock:
    """Adds views, at most half as many at once as there are: look-alikes are matched and resected in one batch, and
    the best join.

    Stops at ``block_views`` or when no candidate sees enough of the block's points.
    """
    rejected: set[int] = set()
    while len(block.views) < min(config.block_views, len(bank)):
        candidates = _candidates(bank, block, config, rejected)
        if not candidates:
            break
        room = min(config.block_views, len(bank)) - len(block.views)
        found = _resect(bank, matches, block, candidates, min(room, len(block.views) // 2), config, generator)
        if found is None:
            rejected.update(candidates)
            continue
        grown = _joined(bank, matches, block, *found, config)
        if grown is None and len(found[0]) > 1:
            # One of them may have spoilt it for the others.
            found = found[0][:1], found[1][:1]
            grown = _joined(bank, matches, block, *found, config)
        if grown is None:
            rejected.update(found[0])
            continue
        block = grown
    return _rescaled(adjusted_block(bank, matches, block, config.joint), config.median_depth)


def _joined(
    bank: ImageBank,
    matches: MatchStore,
    block: SeedBlock,
    images: list[int],
    poses: Float[Tensor, "k 3 4"],
    config: SeedConfig,
) -> SeedBlock | None:
    """The adjusted block with these images; None if one of them sees too little of it, or the block loses by them."""
    grown = adjusted_block(
        bank,
        matches,
        SeedBlock(
            torch.cat([block.views, torch.tensor(images, device=bank.device)]),
            replace(block.joint, cam_from_world=torch.cat([block.joint.cam_from_world, poses])),
        ),
        config.joint.quick(),
    )
    seen = grown.joint.observations_per_view[len(block.views) :]
    if int(seen.min()) < config.min_inliers or _explained(grown) < _explained(block):
        return None
    return grown


def _explained(block: SeedBlock) -> int:
    return len(block.joint.view_index)


def _candidates(bank: ImageBank, block: SeedBlock, config: SeedConfig, rejected: set[int]) -> list[int]:
    allowed = torch.ones(len(bank), dtype=torch.bool)
    allowed[block.views.cpu()] = False
    if rejected:
        allowed[torch.tensor(sorted(rejected))] = False
    likeness = bank.similarity()[block.views].topk(min(3, len(block.views)), dim=0).values.mean(0)
    likeness = likeness.masked_fill(~allowed.to(likeness.device), -torch.inf)
    available = int(allowed.sum())
    return likeness.argsort(descending=True)[: min(config.growth_candidates, available)].tolist()


def _resect(
    bank: ImageBank,
    matches: MatchStore,
    block: SeedBlock,
    candidates: list[int],
    count: int,
    config: SeedConfig,
    generator: torch.Generator,
) -> tuple[list[int], Float[Tensor, "k 3 4"]] | None:
    """The candidates that see most of the block's points, at most ``count``, the best first, with their poses."""
    point_map = PointMap.of(block.joint, block.views, len(bank), bank.config.keypoints.per_image)
    views = block.views.tolist()
    found = resect_images(
        bank,
        matches,
        point_map,
        [(image, views) for image in candidates],
        max_error_px=config.resection_error_px,
        generator=generator,
    )
    best = found.inlier_count.argsort(descending=True)[:count]
    best = best[found.inlier_count[best] >= config.min_inliers]
    if len(best) == 0:
        return None
    return [candidates[row] for row in best.tolist()], found.cam_from_world[best]


def adjusted_block(bank: ImageBank, matches: MatchStore, block: SeedBlock, config: JointConfig) -> SeedBlock:
    graph = matches.between(all_pairs(block.views), block.views)
    pixels = bank.keypoints(block.views).pixels[block.views]
    joint = adjust_views(
        graph,
        pixels,
        block.joint.cam_from_world,
        block.joint.camera,
        config,
        pixel_scale=bank.pixel_scale,
    )
    return SeedBlock(block.views, joint)


def _rescaled(block: SeedBlock, median_depth: float) -> SeedBlock:
    """The same block with this median depth: losses and bounds of the mapping are in scene units."""
    factor = median_depth / float(block.joint.depth().median())
    poses = block.joint.cam_from_world.clone()
    poses[..., 3] *= factor
    return SeedBlock(
        block.views, replace(block.joint, cam_from_world=poses, points=block.joint.points * factor)
    )
