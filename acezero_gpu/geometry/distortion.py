"""Radial lens distortion, taken out of pixels before anything else sees them."""

from jaxtyping import Float
from torch import Tensor

from acezero_gpu.geometry.camera import PinholeCamera

ROUNDS = 10
"""Fixed-point rounds; each gains about a digit at the strongest distortion that photographs of ordinary lenses have."""
LEAST_STRETCH = 0.5
GREATEST_STRETCH = 2.0
"""The factor is kept within these, so that a wrong polynomial far outside the image stays finite."""


def undistort_pixels(
    pixels: Float[Tensor, "*batch n 2"], camera: PinholeCamera, radial: Float[Tensor, " 2"]
) -> Float[Tensor, "*batch n 2"]:
    """Where a pinhole camera of the same focal length would have seen the same rays.

    The lens maps ``p = (x/z, y/z)`` to ``(1 + k1 r² + k2 r⁴) p`` with ``r = |p|`` (COLMAP's RADIAL); this is its
    inverse, by iterating ``p ← p_distorted / (1 + k1 r² + k2 r⁴)``.
    """
    distorted = camera.normalised(pixels)
    plane = distorted
    for _ in range(ROUNDS):
        radius_sq = plane.square().sum(-1, keepdim=True)
        stretch = 1 + radius_sq * (radial[0] + radial[1] * radius_sq)
        plane = distorted / stretch.clamp(LEAST_STRETCH, GREATEST_STRETCH)
    return plane * camera.focal_px[..., None, :] + camera.principal_point_px[..., None, :]
