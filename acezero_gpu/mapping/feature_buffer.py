"""Training patches of all images, encoded once and used by every mapping round."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from acezero_gpu.data.augmentation import AugmentationConfig, augment
from acezero_gpu.geometry import cell_centres_px
from acezero_gpu.network import FEATURE_DTYPE, Encoder, encode
from acezero_gpu.runtime.distributed import Ranks


@dataclass(frozen=True, slots=True)
class BufferConfig:
    """How many patches are kept."""

    samples_per_pass: int = 1024
    """Cells drawn from one augmentation of one image, without replacement (all, if it has fewer)."""
    max_passes: int = 10
    """The most augmentations per image; the first one is the image as it is."""
    max_patches: int = 8_000_000
    """The most patches of all images together: with many images, each gets fewer passes, then fewer cells."""
    device: str = "same"
    """``same`` keeps patches on the computing device, ``cpu`` in main memory (slower steps, little GPU memory)."""
    encode_batch: int = 8
    """Images that are augmented and encoded together; they share one random scale."""


@dataclass(frozen=True, slots=True)
class PatchBatch:
    """A training batch on the computing device."""

    features: Float[Tensor, "n c"]
    pixels: Float[Tensor, "n 2"]
    """Cell centres in pixels of the unaugmented network image, so that a frame's camera serves all its patches."""
    frames: Int[Tensor, " n"]


