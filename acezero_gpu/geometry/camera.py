"""The pinhole camera: focal lengths and principal point in pixels."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, slots=True)
class PinholeCamera:
    """``u = fx x/z + cx``, ``v = fy y/z + cy`` for a camera point ``(x, y, z)``; OpenCV axes.

    The centre of the top-left pixel is (0.5, 0.5), so an image of width w has its centre at w/2. Batch
    dimensions broadcast against those of the points: an unbatched camera is shared by all images.
    """

    focal_px: Float[Tensor, "*batch 2"]
    principal_point_px: Float[Tensor, "*batch 2"]

    @classmethod
    def centred(
        cls,
        focal_px: float | Float[Tensor, ""],
        width: int,
        height: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> "PinholeCamera":
        """Square pixels, the principal point at the image's centre."""
        focal = torch.as_tensor(focal_px, dtype=dtype, device=device)
        centre = torch.tensor([width / 2, height / 2], dtype=dtype, device=device)
        return cls(torch.stack([focal, focal]), centre)

    @classmethod
    def guess(cls, width: int, height: int, **kwargs: object) -> "PinholeCamera":
        """ACE0's guess for an unknown camera: a focal length of 0.7 times the image diagonal."""
        return cls.centred(0.7 * (width**2 + height**2) ** 0.5, width, height, **kwargs)  # type: ignore[arg-type]

    def bearings(self, pixels: Float[Tensor, "*pixels n 2"]) -> Float[Tensor, "*rays n 3"]:
        """Unit vectors along the rays of ``pixels``, in the camera frame."""
        rays = self.normalised(pixels)
        return torch.nn.functional.normalize(
            torch.cat([rays, torch.ones_like(rays[..., :1])], dim=-1), dim=-1
        )

    def normalised(self, pixels: Float[Tensor, "*pixels n 2"]) -> Float[Tensor, "*rays n 2"]:
        """``(x/z, y/z)`` of the rays of ``pixels``."""
        return (pixels - self.principal_point_px[..., None, :]) / self.focal_px[..., None, :]

    def scaled(self, factor: float | tuple[float, float]) -> "PinholeCamera":
        """The same camera for an image resized by ``factor`` (or by one factor per axis, x then y).

        The (0.5, 0.5) convention makes it a plain product.
        """
        scale = torch.as_tensor(factor, dtype=self.focal_px.dtype, device=self.focal_px.device)
        return PinholeCamera(self.focal_px * scale, self.principal_point_px * scale)

    def to(self, device: torch.device | str, dtype: torch.dtype | None = None) -> "PinholeCamera":
        return PinholeCamera(
            self.focal_px.to(device=device, dtype=dtype),
            self.principal_point_px.to(device=device, dtype=dtype),
        )
