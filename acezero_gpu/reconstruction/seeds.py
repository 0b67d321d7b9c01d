"""Where a reconstruction starts: a few images with poses and points, found by two-view geometry and resection."""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from acezero_gpu.adjustment import Tracks, widest_angle_deg
from acezero_gpu.adjustment.joint import JointConfig, JointResult, adjust_views
from acezero_gpu.geometry import PinholeCamera, matrix_from_se3, reproject
from acezero_gpu.ransac.relative_pose import RelativePoseConfig, RelativePoseResult, estimate_relative_pose
from acezero_gpu.reconstruction.image_bank import ImageBank
from acezero_gpu.reconstruction.matching import MatchStore, all_pairs, look_alike_pairs, neighbours
from acezero_gpu.reconstruction.resection import PointMap, resect_images
from acezero_gpu.reconstruction.two_view import pair_rays


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

    def score(self, good_angle_deg: float) -> float:
        """Observations in agreement, each by its point's parallax: grows with views, coverage and tightness.

        Many points under small angles hold no scale: what is built on them bends.
        """
        joint = self.joint
        tracks = Tracks(joint.view_index, joint.keypoint_index, joint.point_index, len(joint.points))
        angle = widest_angle_deg(tracks, joint.points, joint.cam_from_world)
        return float((angle / good_angle_deg).clamp_max(1.0)[joint.point_index].sum())


def propose_blocks(
    bank: ImageBank,
    matches: MatchStore,
    camera: PinholeCamera,
    config: SeedConfig,
    generator: torch.Generator,
) -> list[SeedBlock]:
    """Blocks around randomly drawn images, best first; empty if no image has a usable partner.

    For every start: match with its look-alikes, estimate all relative poses in one batch, take the pair with the
    most inliers weighted by parallax, and grow it. Images that an earlier block holds already are not drawn again
    while others are left. The best block is the one from which most images can be placed: a block at the end of a
    walk may be as exact as another, but all else would hang on the few images at its border.
    """
    order = torch.randperm(len(bank), generator=generator)
    blocks: list[SeedBlock] = []
    taken: set[int] = set()
    failures = 0
    for start in order.tolist():
        if len(blocks) >= config.tries or failures >= 4 * config.tries:
            break
        if start in taken:
            continue
        pair = _best_pair(bank, matches, camera, config, start, generator)
        block = None if pair is None else grow_block(bank, matches, pair, config, generator)
        if block is None:
            failures += 1
            continue
        blocks.append(replace(block, reach=_reach(bank, matches, block, config, generator)))
        taken.update(block.views.tolist())
    return sorted(blocks, key=lambda block: (-block.reach, -block.score(config.good_angle_deg)))


def _reach(
    bank: ImageBank, matches: MatchStore, block: SeedBlock, config: SeedConfig, generator: torch.Generator
) -> int:
    """How many of the block's look-alikes can be resected from its points."""
    members = set(block.views.tolist())
    partners: dict[int, list[int]] = {}
    for pair in look_alike_pairs(bank.similarity(), config.neighbours).tolist():
        for image, other in (pair, pair[::-1]):
            if other in members and image not in members:
                partners.setdefault(image, []).append(other)
    if not partners:
        return 0
    found = resect_images(
        bank,
        matches,
        PointMap.of(block.joint, block.views, len(bank), bank.config.keypoints.per_image),
        sorted(partners.items()),
        max_error_px=config.resection_error_px,
        generator=generator,
    )
    return int((found.inlier_count >= config.min_inliers).sum())


def _best_pair(
    bank: ImageBank,
    matches: MatchStore,
    camera: PinholeCamera,
    config: SeedConfig,
    start: int,
    generator: torch.Generator,
) -> SeedBlock | None:
    everything = torch.ones(len(bank), dtype=torch.bool)
    partners = neighbours(bank.similarity(), start, everything, config.partners)
    if len(partners) == 0:
        return None
    pairs = torch.stack([torch.full_like(partners, start), partners], dim=-1)
    matches.ensure(pairs)
    rays = pair_rays(bank, matches, pairs, camera)
    found = estimate_relative_pose(
        rays.a,
        rays.b,
        RelativePoseConfig(max_error=config.pair_error_px * bank.pixel_scale / float(camera.focal_px[0])),
        mask=rays.mask,
        generator=generator,
    )
    score = _pair_scores(found, config)
    best = int(score.argmax())
    if not float(score[best]) > 0:
        return None
    views = pairs[best].to(bank.device)
    pose = matrix_from_se3(found.b_from_a)[best]
    poses = torch.stack([torch.eye(3, 4, device=bank.device, dtype=pose.dtype), pose])
    block = _adjusted(bank, matches, SeedBlock(views, _start(poses, camera)), config.joint)
    return block if len(block.joint.points) >= config.min_inliers else None


