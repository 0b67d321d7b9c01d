"""Images that the map misses are placed by their keypoints, one ring around the placed ones after another."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from acezero_gpu.adjustment.joint import JointConfig, JointResult, adjust_views, triangulate_views
from acezero_gpu.reconstruction.image_bank import ImageBank
from acezero_gpu.reconstruction.matching import MatchStore
from acezero_gpu.reconstruction.resection import PointMap, resect_images
from acezero_gpu.reconstruction.state import ReconstructionState
from acezero_gpu.runtime.progress import report


@dataclass(frozen=True, slots=True)
class GrowthConfig:
    """When an image joins by its keypoints."""

    rounds: int = 40
    """The most times that all registered images are adjusted on the way."""
    until_adjusted: float = 1.3
    """All registered images are adjusted when there are so many times as many as at the last time."""
    min_inliers: int = 15
    """Points that must agree on a resected pose."""
    best_share: float = 0.5
    """An image joins only with this share of the agreeing points that the best one of its ring has. Where the camera
    turned on the spot few points lead on, and their scale is uncertain: whatever can be reached another way must
    not be reached there first."""
    max_error_px: float = 8.0
    """Reprojection error of such a point, in pixels at a shortest side of 480; scaled with the resolution."""
    partners: int = 8
    """Placed look-alikes that a new view is adjusted against: those that show it most points."""
    min_observations: int = 15
    """Points that a new view must see after that."""


def grow(
    bank: ImageBank,
    matches: MatchStore,
    graph: Int[Tensor, "p 2"],
    state: ReconstructionState,
    placed: Bool[Tensor, " n"],
    point_map: PointMap,
    config: GrowthConfig,
    joint: JointConfig,
    generator: torch.Generator,
    *,
    every_point: bool = False,
) -> ReconstructionState:
    """The state with images that see enough of the points, directly or through others that joined before.

    Images are matched along ``graph`` only. A ring of images is resected in one batch, then adjusted against its
    ``placed`` neighbours, which stay where they are, and adds its own points. Of a ring, images that see far fewer
    points than the best wait for the next. Ends when no image joins, or when so many have joined that all should be
    adjusted.

    ``every_point`` lets new points without parallax count: they carry the rotation across a turn on the spot, but
    not the scale. So it ends after the first ring that joins.
    """
    neighbours = _neighbour_lists(graph, len(bank))
    placed = placed.cpu().clone()
    at_first = int(placed.sum())
    target = at_first + 1 if every_point else config.until_adjusted * max(1, at_first)
    poses, registered = state.cam_from_world.clone(), state.registered.clone()
    tried: dict[int, int] = {}
    while int(placed.sum()) < target:
        partners = _candidates(neighbours, placed, registered.cpu(), tried)
        if not partners:
            break
        found = resect_images(
            bank, matches, point_map, partners, max_error_px=config.max_error_px, generator=generator
        )
        count = found.inlier_count.cpu()
        enough = count >= config.min_inliers
        good = enough & (count >= config.best_share * count.max())
        # An image that sees enough waits for better ones: it is not done with.
        done = (good | ~enough).tolist()
        tried |= {image: len(others) for (image, others), seen in zip(partners, done, strict=True) if seen}
        if not bool(good.any()):
            continue
        new = torch.tensor([image for image, _ in partners])[good]
        poses[new.to(poses.device)] = found.cam_from_world[good.to(poses.device)]
        around = [
            _of_most_points(matches, point_map, image, others, config.partners)
            for (image, others), fits in zip(partners, good.tolist(), strict=True)
            if fits
        ]
        views = torch.cat(
            [new, torch.tensor(sorted({v for others in around for v in others} - set(new.tolist())))]
        )
        local, points = _adjusted_locally(
            bank, matches, graph, views, len(new), poses[views], point_map, joint, config, every_point
        )
        fits = (points.observations_per_view[: len(new)] >= config.min_observations).cpu()
        joined = new[fits]
        poses[joined.to(poses.device)] = local.cam_from_world[: len(new)][fits.to(poses.device)]
        registered[joined.to(poses.device)] = True
        placed[joined] = True
        report(int(placed.sum()), len(bank), "images placed")
        point_map = point_map.with_points_of(local, views)
    return replace(state, cam_from_world=poses, registered=registered)


def _neighbour_lists(graph: Int[Tensor, "p 2"], images: int) -> list[list[int]]:
    lists: list[list[int]] = [[] for _ in range(images)]
    for a, b in graph.tolist():
        lists[a].append(b)
        lists[b].append(a)
    return lists


def _of_most_points(
    matches: MatchStore, point_map: PointMap, image: int, others: list[int], count: int
) -> list[int]:
    """Those of the others whose matches with the image show most points: look-alikes may show another place."""
    points = [(point_map.point_of[other, matches.slots(image, other)[1]] >= 0).sum() for other in others]
    order = torch.stack(points).argsort(descending=True, stable=True)
    return [others[row] for row in order[:count].tolist()]


def _candidates(
    neighbours: list[list[int]],
    placed: Bool[Tensor, " n"],
    registered: Bool[Tensor, " n"],
    tried: dict[int, int],
) -> list[tuple[int, list[int]]]:
    """Unregistered images with more placed neighbours than when they were last tried."""
    found = []
    for image in (~registered).nonzero()[:, 0].tolist():
        others = [other for other in neighbours[image] if placed[other]]
        if len(others) > tried.get(image, 0):
            found.append((image, others))
    return found


def _adjusted_locally(
    bank: ImageBank,
    matches: MatchStore,
    graph: Int[Tensor, "p 2"],
    views: Int[Tensor, " v"],
    new: int,
    cam_from_world: Float[Tensor, "v 3 4"],
    point_map: PointMap,
    joint: JointConfig,
    config: GrowthConfig,
    every_point: bool,
) -> tuple[JointResult, JointResult]:
    """The first ``new`` views adjusted against the others by the matches that touch them, and the points that count.

    A view that sees too few points with parallax stays where its resection put it.
    """
    row = torch.full((len(bank),), -1)
    row[views] = torch.arange(len(views))
    ends = row[graph]
    touching = (ends >= 0).all(-1) & (ends < new).any(-1)
    fixed = torch.arange(len(views), device=bank.device) >= new
    bundle = replace(joint.bundle, refine_focal=False, refine_radial=False)
    found = matches.between(graph[touching], views)
    pixels = bank.keypoints(views).pixels[views]
    local = adjust_views(
        found,
        pixels,
        cam_from_world,
        point_map.camera,
        replace(joint, bundle=bundle),
        pixel_scale=bank.pixel_scale,
        radial=point_map.radial,
        fixed_views=fixed,
    )
    if not every_point:
        return local, local
    enough = (local.observations_per_view >= config.min_observations)[:, None, None]
    local = replace(local, cam_from_world=torch.where(enough, local.cam_from_world, cam_from_world))
    return local, triangulate_views(found, pixels, local, joint, pixel_scale=bank.pixel_scale)
