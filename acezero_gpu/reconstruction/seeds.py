"""Where a reconstruction starts: a few images with poses and points, found by two-view geometry and resection."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from acezero_gpu.adjustment.joint import JointResult
from acezero_gpu.geometry import PinholeCamera, matrix_from_se3, reproject
from acezero_gpu.network.retrieval import look_alike_pairs
from acezero_gpu.ransac.relative_pose import RelativePoseConfig, RelativePoseResult, estimate_relative_pose
from acezero_gpu.reconstruction.depth_reversal import reversal_cost_ratio
from acezero_gpu.reconstruction.image_bank import ImageBank
from acezero_gpu.reconstruction.matching import MatchStore, neighbours
from acezero_gpu.reconstruction.resection import PointMap, resect_images
from acezero_gpu.reconstruction.seed_block import SeedBlock, SeedConfig, adjusted_block, grow_block
from acezero_gpu.reconstruction.two_view import pair_rays
from acezero_gpu.runtime.progress import report


def propose_blocks(
    bank: ImageBank,
    matches: MatchStore,
    camera: PinholeCamera,
    config: SeedConfig,
    generator: torch.Generator,
) -> list[SeedBlock]:
    """Blocks around drawn images, best first, doubtful ones last; empty if no image has a usable partner.

    For every start: match with its look-alikes, estimate all relative poses in one batch, take the pair with the
    most inliers weighted by parallax, and grow it. Images that an earlier block holds already are not drawn again
    while others are left; up to twice as many are grown if some are doubtful. The best block is the one from which
    most images can be placed: a block at the end of a walk may be as exact as another, but all else would hang on
    the few images at its border.
    """
    order = torch.randperm(len(bank), generator=generator)
    blocks: list[SeedBlock] = []
    taken: set[int] = set()
    failures = 0
    for start in order.tolist():
        sure = [block for block in blocks if block.trusted]
        report(len(sure), config.tries, "starts")
        if _are_enough(sure, config) or len(blocks) >= 2 * config.tries or failures >= 4 * config.tries:
            break
        if start in taken:
            continue
        pair = _best_pair(bank, matches, camera, config, start, generator)
        block = None if pair is None else grow_block(bank, matches, pair, config, generator)
        if block is None:
            failures += 1
            continue
        around = _look_alikes_around(bank, block, config)
        reach = _reach(bank, matches, block, around, config, generator)
        block = replace(
            block,
            reach=reach,
            reach_share=reach / max(1, len(around)),
            sure_depths=_has_sure_depths(bank, block, config, generator),
        )
        blocks = _with_trust([*blocks, block], camera, config)
        taken.update(block.views.tolist())
    return sorted(blocks, key=lambda b: (not b.trusted, -b.reach, -b.score(config.good_angle_deg)))


def _are_enough(sure: list[SeedBlock], config: SeedConfig) -> bool:
    """Trusted blocks enough, or fewer of which one leads on nearly everywhere."""
    best_share = max((block.reach_share for block in sure), default=0.0)
    return len(sure) >= config.tries or (
        len(sure) >= config.mapped_tries and best_share >= config.enough_reach
    )


def _with_trust(blocks: list[SeedBlock], camera: PinholeCamera, config: SeedConfig) -> list[SeedBlock]:
    """The same blocks; trusted are those of sure depths and a believable focal length.

    A focal length far from the guess is what a telephoto lens has, and what a wrong block may end with. Wrong ones do
    not agree with each other.
    """
    focal_px = [float(block.joint.camera.focal_px[0]) for block in blocks]
    factors = [focal / float(camera.focal_px[0]) for focal in focal_px]
    near = [1 / config.max_focal_factor <= factor <= config.max_focal_factor for factor in factors]
    votes = [block.sure_depths and len(block.views) > 2 for block in blocks]

    def is_seconded(row: int) -> bool:
        return votes[row] and any(
            votes[other]
            and other != row
            and abs(focal_px[other] / focal_px[row] - 1) <= config.focal_agreement
            for other in range(len(blocks))
        )

    return [
        replace(block, trusted=block.sure_depths and (near[row] or is_seconded(row)))
        for row, block in enumerate(blocks)
    ]


def _has_sure_depths(
    bank: ImageBank, block: SeedBlock, config: SeedConfig, generator: torch.Generator
) -> bool:
    """Whether the depths the other way round fit much worse."""
    joint = block.joint
    ratio = reversal_cost_ratio(
        joint,
        bank.keypoints(block.views).pixels[block.views[joint.view_index], joint.keypoint_index],
        replace(config.joint.bundle, loss_scale_px=0.5 * config.joint.max_error_px * bank.pixel_scale),
        max_error_px=2 * config.resection_error_px * bank.pixel_scale,
        generator=generator,
    )
    return ratio >= config.min_reversal_ratio


def _look_alikes_around(bank: ImageBank, block: SeedBlock, config: SeedConfig) -> dict[int, list[int]]:
    """Images outside that look like some of the block's views, each with these views."""
    members = set(block.views.tolist())
    partners: dict[int, list[int]] = {}
    for pair in look_alike_pairs(bank.similarity(), config.neighbours).tolist():
        for image, other in (pair, pair[::-1]):
            if other in members and image not in members:
                partners.setdefault(image, []).append(other)
    return partners


def _reach(
    bank: ImageBank,
    matches: MatchStore,
    block: SeedBlock,
    around: dict[int, list[int]],
    config: SeedConfig,
    generator: torch.Generator,
) -> int:
    """How many of the images around the block can be resected from its points."""
    if not around:
        return 0
    found = resect_images(
        bank,
        matches,
        PointMap.of(block.joint, block.views, len(bank), bank.config.keypoints.per_image),
        sorted(around.items()),
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
    block = adjusted_block(bank, matches, SeedBlock(views, posed_views(poses, camera)), config.joint)
    return block if len(block.joint.points) >= config.min_inliers else None


def _pair_scores(found: RelativePoseResult, config: SeedConfig) -> Float[Tensor, " p"]:
    inliers = found.inlier_count.float()
    parallax = (found.median_angle_deg / config.good_angle_deg).clamp(max=1.0)
    usable = (inliers >= config.min_inliers) & (found.median_angle_deg >= config.min_angle_deg)
    usable &= found.rotation_only_inlier_count < config.max_rotation_only_share * inliers
    return torch.where(usable, inliers * parallax, 0.0)


def posed_views(poses: Float[Tensor, "v 3 4"], camera: PinholeCamera) -> JointResult:
    """Views that no points are known of yet."""
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
