"""Dense SIFT one cell and one bin at a time, from scipy's filters and the definition of the windows."""

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

ORIENTATIONS, BINS, STRIDE = 8, 4, 8


def slow_descriptor(image: NDArray, row: int, column: int, bin_size_px: int) -> NDArray:
    """128 numbers of one cell: 4 x 4 bins row by row, 8 orientations each."""
    smooth = ndimage.gaussian_filter(image, bin_size_px / 4, truncate=2.0, mode="nearest")
    slope_u = ndimage.correlate1d(smooth, [-0.5, 0.0, 0.5], axis=1, mode="nearest")
    slope_v = ndimage.correlate1d(smooth, [-0.5, 0.0, 0.5], axis=0, mode="nearest")
    cell_u, cell_v = STRIDE * (column + 0.5), STRIDE * (row + 0.5)
    sums = np.zeros((BINS, BINS, ORIENTATIONS))
    for j in range(BINS):
        for i in range(BINS):
            bin_u = cell_u + (i - (BINS - 1) / 2) * bin_size_px
            bin_v = cell_v + (j - (BINS - 1) / 2) * bin_size_px
            for v in range(
                max(0, math.floor(bin_v - bin_size_px)), min(image.shape[0], math.ceil(bin_v + bin_size_px))
            ):
                for u in range(
                    max(0, math.floor(bin_u - bin_size_px)),
                    min(image.shape[1], math.ceil(bin_u + bin_size_px)),
                ):
                    nearness = max(0.0, 1 - abs(u + 0.5 - bin_u) / bin_size_px) * max(
                        0.0, 1 - abs(v + 0.5 - bin_v) / bin_size_px
                    )
                    strength = nearness * math.hypot(slope_u[v, u], slope_v[v, u])
                    position = math.atan2(slope_v[v, u], slope_u[v, u]) / (2 * math.pi) * ORIENTATIONS
                    lower = math.floor(position)
                    sums[j, i, lower % ORIENTATIONS] += strength * (1 - (position - lower))
                    sums[j, i, (lower + 1) % ORIENTATIONS] += strength * (position - lower)
    descriptor = sums.ravel()
    descriptor = np.minimum(descriptor / np.linalg.norm(descriptor), 0.2)
    return np.sqrt(descriptor / descriptor.sum() * len(descriptor))
