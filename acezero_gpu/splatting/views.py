"""Posed colour images, as splatting takes them: of a pinhole camera."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from kornia.geometry.calibration import undistort_image
from torch import Tensor

from acezero_gpu.geometry import PinholeCamera

WHOLLY_SEEN = 0.999
"""A pixel whose four neighbours in the original have at least this share within it."""


@dataclass(frozen=True, slots=True)
class ColourViews:
    """Images of one camera."""

    images: UInt8[Tensor, "n h w 3"]
    """RGB, of a camera without distortion."""
    cam_from_world: Float[Tensor, "n 3 4"]
    """World to camera, OpenCV axes."""
    camera: PinholeCamera
    """Shared by all; in pixels whose centres are at halves."""
    seen: Bool[Tensor, "h w"]
    """Pixels that the lens had light for; the others count for nothing."""

    def __len__(self) -> int:
        return len(self.images)


def undistorted(
    images: UInt8[Tensor, "n h w 3"], camera: PinholeCamera, radial: tuple[float, float]
) -> tuple[UInt8[Tensor, "n h w 3"], Bool[Tensor, "h w"]]:
    """The images as a lens without distortion would have made them, of the same size and focal length.

    ``radial`` are ``k1, k2`` of COLMAP's RADIAL, which OpenCV's model has as its first two. Also which pixels the lens
    saw; the others are black.
    """
    seen = torch.ones(images.shape[1:3], dtype=torch.bool)
    if not any(radial):
        return images, seen
    matrix = torch.eye(3)
    matrix[0, 0], matrix[1, 1] = camera.focal_px.float().tolist()
    # There, the first pixel's centre is at zero.
    matrix[:2, 2] = camera.principal_point_px.float() - 0.5
    terms = torch.tensor([*radial, 0.0, 0.0])

    def straightened(picture: Float[Tensor, "c h w"]) -> Float[Tensor, "c h w"]:
        return undistort_image(picture[None], matrix[None], terms[None])[0]

    straight = torch.empty_like(images)
    for row, image in enumerate(images):
        found = straightened(image.permute(2, 0, 1).float() / 255)
        straight[row] = (found.permute(1, 2, 0) * 255).round().clamp(0, 255).to(torch.uint8)
    return straight, straightened(seen[None].float())[0] > WHOLLY_SEEN
