"""How a memory budget is divided: features of the images, training patches, working memory."""

import math
from dataclasses import dataclass, replace

from acezero_gpu.mapping import BufferConfig, FeatureBuffer
from acezero_gpu.network import FEATURE_DTYPE

WORKING_SHARE = 1 / 8
"""Of the budget, for the chunks of matching and pose solvers, of which one kind is at work at a time."""
LEAST_PATCHES = 64
"""Of each image; a map of fewer is not worth the time."""


@dataclass(frozen=True, slots=True)
class MemorySplit:
    """What may be kept on the computing device."""

    feature_cache_bytes: int
    buffer: BufferConfig


def working_bytes(budget_bytes: int) -> int | None:
    """The most that one chunk may take; None without a budget."""
    return int(WORKING_SHARE * budget_bytes) if budget_bytes else None


def divided(
    budget_bytes: int,
    feature_cache_bytes: int,
    buffer: BufferConfig,
    *,
    images: int,
    cells: int,
    channels: int,
    buffer_on_device: bool,
) -> MemorySplit:
    """The settings of cache and buffer, reduced until both fit into the budget less the working memory.

    If not everything fits, patches come first, up to a half of it or to what the features leave: without features the
    run takes longer, without patches the map is worse. A buffer that is not on the computing device takes nothing of
    the budget. ``ValueError`` if there is no room for a few patches of every image.
    """
    if not budget_bytes:
        return MemorySplit(feature_cache_bytes, buffer)
    room = budget_bytes - int(WORKING_SHARE * budget_bytes)
    features = min(feature_cache_bytes, images * cells * channels * FEATURE_DTYPE.itemsize)
    if not buffer_on_device:
        return MemorySplit(min(features, room), buffer)
    each = FeatureBuffer.bytes_per_patch(channels)
    most = max(room // 2, room - features) // each
    if most < LEAST_PATCHES * images:
        least = 2 * LEAST_PATCHES * images * each / (1 - WORKING_SHARE)
        raise ValueError(
            f"--memory-budget: too little for {images} images of {cells} cells; "
            f"give at least {math.ceil(least / 1e6)}MB."
        )
    if most < FeatureBuffer.slots(images, cells, buffer):
        # As many augmentations as before the budget, or fewer, and as many cells of each as fill the room.
        share = most // images
        passes = math.ceil(share / min(buffer.samples_per_pass, cells))
        buffer = replace(buffer, max_patches=most, samples_per_pass=share // passes)
    taken = FeatureBuffer.slots(images, cells, buffer) * each
    return MemorySplit(min(features, room - taken), buffer)
