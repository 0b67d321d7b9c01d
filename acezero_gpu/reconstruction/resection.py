"""Poses of images from the points that posed images agree on, through keypoint matches."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from acezero_gpu.adjustment.joint import JointResult
from acezero_gpu.geometry import PinholeCamera, matrix_from_se3, undistort_pixels
from acezero_gpu.ransac import RansacConfig, estimate_absolute_pose
from acezero_gpu.reconstruction.image_bank import ImageBank
from acezero_gpu.reconstruction.matching import MatchStore


@dataclass(frozen=True, slots=True)
class PointMap:
    """Points in the world, and which keypoint of which image shows which of them."""

    points: Float[Tensor, "p 3"]
    point_of: Int[Tensor, "n k"]
    """The point of each keypoint slot of every image; -1 where there is none."""
    camera: PinholeCamera
    radial: Float[Tensor, " 2"]
    """``k1, k2`` of the shared lens."""

    @staticmethod
    def of(joint: JointResult, views: Int[Tensor, " v"], images: int, slots: int) -> "PointMap":
        """The points of an adjustment whose views are the images ``views``."""
        empty = torch.full((images, slots), -1, device=joint.points.device)
        nothing = PointMap(joint.points[:0], empty, joint.camera, joint.radial)
        return nothing.with_points_of(joint, views)

    def with_points_of(self, joint: JointResult, views: Int[Tensor, " v"]) -> "PointMap":
        """These points and those of another adjustment, which knows better where both know a keypoint."""
        point_of = self.point_of.clone()
        images = views.to(point_of.device)[joint.view_index]
        point_of[images, joint.keypoint_index] = len(self.points) + joint.point_index
        return replace(self, points=torch.cat([self.points, joint.points]), point_of=point_of)


@dataclass(frozen=True, slots=True)
class Resection:
    """One row per image that was tried."""

    cam_from_world: Float[Tensor, "c 3 4"]
    """Poses; meaningless where few points agree."""
    inlier_count: Int[Tensor, " c"]
    """Points that agree with the pose."""
    score: Float[Tensor, " c"]
    """How well they agree, as the estimation scores poses."""


def resect_images(
    bank: ImageBank,
    matches: MatchStore,
    point_map: PointMap,
    partners: list[tuple[int, list[int]]],
    *,
    max_error_px: float,
    generator: torch.Generator,
) -> Resection:
    """Poses of images in one batch; ``partners`` lists for each the posed images that it is matched with.

    ``max_error_px`` holds at a shortest side of 480 pixels and is scaled with the resolution.
    """
    pairs = [(image, other) for image, others in partners for other in others]
    matches.ensure(torch.tensor(pairs, dtype=torch.long).reshape(-1, 2))
    found = [_points_seen(matches, point_map.point_of, image, others) for image, others in partners]
    keypoints = bank.keypoints(torch.tensor([image for image, _ in partners]))
    most = max(4, *(len(pair) for pair in found))
    points = point_map.points.new_zeros(len(partners), most, 3)
    pixels = point_map.points.new_zeros(len(partners), most, 2)
    mask = torch.zeros(len(partners), most, dtype=torch.bool, device=bank.device)
    for row, (pair, (image, _)) in enumerate(zip(found, partners, strict=True)):
        points[row, : len(pair)] = point_map.points[pair[:, 0]]
        pixels[row, : len(pair)] = keypoints.pixels[image, pair[:, 1]]
        mask[row, : len(pair)] = True
    result = estimate_absolute_pose(
        points,
        undistort_pixels(pixels, point_map.camera, point_map.radial),
        point_map.camera,
        RansacConfig(hypotheses=128, max_error_px=max_error_px * bank.pixel_scale),
        mask=mask,
        generator=generator,
    )
    return Resection(matrix_from_se3(result.cam_from_world), result.inlier_count, result.score)


def _points_seen(
    matches: MatchStore, point_of: Int[Tensor, "n k"], image: int, partners: list[int]
) -> Int[Tensor, "s 2"]:
    """Pairs (point, keypoint of ``image``) that the matches with ``partners`` suggest; each pair once."""
    rows = [torch.zeros(0, 2, dtype=torch.long, device=point_of.device)]
    for partner in partners:
        slots, slots_partner = matches.slots(image, partner)
        rows.append(torch.stack([point_of[partner, slots_partner], slots], dim=-1))
    seen = torch.cat(rows)
    return seen[seen[:, 0] >= 0].unique(dim=0)
