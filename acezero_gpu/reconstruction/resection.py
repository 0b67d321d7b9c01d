"""Poses of images from the points that posed images agree on, through keypoint matches."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from acezero_gpu.adjustment.joint import JointResult
from acezero_gpu.geometry import matrix_from_se3, undistort_pixels
from acezero_gpu.ransac import RansacConfig, estimate_absolute_pose
from acezero_gpu.reconstruction.image_bank import ImageBank
from acezero_gpu.reconstruction.matching import MatchStore


@dataclass(frozen=True, slots=True)
class Resection:
    """One row per image that was tried."""

    cam_from_world: Float[Tensor, "c 3 4"]
    """Poses; meaningless where few points agree."""
    inlier_count: Int[Tensor, " c"]
    """Points that agree with the pose."""


def resect_images(
    bank: ImageBank,
    matches: MatchStore,
    joint: JointResult,
    views: Int[Tensor, " v"],
    partners: list[tuple[int, Int[Tensor, " p"]]],
    *,
    max_error_px: float,
    generator: torch.Generator,
) -> Resection:
    """Poses of the given images in one batch; ``views`` are the image indices of ``joint``'s views.

    ``partners`` lists for every image the posed images that it is matched with. ``max_error_px`` holds at a
    shortest side of 480 pixels and is scaled with the resolution.
    """
    slots = bank.config.keypoints.per_image
    point_of = torch.full((len(views), slots), -1, device=bank.device)
    point_of[joint.view_index, joint.keypoint_index] = joint.point_index
    found = [_points_seen(bank, matches, point_of, views, image, others) for image, others in partners]
    keypoints = bank.keypoints(torch.tensor([image for image, _ in partners]))
    most = max(4, *(len(pair) for pair in found))
    points = joint.points.new_zeros(len(partners), most, 3)
    pixels = joint.points.new_zeros(len(partners), most, 2)
    mask = torch.zeros(len(partners), most, dtype=torch.bool, device=bank.device)
    for row, (pair, (image, _)) in enumerate(zip(found, partners, strict=True)):
        points[row, : len(pair)] = joint.points[pair[:, 0]]
        pixels[row, : len(pair)] = keypoints.pixels[image, pair[:, 1]]
        mask[row, : len(pair)] = True
    result = estimate_absolute_pose(
        points,
        undistort_pixels(pixels, joint.camera, joint.radial),
        joint.camera,
        RansacConfig(hypotheses=128, max_error_px=max_error_px * bank.pixel_scale),
        mask=mask,
        generator=generator,
    )
    return Resection(matrix_from_se3(result.cam_from_world), result.inlier_count)


def _points_seen(
    bank: ImageBank,
    matches: MatchStore,
    point_of: Int[Tensor, "v k"],
    views: Int[Tensor, " v"],
    image: int,
    partners: Int[Tensor, " p"],
) -> Int[Tensor, "s 2"]:
    """Pairs (point, keypoint of ``image``) that the matches with ``partners`` suggest; each pair once."""
    order = torch.cat([views.cpu(), torch.tensor([image])])
    flat = matches.between(torch.stack([torch.full_like(partners, image), partners], dim=-1), order)
    new_is_a = flat.view_a == len(views)
    view = torch.where(new_is_a, flat.view_b, flat.view_a)
    slot = torch.where(new_is_a, flat.keypoint_b, flat.keypoint_a)
    slot_new = torch.where(new_is_a, flat.keypoint_a, flat.keypoint_b)
    point = point_of[view, slot]
    return torch.stack([point, slot_new], dim=-1)[point >= 0].unique(dim=0)
