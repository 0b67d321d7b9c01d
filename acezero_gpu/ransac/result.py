"""What a pose estimate consists of, whichever measurements it comes from."""

from dataclasses import dataclass

import pypose as pp
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from acezero_gpu.geometry import PinholeCamera, orthonormalise, se3_from_matrix
from acezero_gpu.pnp import PoseStatus

MIN_INLIERS = 4
"""Below this any pose explains the points; no result is called OK."""
ACCEPTED_SCORE_LOSS = 0.1
"""A last, robust refinement is taken unless it loses more than this share of the score."""


@dataclass(frozen=True, slots=True)
class AbsolutePoseResult:
    """One row per image."""

    cam_from_world: Float[Tensor, "batch 7"]
    """pypose SE3, world to camera; the identity where no pose was found."""
    inliers: Bool[Tensor, "batch n"]
    """Usable correspondences within the threshold of ``cam_from_world`` itself, in front of the camera."""
    inlier_count: Int64[Tensor, " batch"]
    """Their number."""
    score: Float[Tensor, " batch"]
    """Score of ``cam_from_world``; 0 where no pose was found."""
    status: Int64[Tensor, " batch"]
    """``PoseStatus`` codes."""
    camera: PinholeCamera | None
    """The camera that goes with each pose, one row per image: the given one, or with the focal length that was
    estimated; None where no camera takes part, as for points with depth."""


def no_result(
    points: Float[Tensor, "batch n 3"], camera: PinholeCamera | None, status: PoseStatus
) -> AbsolutePoseResult:
    """The same failure for every image."""
    batch, n = points.shape[:2]
    return AbsolutePoseResult(
        pp.identity_SE3(batch, dtype=points.dtype, device=points.device),
        points.new_zeros(batch, n, dtype=torch.bool),
        points.new_zeros(batch, dtype=torch.int64),
        points.new_zeros(batch),
        points.new_full((batch,), int(status), dtype=torch.int64),
        camera,
    )


def pose_status(
    found: Bool[Tensor, " batch"], inliers: Int64[Tensor, " batch"], usable: Int64[Tensor, " batch"]
) -> Int64[Tensor, " batch"]:
    """``PoseStatus`` codes, from whether there is a pose and the numbers of inliers and of usable points."""
    status = torch.where(inliers >= MIN_INLIERS, int(PoseStatus.OK), int(PoseStatus.TOO_FEW_INLIERS))
    status = torch.where(found, status, int(PoseStatus.NO_HYPOTHESIS))
    return torch.where(usable < MIN_INLIERS, int(PoseStatus.TOO_FEW_POINTS), status)


def concatenated(parts: list[AbsolutePoseResult]) -> AbsolutePoseResult:
    """The results of chunks, in their order."""
    if len(parts) == 1:
        return parts[0]
    cameras = [part.camera for part in parts if part.camera is not None]
    camera = None
    if cameras:
        focal = torch.cat([part.focal_px for part in cameras])
        camera = PinholeCamera(focal, torch.cat([part.principal_point_px for part in cameras]))
    return AbsolutePoseResult(
        pp.SE3(torch.cat([torch.Tensor(part.cam_from_world) for part in parts])),
        torch.cat([part.inliers for part in parts]),
        torch.cat([part.inlier_count for part in parts]),
        torch.cat([part.score for part in parts]),
        torch.cat([part.status for part in parts]),
        camera,
    )


def se3_or_identity(
    cam_from_world: Float[Tensor, "batch 3 4"], found: Bool[Tensor, " batch"]
) -> tuple[Float[Tensor, "batch 7"], Bool[Tensor, " batch"]]:
    """The poses as they are handed out, with exact rotations; the identity where none was found.

    Also ``found``, without the poses that are not finite.
    """
    rotation = orthonormalise(cam_from_world[..., :3])
    se3 = se3_from_matrix(torch.cat([rotation, cam_from_world[..., 3:]], dim=-1)).tensor()
    found = found & se3.isfinite().all(-1)
    identity = torch.eye(7, dtype=se3.dtype, device=se3.device)[6]  # a list would be copied to the device
    return torch.where(found[:, None], se3, identity), found
