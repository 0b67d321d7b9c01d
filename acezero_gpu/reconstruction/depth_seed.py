"""A start from one image with a depth map: its keypoints are points, and look-alikes are placed by them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from acezero_gpu.data.depth import depth_at
from acezero_gpu.geometry import PinholeCamera
from acezero_gpu.reconstruction.growth import grow
from acezero_gpu.reconstruction.image_bank import ImageBank
from acezero_gpu.reconstruction.joint_adjustment import JointRefinementConfig
from acezero_gpu.reconstruction.matching import MatchStore, partner_pairs
from acezero_gpu.reconstruction.resection import PointMap, Resection, resect_images
from acezero_gpu.reconstruction.state import posed_state
from acezero_gpu.runtime.progress import report

FOCALS_PER_DOUBLING = 4
"""Density of the sweep: what it leaves is 9 % at the most, which adjustment makes up for."""
CLEARLY_BETTER = 1.01
"""Another focal length than the one to start with must have this times its score. Where images differ by a mere
translation the focal length is open, and all scores are nearly the same."""


@dataclass(frozen=True, slots=True)
class DepthSeed:
    """An image with a depth map and the look-alikes that its points placed, in the world of its camera."""

    image: int
    views: Int[Tensor, " v"]
    """Image indices, ascending; ``image`` among them."""
    cam_from_world: Float[Tensor, "v 3 4"]
    """In the unit of the depth map."""
    camera: PinholeCamera


def grow_depth_seed(
    bank: ImageBank,
    matches: MatchStore,
    camera: PinholeCamera,
    depth_maps: Mapping[int, Float[Tensor, "h w"]],
    config: JointRefinementConfig,
    *,
    max_focal_factor: float,
    generator: torch.Generator,
) -> DepthSeed | None:
    """The image, of those with ``depth_maps``, whose points place most look-alikes, with these; None if none joins.

    Points and poses both depend on the focal length that all images share. So look-alikes are resected at each of a
    sweep, within ``max_focal_factor`` of that of ``camera`` (1: it is kept), and the one at which the points of all
    images with depth agree best is taken. Then the look-alikes join as any image does that sees known points
    (``grow``): adjusted by what they and the seed agree on, which needs parallax.
    """
    graph = partner_pairs(bank, torch.ones(len(bank), dtype=torch.bool), config.partners)
    ends = graph.tolist() + graph.flip(1).tolist()
    partners = [(other, [image]) for image, other in ends if image in depth_maps]
    if not partners:
        return None
    best, found = _best_focal(
        bank, matches, camera, depth_maps, partners, max_focal_factor, config, generator
    )
    reach = dict.fromkeys(depth_maps, 0)
    for (_, (image,)), count in zip(partners, found.inlier_count.tolist(), strict=True):
        reach[image] += count >= config.growth.min_inliers
    for image in sorted(reach, key=lambda image: -reach[image]):
        poses = torch.eye(3, 4, device=bank.device).repeat(len(bank), 1, 1)
        start = posed_state(bank, poses, torch.arange(len(bank)) == image, best)
        points = _points_with_depth(bank, {image: depth_maps[image]}, best)
        grown = grow(
            bank,
            matches,
            graph,
            start,
            start.registered,
            points,
            config.growth,
            config.joint.quick(),
            generator,
        )
        views = grown.registered.nonzero()[:, 0]
        if len(views) > 1:
            return DepthSeed(image, views, grown.cam_from_world[views], best)
    return None


def _best_focal(
    bank: ImageBank,
    matches: MatchStore,
    camera: PinholeCamera,
    depth_maps: Mapping[int, Float[Tensor, "h w"]],
    partners: list[tuple[int, list[int]]],
    max_factor: float,
    config: JointRefinementConfig,
    generator: torch.Generator,
) -> tuple[PinholeCamera, Resection]:
    """The camera at which resected images agree best with the points, and their resection."""
    steps = max(0, round(FOCALS_PER_DOUBLING * math.log2(max_factor)))
    factors = sorted((max_factor ** (k / max(1, steps)) for k in range(-steps, steps + 1)), key=_distance)
    best: tuple[PinholeCamera, Resection] | None = None
    least = 0.0
    stream = generator.get_state()
    for row, factor in enumerate(factors):
        generator.set_state(stream)  # nothing but the focal length is to make a difference
        tried = PinholeCamera(factor * camera.focal_px, camera.principal_point_px)
        found = resect_images(
            bank,
            matches,
            _points_with_depth(bank, depth_maps, tried),
            partners,
            max_error_px=config.growth.max_error_px,
            generator=generator,
        )
        report(row + 1, len(factors), "focal lengths")
        score = float(found.score.sum())
        if best is None or score > least:
            best = tried, found
            least = score * CLEARLY_BETTER if row == 0 else score
    assert best is not None, "the factor 1 is always among them"
    return best


def _distance(factor: float) -> float:
    return abs(math.log(factor))


def _points_with_depth(
    bank: ImageBank, depth_maps: Mapping[int, Float[Tensor, "h w"]], camera: PinholeCamera
) -> PointMap:
    """The keypoints of these images that have a depth, each image's in the world of its own camera."""
    keypoints = bank.keypoints(torch.tensor(list(depth_maps)))
    point_of = torch.full(keypoints.valid.shape, -1, device=bank.device)
    parts: list[Tensor] = []
    count = 0
    for image, measured in depth_maps.items():
        pixels = keypoints.pixels[image]
        depth = depth_at(measured.to(bank.device), pixels, bank.width, bank.height)
        slots = (keypoints.valid[image] & (depth > 0)).nonzero()[:, 0]
        rays = camera.normalised(pixels[slots])
        parts.append(torch.cat([rays, torch.ones_like(rays[:, :1])], dim=-1) * depth[slots, None])
        point_of[image, slots] = count + torch.arange(len(slots), device=bank.device)
        count += len(slots)
    return PointMap(torch.cat(parts), point_of, camera, torch.zeros(2, device=bank.device))
