"""Dense multi-scale SIFT-like descriptors: an encoder that needs no weights."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from kornia.filters import gaussian_blur2d, spatial_gradient
from torch import Tensor, nn

ORIENTATIONS = 8
BINS = 4
CLIP = 0.2
"""Lowe's clip of a normalised descriptor, against single strong edges."""


class DenseSiftEncoder(nn.Module):
    """One SIFT descriptor per bin size, all centred on the cell, side by side in the channels.

    For every bin size ``s`` the image is smoothed, its gradients are spread over 8 orientations, summed with a
    triangular window of half-width ``s`` and read on a 4x4 grid of spacing ``s`` around the cell's centre
    (Lowe, IJCV 2004, on a dense grid without orientation normalisation). Each 128-vector is clipped and
    square-rooted (Arandjelović & Zisserman, CVPR 2012), then scaled to unit mean square, so that the head's
    input does not depend on contrast. Bins outside the image are empty.
    """

    stride = 8

    def __init__(self, bin_sizes_px: tuple[int, ...] = (4, 8, 16)) -> None:
        super().__init__()
        if any(size % 4 or size < 4 for size in bin_sizes_px):
            raise ValueError(f"bin sizes must be multiples of 4 pixels, got {bin_sizes_px}")
        self.bin_sizes_px = bin_sizes_px
        self.channels = BINS * BINS * ORIENTATIONS * len(bin_sizes_px)
        self.identifier = "dense-sift-" + "-".join(str(size) for size in bin_sizes_px)

    def forward(self, images: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b c rows cols"]:
        """``images`` in [0, 1]; one descriptor column per whole 8x8 cell."""
        # On a CPU the maps of one image stay within the caches: two to three times as fast as those of a batch.
        parts = images.split(1) if images.device.type == "cpu" and len(images) else (images,)
        return torch.cat([self._of_all_sizes(part) for part in parts])

    def _of_all_sizes(self, images: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b c rows cols"]:
        return torch.cat([self._descriptors(images, size) for size in self.bin_sizes_px], dim=1)

    def _descriptors(self, images: Float[Tensor, "b 1 h w"], size: int) -> Float[Tensor, "b 128 rows cols"]:
        sigma = size / 4
        taps = 2 * math.ceil(2 * sigma) + 1
        smooth = gaussian_blur2d(images, (taps, taps), (sigma, sigma), border_type="replicate")
        gradient = spatial_gradient(smooth, mode="diff", order=1)[:, 0]
        rows, columns = images.shape[-2] // self.stride, images.shape[-1] // self.stride
        pooled, bin_step = _pool_orientations(_orientation_maps(gradient), size, self.stride, rows, columns)
        cell_step = self.stride // _lattice(size, self.stride)
        cells = [
            pooled[..., bin_step * j :: cell_step, bin_step * i :: cell_step][..., :rows, :columns]
            for j in range(BINS)
            for i in range(BINS)
        ]
        descriptor = torch.cat(cells, dim=1)
        descriptor = F.normalize(descriptor, dim=1, eps=1e-4).clamp_max(CLIP)
        descriptor = descriptor / descriptor.sum(dim=1, keepdim=True).clamp_min(1e-6)
        return descriptor.sqrt() * math.sqrt(descriptor.shape[1])


def _lattice(size: int, stride: int) -> int:
    """Spacing of the pooled map in pixels: fine enough that all bin centres of all cells lie on it."""
    return math.gcd(size, stride)


def _orientation_maps(gradient: Float[Tensor, "b 2 h w"]) -> Float[Tensor, "b 8 h w"]:
    """Gradient magnitude, shared linearly between the two nearest of 8 orientations."""
    magnitude = gradient.square().sum(1, keepdim=True).add(1e-12).sqrt()
    position = torch.atan2(gradient[:, 1:], gradient[:, :1]) * (ORIENTATIONS / (2 * math.pi))
    half = ORIENTATIONS // 2
    centres = torch.arange(half, device=gradient.device, dtype=gradient.dtype).view(1, -1, 1, 1)
    # To the opposite of each centre, around the circle; to the centre itself it is ``half`` less that.
    to_opposite = ((position - centres).abs() - half).abs()
    return torch.cat([to_opposite - (half - 1), 1 - to_opposite], dim=1).clamp_min(0).mul(magnitude)


def _pool_orientations(
    maps: Float[Tensor, "b 8 h w"], size: int, stride: int, rows: int, columns: int
) -> tuple[Float[Tensor, "b 8 pr pc"], int]:
    """Triangular sums on a lattice whose first point is the first bin of the first cell.

    Cell centres lie between pixel indices (8i + 3.5), and so do all bin centres for even ``size``: the window has
    an even number of taps. Returns the map and the number of lattice points between neighbouring bins.
    """
    lattice = _lattice(size, stride)
    offsets = torch.arange(2 * size, device=maps.device, dtype=maps.dtype) - (size - 0.5)
    window = (1 - offsets.abs() / size) / size
    first_bin = stride / 2 - (BINS - 1) / 2 * size
    before = size - int(first_bin)
    points_y = (stride * (rows - 1) + (BINS - 1) * size) // lattice + 1
    points_x = (stride * (columns - 1) + (BINS - 1) * size) // lattice + 1
    after_y = max(0, (points_y - 1) * lattice + 2 * size - before - maps.shape[-2])
    after_x = max(0, (points_x - 1) * lattice + 2 * size - before - maps.shape[-1])
    padded = F.pad(maps, (before, after_x, before, after_y))
    channels = maps.shape[1]
    kernel = window.expand(channels, 1, -1)
    pooled = F.conv2d(padded, kernel[:, :, None, :], stride=(1, lattice), groups=channels)
    pooled = F.conv2d(pooled, kernel[:, :, :, None], stride=(lattice, 1), groups=channels)
    return pooled[..., :points_y, :points_x], size // lattice
