"""Posed colour images, as splatting takes them: of a pinhole camera."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from kornia.geometry.calibration import undistort_image
from torch import Tensor

from acezero_gpu.geometry import PinholeCamera


@dataclass(frozen=True, slots=True)
class ColourViews:
    """Images of one camera."""

    images: UInt8[Tensor, "n h w 3"]
    """RGB, of a camera without distortion."""
    cam_from_world: Float[Tensor, "n 3 4"]
    """World to camera, OpenCV axes."""
    camera: PinholeCamera
    """Shared by all; in pixels whose centres are at halves."""

    def __len__(self) -> int:
        return len(self.images)


def undistorted(
    images: UInt8[Tensor, "n h w 3"], camera: PinholeCamera, radial: tuple[float, float]
) -> UInt8[Tensor, "n h w 3"]:
    """The images as a lens without distortion would have made them, of the same size and focal length.

    ``radial`` are ``k1, k2`` of COLMAP's RADIAL, which OpenCV's model has as its first two. What the lens did not see
    is black.
    """
    if not any(radial):
        return images
    matrix = torch.eye(3)
    matrix[0, 0], matrix[1, 1] = camera.focal_px.float().tolist()
    # There, the first pixel's centre is at zero.
    matrix[:2, 2] = camera.principal_point_px.float() - 0.5
    terms = torch.tensor([*radial, 0.0, 0.0])
    straight = torch.empty_like(images)
    for row, image in enumerate(images):
        chw = image.permute(2, 0, 1).float()[None] / 255
        found = undistort_image(chw, matrix[None], terms[None])[0]
        straight[row] = (found.permute(1, 2, 0) * 255).round().clamp(0, 255).to(torch.uint8)
    return straight
