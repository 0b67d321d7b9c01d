"""Poses of images from a map: predict scene coordinates, then one batched robust estimation."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pypose as pp
import torch
from jaxtyping import Float, Int
from torch import Tensor

from acezero_gpu.geometry import PinholeCamera, cell_centres_px, matrix_from_se3, undistort_pixels
from acezero_gpu.network import SceneMap
from acezero_gpu.ransac import AbsolutePoseResult, RansacConfig, estimate_absolute_pose
from acezero_gpu.ransac.sampling import ImageStreams
from acezero_gpu.registration.head_choice import points_at, points_by, some_cells
from acezero_gpu.runtime import in_chunks
from acezero_gpu.runtime.distributed import ALONE, Ranks
from acezero_gpu.runtime.progress import report

FIRST_LOOK = 256
"""Hypotheses by which the heads of an ensemble are compared first."""
KNOWN_SHARE = 0.25
"""A head plainly knows an image if this share of the cells are inliers then; no other is searched further."""
LIKELY_HEADS = 4
"""Otherwise so many, of the most inliers, are."""

FeatureSource = Callable[[Int[Tensor, " b"]], Float[Tensor, "b c rows cols"]]
"""Features of the images with these indices, on the computing device."""


@dataclass(frozen=True, slots=True)
class RegistrationConfig:
    """How images are registered, and when one counts as registered."""

    ransac: RansacConfig = field(default_factory=RansacConfig.balanced)
    """The pose solver; its threshold holds at a shortest side of 480 pixels and is scaled with the resolution."""
    min_inlier_share: float = 0.1
    """An image is registered if at least this share of its cells are inliers (ACE0: 500 of 4800 cells)."""
    batch: int = 16
    """Images whose features are loaded and whose scene coordinates are predicted together."""


@dataclass(frozen=True, slots=True)
class Registration:
    """One row per image that was asked for."""

    cam_from_world: Float[Tensor, "n 3 4"]
    """Poses, world to camera; meaningless where ``inlier_count`` is 0."""
    inlier_count: Int[Tensor, " n"]
    """Cells whose reprojection error at the final pose is below the threshold."""
    cells: int
    """Cells per image."""

    def registered(self, config: RegistrationConfig) -> Tensor:
        """Which images have enough inliers."""
        return self.inlier_count >= config.min_inlier_share * self.cells

    def se3(self) -> pp.LieTensor:
        """Poses as SE3."""
        return pp.mat2SE3(self.cam_from_world, check=False)


@torch.no_grad()
def register_images(
    features_of: FeatureSource,
    images: Int[Tensor, " n"],
    scene_map: SceneMap,
    camera: PinholeCamera,
    config: RegistrationConfig,
    *,
    stride: int,
    pixel_scale: float,
    radial: Float[Tensor, " 2"] | None = None,
    generator: torch.Generator,
    ranks: Ranks = ALONE,
) -> Registration:
    """Registers the images against the map; ``camera`` is in pixels of the network image.

    ``radial`` are ``k1, k2`` of the lens (no distortion if not given). ``pixel_scale`` is the network image's
    shortest side over 480: thresholds in pixels are multiplied by it.

    Each head of an ensemble is tried, with the same draws, and the pose of most inliers is taken. Where a first look
    finds a head that plainly knows the image, it alone is searched further, otherwise the few likeliest are.

    An image that cannot be registered has an inlier count below the threshold (0 without any pose); it never
    raises. Each of the ``ranks`` registers its share of the images, with the draws that it would have in one process.
    """
    ransac = replace(config.ransac, max_error_px=config.ransac.max_error_px * pixel_scale)
    streams = ImageStreams.draw(len(images), generator, camera.focal_px.device)
    mine = ranks.rows(len(images))

    maps = scene_map.parts()

    def work(part: slice) -> tuple[Tensor, Tensor, int]:
        features = features_of(images[mine[part]])
        rows, columns = features.shape[-2:]
        pixels = cell_centres_px(rows, columns, stride, device=features.device)
        if radial is not None:
            pixels = undistort_pixels(pixels, camera, radial)
        draws = streams.images(mine[part].to(features.device))

        def search(points: Tensor, pixels: Tensor, image: Tensor, config: RansacConfig) -> AbsolutePoseResult:
            return estimate_absolute_pose(points, pixels, camera, config, streams=draws.images(image))

        image = torch.arange(len(features), device=features.device)
        if len(maps) == 1:
            found = search(scene_map.scene_coordinates(features)[0], pixels, image, ransac)
            poses, counts = matrix_from_se3(found.cam_from_world), found.inlier_count
        else:
            head, image = _likely_heads(scene_map, features, pixels, ransac, search)
            found = search(points_by(maps, features, head, image), pixels, image, ransac)
            poses, counts = _of_most_inliers(found, head, image, len(maps), len(features))
        report(min(len(images), part.stop * ranks.count), len(images), "images")
        return poses, counts, rows * columns

    parts = in_chunks("registration", len(mine), config.batch, work)
    # A rank may have no image at all.
    poses = torch.cat([camera.focal_px.new_zeros(0, 3, 4), *(poses for poses, _, _ in parts)])
    counts = torch.cat([streams.seeds[:0], *(counts for _, counts, _ in parts)])
    return Registration(
        ranks.gather_rows(mine, poses, len(images)),
        ranks.gather_rows(mine, counts, len(images)),
        parts[0][2] if parts else 0,
    )


def _likely_heads(
    scene_map: SceneMap,
    features: Float[Tensor, "b c rows cols"],
    pixels: Float[Tensor, "cells 2"],
    config: RansacConfig,
    search: Callable[[Tensor, Tensor, Tensor, RansacConfig], AbsolutePoseResult],
) -> tuple[Int[Tensor, " p"], Int[Tensor, " p"]]:
    """Head and image of each pair worth a search, by a first look at some cells with few hypotheses."""
    rows, columns = features.shape[-2:]
    cells = some_cells(rows, columns, features.device)
    points = points_at(scene_map, features, cells)
    heads, images = points.shape[:2]
    image = torch.arange(images, device=features.device)
    samples = min(FIRST_LOOK, config.hypotheses)
    look = replace(config, hypotheses=samples, refinement_rounds=0, polish_rounds=0)
    seen = search(points.flatten(0, 1), pixels[cells], image.repeat(heads), look)
    counts = seen.inlier_count.unflatten(0, (heads, images))
    count, ranked = counts.sort(dim=0, descending=True, stable=True)
    known = count[0] >= KNOWN_SHARE * len(cells)
    rank = torch.arange(heads, device=features.device)[:, None]
    rank, image = (rank < torch.where(known, 1, LIKELY_HEADS)).nonzero(as_tuple=True)
    return ranked[rank, image], image


def _of_most_inliers(
    found: AbsolutePoseResult, head: Int[Tensor, " p"], image: Int[Tensor, " p"], heads: int, images: int
) -> tuple[Float[Tensor, "b 3 4"], Int[Tensor, " b"]]:
    """The pose of each image by the head that explains most of it, and its inliers."""
    counts = found.inlier_count.new_zeros(heads, images)
    counts[head, image] = found.inlier_count
    matrices = matrix_from_se3(found.cam_from_world)
    poses = matrices.new_zeros(heads, images, 3, 4)
    poses[head, image] = matrices
    most, best = counts.max(0)
    return poses[best, torch.arange(images, device=best.device)], most
