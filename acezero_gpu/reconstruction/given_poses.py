"""Poses that some images of a reconstruction bring along."""

from dataclasses import dataclass, replace

import pypose as pp
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from acezero_gpu.data.posed_views import PosedViews
from acezero_gpu.geometry import matrix_from_se3


@dataclass(frozen=True, slots=True)
class GivenPoses:
    """Images whose poses are known when a reconstruction starts."""

    images: Int[Tensor, " g"]
    """Image indices, ascending, on the CPU."""
    cam_from_world: Float[Tensor, "g 7"]
    """pypose SE3, world to camera, in the precision that they came in; on the CPU."""
    fixed: bool
    """Whether they stay exactly as given; otherwise they are where the reconstruction starts from."""

    def matrices(self, like: Tensor) -> Float[Tensor, "g 3 4"]:
        """``[R | t]`` with the type and on the device of ``like``."""
        return matrix_from_se3(pp.SE3(self.cam_from_world)).to(like)

    def mask(self, images: int) -> Bool[Tensor, " n"]:
        """Which of so many images have a given pose; on the CPU."""
        mask = torch.zeros(images, dtype=torch.bool)
        mask[self.images] = True
        return mask

    def put_into(self, cam_from_world: Float[Tensor, "n 3 4"]) -> Float[Tensor, "n 3 4"]:
        """A copy of the poses of all images with the given ones in their places."""
        poses = cam_from_world.clone()
        poses[self.images.to(poses.device)] = self.matrices(poses)
        return poses

    def into_views(self, views: PosedViews, dtype: torch.dtype) -> PosedViews:
        """The views of all images, on the CPU, in this precision, with the given poses exactly as they came."""
        pose = torch.as_tensor(views.cam_from_world).to(dtype, copy=True)
        pose[self.images] = torch.as_tensor(self.cam_from_world).to(dtype)
        return replace(views, cam_from_world=pp.SE3(pose))