class FeatureBuffer:
    """Per image a fixed number of slots; images are encoded when a round first needs them, never twice."""

    def __init__(self, images: int, passes: int, per_pass: int, channels: int, device: torch.device) -> None:
        slots = passes * per_pass
        self.passes = passes
        self.per_pass = per_pass
        self.compute_device = device
        self.storage_device = device
        self.features = torch.empty(0)
        self._shape = (images, slots, channels)
        self._filled = torch.zeros(images, dtype=torch.bool)
        self.pixels = torch.empty(0)

    @classmethod
    def plan(
        cls, images: int, cells: int, channels: int, config: BufferConfig, device: torch.device
    ) -> "FeatureBuffer":
        """Chooses passes and cells per pass within ``config``'s bounds; allocates nothing yet."""
        buffer = cls(images, *_passes(images, cells, config), channels, device)
        if config.device == "cpu":
            buffer.storage_device = torch.device("cpu")
        return buffer

    @staticmethod
    def slots(images: int, cells: int, config: BufferConfig) -> int:
        """Patches of all images together that ``plan`` makes room for."""
        passes, per_pass = _passes(images, cells, config)
        return images * passes * per_pass

    @staticmethod
    def bytes_per_patch(channels: int) -> int:
        """A feature in half precision, and where it lies in its image: two numbers in single precision."""
        return channels * FEATURE_DTYPE.itemsize + 8

    @property
    def bytes_needed(self) -> int:
        """Of all patches."""
        images, slots, channels = self._shape
        return images * slots * self.bytes_per_patch(channels)

    @property
    def patches_per_frame(self) -> int:
        """Different patches of each image."""
        return self._shape[1]

    def missing(self, frames: Int[Tensor, " f"]) -> Int[Tensor, " m"]:
        """Those of ``frames`` that are not encoded yet."""
        frames = frames.cpu()
        return frames[~self._filled[frames]]

    def fill(
        self,
        frames: Int[Tensor, " f"],
        load: Callable[[Int[Tensor, " b"]], Float[Tensor, "b 1 h w"]],
        plain_features: Callable[[Int[Tensor, " b"]], Float[Tensor, "b c rows cols"]],
        encoder: Encoder,
        augmentation: AugmentationConfig,
        generator: torch.Generator,
    ) -> None:
        """Encodes the missing ones of ``frames`` together, as one batch.

        ``load`` gives network images on the computing device, ``plain_features`` what the encoder makes of them
        without augmentation (they are kept elsewhere for registration, so they are not computed twice).
        """
        self._allocate()
        missing = self.missing(frames)
        if len(missing) == 0:
            return
        images = load(missing)
        plain = plain_features(missing)
        rows, columns = plain.shape[-2:]
        centres = cell_centres_px(rows, columns, encoder.stride, device=plain.device)
        everywhere = torch.ones(len(missing), len(centres), dtype=torch.bool, device=plain.device)
        self._store(missing, 0, plain, centres.expand(len(missing), -1, -1), everywhere, generator)
        for index in range(1, self.passes):
            warped = augment(images, augmentation, generator)
            features = encode(encoder, warped.images)
            rows, columns = features.shape[-2:]
            centres = cell_centres_px(rows, columns, encoder.stride, device=features.device)
            source = warped.source_px(centres)
            self._store(missing, index, features, source, warped.inside(source), generator)
        self._filled[missing] = True

    def take_over(self, frames: Int[Tensor, " b"], source: int, ranks: Ranks) -> None:
        """The patches of these frames as rank ``source`` has them, on all ranks."""
        self._allocate()
        rows = frames.to(self.storage_device)
        features, pixels = self.features[rows], self.pixels[rows]
        ranks.broadcast([features, pixels], source)
        self.features[rows], self.pixels[rows] = features, pixels
        self._filled[frames] = True

    def _allocate(self) -> None:
        if self.features.numel() == 0:
            count, slots, channels = self._shape
            self.features = torch.empty(
                count, slots, channels, dtype=FEATURE_DTYPE, device=self.storage_device
            )
            self.pixels = torch.empty(count, slots, 2, device=self.storage_device)

    def _store(
        self,
        frames: Int[Tensor, " b"],
        index: int,
        features: Float[Tensor, "b c rows cols"],
        source_px: Float[Tensor, "b cells 2"],
        inside: Bool[Tensor, "b cells"],
        generator: torch.Generator,
    ) -> None:
        """Draws cells of one pass into its slots.

        Random order with the cells outside last: the first ones are a draw without replacement. Where fewer cells
        than slots lie inside, the draw starts again from its beginning.
        """
        order = torch.rand(inside.shape, generator=generator, device=generator.device).to(features.device)
        order = torch.where(inside, order, order + 1).argsort(dim=1)
        available = inside.sum(1, keepdim=True).clamp_min(1)
        slots = torch.arange(self.per_pass, device=features.device)
        chosen = order.gather(1, slots % available)
        flat = features.flatten(2).transpose(1, 2)
        picked = flat.gather(1, chosen[..., None].expand(-1, -1, flat.shape[-1]))
        pixels = source_px.gather(1, chosen[..., None].expand(-1, -1, 2))
        where = slice(index * self.per_pass, (index + 1) * self.per_pass)
        rows = frames.to(self.storage_device)
        self.features[rows, where] = picked.to(self.storage_device)
        self.pixels[rows, where] = pixels.to(self.storage_device)

    def sample(self, frames: Int[Tensor, " f"], count: int, generator: torch.Generator) -> PatchBatch:
        """``count`` patches drawn uniformly, with replacement, from the given frames."""
        return self.patches(*self.draw(frames, count, generator))

    def draw(
        self, frames: Int[Tensor, " f"], count: int, generator: torch.Generator
    ) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
        """Frames and slots of ``count`` patches, on the generator's device; ``patches`` gives all or some of them."""
        choice = frames[torch.randint(len(frames), (count,), generator=generator, device=generator.device)]
        return choice, self.draw_slots((count,), generator)

    def draw_slots(self, shape: tuple[int, ...], generator: torch.Generator) -> Int[Tensor, "..."]:
        """Places of a frame's patches, uniform and with replacement; on the generator's device."""
        return torch.randint(self._shape[1], shape, generator=generator, device=generator.device)

    def patches(self, frames: Int[Tensor, " n"], slots: Int[Tensor, " n"]) -> PatchBatch:
        """The patch in each frame's slot; both may lie on any one device."""
        flat_index = (frames * self._shape[1] + slots).to(self.storage_device)
        features = self.features.flatten(0, 1).index_select(0, flat_index)
        pixels = self.pixels.flatten(0, 1).index_select(0, flat_index)
        target = self.compute_device
        return PatchBatch(features.to(target), pixels.to(target), frames.to(target))


def _passes(images: int, cells: int, config: BufferConfig) -> tuple[int, int]:
    """Augmentations of each image, and cells drawn from each of them."""
    per_pass = min(config.samples_per_pass, cells)
    share = max(1, config.max_patches // max(1, images))
    return max(1, min(config.max_passes, share // per_pass)), min(per_pass, share)
