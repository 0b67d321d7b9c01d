"""Changes of light, camera and foreground that a feature is to ignore; by kornia's augmentations."""

from dataclasses import dataclass

import imageio.v3 as iio
import kornia.augmentation as K
import torch
from jaxtyping import Float
from kornia.color import rgb_to_grayscale
from torch import Generator, Tensor, nn

SHADOW_SHARE = 0.1
JPEG_SHARE = 0.2


@dataclass(frozen=True, slots=True)
class PhotometricConfig:
    """How strongly pictures are changed."""

    strength: float = 1.0
    """Multiplies all ranges; 0 leaves pictures as they are."""


class PhotometricChanges(nn.Module):
    """White balance, shadows, exposure, gamma, occlusion, blur, noise, JPEG: each in some pictures only."""

    def __init__(self, config: PhotometricConfig) -> None:
        super().__init__()
        k = config.strength
        self._strength = k
        self._colour = K.AugmentationSequential(
            K.RandomPlanckianJitter(mode="blackbody", p=0.5),
            K.RandomErasing(scale=(0.01, 0.02 + 0.08 * k), ratio=(0.4, 2.5), value=0.5, p=0.2),
            data_keys=["input"],
        )
        self._grey = K.AugmentationSequential(
            K.RandomLinearIllumination(gain=(0.0, 0.3 * k), p=0.3),
            K.RandomBrightness(brightness=(1 - 0.2 * k, 1 + 0.2 * k), p=0.8),
            K.RandomContrast(contrast=(1 - 0.45 * k, 1 + 0.45 * k), p=0.8),
            K.RandomGamma(gamma=(1 / (1 + 0.6 * k), 1 + 0.6 * k), p=0.6),
            K.RandomGaussianBlur((5, 5), (0.2, 0.2 + 1.2 * k), p=0.3),
            K.RandomMotionBlur((3, 9), 90.0, 1.0, p=0.2),
            K.RandomGaussianNoise(std=0.02 * k, p=0.5),
            data_keys=["input"],
        )
        self._shadow = K.RandomPlasmaShadow(
            roughness=(0.1, 0.7), shade_intensity=(-0.6 * k, -0.1 * k), shade_quantity=(0.1, 0.6), p=1.0
        )
        self._lowest_quality = max(5.0, 95 - 65 * k)

    @torch.no_grad()
    def forward(self, images: Float[Tensor, "b 3 h w"], generator: Generator) -> Float[Tensor, "b 1 h w"]:
        """Grey images in [0, 1]. kornia draws from the global stream, which is put back afterwards."""
        if self._strength == 0:
            return rgb_to_grayscale(images)
        seed = int(torch.randint(2**31, (), generator=generator))
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            grey = rgb_to_grayscale(self._colour(images)).clamp(0, 1)
            # Plasma is costly: only for the images that get a shadow.
            shaded = torch.rand(len(grey)) < SHADOW_SHARE
            if shaded.any():
                grey[shaded] = self._shadow(grey[shaded])
            grey = self._grey(grey).clamp(0, 1)
            for row in (torch.rand(len(grey)) < JPEG_SHARE).nonzero()[:, 0].tolist():
                quality = self._lowest_quality + (95 - self._lowest_quality) * float(torch.rand(()))
                grey[row, 0] = _through_jpeg(grey[row, 0], quality)
            return grey


def _through_jpeg(grey: Float[Tensor, "h w"], quality: float) -> Float[Tensor, "h w"]:
    levels = (grey * 255).round().to(torch.uint8).cpu().numpy()
    content = iio.imwrite("<bytes>", levels, extension=".jpg", quality=round(quality))
    return torch.from_numpy(iio.imread(content, extension=".jpg")).to(grey) / 255
