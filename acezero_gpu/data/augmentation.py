"""Random scale, rotation, brightness and contrast, with the way back to the original pixels."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from kornia.filters import gaussian_blur2d
from torch import Tensor


@dataclass(frozen=True, slots=True)
class AugmentationConfig:
    """Ranges that are drawn from uniformly."""

    max_scale: float = 1.5
    """Scale lies between 1/this and this."""
    max_rotation_deg: float = 15.0
    """Rotation about the image's centre lies within plus/minus this."""
    brightness: float = 0.1
    """Grey values are multiplied by a factor within 1 plus/minus this."""
    contrast: float = 0.1
    """Distances from the mean grey are multiplied by a factor within 1 plus/minus this."""


@dataclass(frozen=True, slots=True)
class AugmentedImages:
    """Warped images; ``source_px`` leads from their pixels back to those of the originals."""

    images: Float[Tensor, "b 1 h2 w2"]
    source_from_warped: Float[Tensor, "b 2 3"]
    source_size: tuple[int, int]
    """Height and width of the originals."""

    def source_px(self, pixels: Float[Tensor, "n 2"]) -> Float[Tensor, "b n 2"]:
        """Where pixels of the warped images lie in the originals, in pixels of the originals."""
        return (
            pixels @ self.source_from_warped[:, :, :2].transpose(1, 2)
            + self.source_from_warped[:, None, :, 2]
        )

    def inside(self, source_px: Float[Tensor, "b n 2"]) -> Bool[Tensor, "b n"]:
        """Whether source pixels lie within the original image, where the warped one shows no reflected content."""
        height, width = self.source_size
        u, v = source_px.unbind(-1)
        return (u >= 0) & (u < width) & (v >= 0) & (v < height)


def augment(
    images: Float[Tensor, "b 1 h w"], config: AugmentationConfig, generator: torch.Generator
) -> AugmentedImages:
    """One random scale for the batch (so that it stays a batch); rotation and grey changes per image."""
    batch, _, height, width = images.shape
    draws = torch.rand(1 + 3 * batch, generator=generator, device=generator.device)
    spread = 2 * draws - 1
    low = 1 / config.max_scale
    scale = low + float(draws[0]) * (config.max_scale - low)
    angle, brightness, contrast = spread[1:].to(images.device, images.dtype).view(3, batch)
    angle = torch.deg2rad(config.max_rotation_deg * angle)
    new_height, new_width = max(16, round(height * scale)), max(16, round(width * scale))
    cosine, sine = torch.cos(angle) / scale, torch.sin(angle) / scale
    linear = torch.stack([cosine, sine, -sine, cosine], dim=-1).view(batch, 2, 2)
    centre_new = images.new_tensor([new_width / 2, new_height / 2])
    centre = images.new_tensor([width / 2, height / 2])
    source_from_warped = torch.cat([linear, (centre - linear @ centre_new)[..., None]], dim=-1)
    if scale < 1:
        sigma = 0.5 * (1 / scale**2 - 1) ** 0.5
        images = gaussian_blur2d(images, (5, 5), (max(sigma, 0.05),) * 2, border_type="replicate")
    grid = _sampling_grid(source_from_warped, (new_height, new_width), (height, width))
    warped = F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)
    mean = warped.mean(dim=(1, 2, 3), keepdim=True)
    warped = (warped - mean) * (1 + config.contrast * contrast).view(-1, 1, 1, 1) + mean
    warped = warped * (1 + config.brightness * brightness).view(-1, 1, 1, 1)
    return AugmentedImages(warped.clamp(0, 1), source_from_warped, (height, width))


def _sampling_grid(
    source_from_warped: Float[Tensor, "b 2 3"], new_size: tuple[int, int], size: tuple[int, int]
) -> Float[Tensor, "b h2 w2 2"]:
    """``grid_sample`` coordinates: without ``align_corners``, -1 and 1 are the image's edges, as in our pixels."""
    height, width = new_size
    u = torch.arange(width, device=source_from_warped.device, dtype=source_from_warped.dtype) + 0.5
    v = torch.arange(height, device=source_from_warped.device, dtype=source_from_warped.dtype) + 0.5
    pixels = torch.stack([u.expand(height, width), v[:, None].expand(height, width)], dim=-1).flatten(0, 1)
    source = pixels @ source_from_warped[:, :, :2].transpose(1, 2) + source_from_warped[:, None, :, 2]
    extent = source.new_tensor([size[1], size[0]])
    return (2 * source / extent - 1).unflatten(1, (height, width))