def _pair_scores(found: RelativePoseResult, config: SeedConfig) -> Float[Tensor, " p"]:
    inliers = found.inlier_count.float()
    parallax = (found.median_angle_deg / config.good_angle_deg).clamp(max=1.0)
    usable = (inliers >= config.min_inliers) & (found.median_angle_deg >= config.min_angle_deg)
    usable &= found.rotation_only_inlier_count < config.max_rotation_only_share * inliers
    return torch.where(usable, inliers * parallax, 0.0)


def grow_block(
    bank: ImageBank,
    matches: MatchStore,
    block: SeedBlock,
    config: SeedConfig,
    generator: torch.Generator,
) -> SeedBlock:
    """Adds views one by one: look-alikes are matched, resected in one batch, and the best joins.

    Stops at ``block_views`` or when no candidate sees enough of the block's points.
    """
    rejected: set[int] = set()
    while len(block.views) < min(config.block_views, len(bank)):
        candidates = _candidates(bank, block, config, rejected)
        if not candidates:
            break
        found = _resect(bank, matches, block, candidates, config, generator)
        if found is None:
            rejected.update(candidates)
            continue
        image, pose = found
        views = torch.cat([block.views, torch.tensor([image], device=bank.device)])
        poses = torch.cat([block.joint.cam_from_world, pose[None]])
        grown = _adjusted(
            bank, matches, SeedBlock(views, replace(block.joint, cam_from_world=poses)), config.joint.quick()
        )
        if int(grown.joint.observations_per_view[-1]) < config.min_inliers or _explained(grown) < _explained(
            block
        ):
            rejected.add(image)
            continue
        block = grown
    return _rescaled(_adjusted(bank, matches, block, config.joint), config.median_depth)


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
    config: SeedConfig,
    generator: torch.Generator,
) -> tuple[int, Float[Tensor, "3 4"]] | None:
    """The candidate that sees most of the block's points, with its pose."""
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
    best = int(found.inlier_count.argmax())
    if int(found.inlier_count[best]) < config.min_inliers:
        return None
    return candidates[best], found.cam_from_world[best]


def _adjusted(bank: ImageBank, matches: MatchStore, block: SeedBlock, config: JointConfig) -> SeedBlock:
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


def _start(poses: Float[Tensor, "v 3 4"], camera: PinholeCamera) -> JointResult:
    none = torch.zeros(0, dtype=torch.long, device=poses.device)
    radial = torch.zeros_like(camera.focal_px)
    return JointResult(poses, camera, radial, poses.new_zeros(0, 3), none, none, none, poses.new_zeros(0))


def depth_targets(joint: JointResult, height: int, width: int, cell_px: int = 4) -> Float[Tensor, "v dr dc"]:
    """Depths of a block's points on a coarse grid over each view, 0 where none; the grid cells around a point
    share its depth, since a patch rarely lies on a keypoint exactly."""
    views = len(joint.cam_from_world)
    rows, columns = height // cell_px, width // cell_px
    grid = torch.zeros(views, rows * columns, device=joint.points.device)
    pose = joint.cam_from_world[joint.view_index]
    seen = reproject(joint.points[joint.point_index][:, None], pose, joint.camera)
    column = (seen.pixels[:, 0, 0] / cell_px).long().clamp(0, columns - 1)
    row = (seen.pixels[:, 0, 1] / cell_px).long().clamp(0, rows - 1)
    grid[joint.view_index, row * columns + column] = seen.depth[:, 0]
    grid = grid.unflatten(1, (rows, columns))
    spread = torch.nn.functional.max_pool2d(grid[:, None], 3, stride=1, padding=1)[:, 0]
    return torch.where(grid > 0, grid, spread)
