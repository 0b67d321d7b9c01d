"""Everything that is derived from a set of images, each computed once and kept for all iterations."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from acezero_gpu.data.augmentation import AugmentationConfig
from acezero_gpu.data.loading import LoadedImages
from acezero_gpu.geometry import PinholeCamera
from acezero_gpu.mapping import BufferConfig, FeatureBuffer
from acezero_gpu.network import Encoder, encode
from acezero_gpu.network.keypoint_orientation import OrientationConfig, sample_pairs, upright_matches_better
from acezero_gpu.network.keypoints import KeypointConfig, Keypoints, detect_keypoints
from acezero_gpu.network.retrieval import global_descriptors
from acezero_gpu.reconstruction.feature_cache import AT_ONCE, FeatureCache
from acezero_gpu.reconstruction.memory_budget import divided
from acezero_gpu.runtime import random_stream
from acezero_gpu.runtime.distributed import ALONE, Ranks
from acezero_gpu.runtime.progress import report


@dataclass(frozen=True, slots=True)
class BankConfig:
    """What is kept of every image."""

    shortest_side_px: int = 480
    """Images are resized to this shortest side before encoding; thresholds in pixels hold at 480 and scale."""
    keypoint_side_px: int = 720
    """Shortest side of the image that sparse keypoints are found in; smaller images are not enlarged. Finer than the
    network's image, because poses are as exact as keypoints are."""
    feature_cache_bytes: int = 4 * 2**30
    """Features of the plain images are kept on the device up to this size; what is beyond it is kept in main memory
    if the device is a GPU, and computed again each time otherwise."""
    memory_budget_bytes: int = 0
    """What features, training patches and working memory may take on the device together; 0: no such bound."""
    buffer: BufferConfig = field(default_factory=BufferConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    keypoints: KeypointConfig = field(default_factory=KeypointConfig)
    orientation: OrientationConfig = field(default_factory=OrientationConfig)
    """Whether keypoints have an orientation of their own."""


class ImageBank:
    """Features, training patches, keypoints and look-alikes of an image set, made on demand."""

    def __init__(
        self,
        images: LoadedImages,
        keypoint_images: LoadedImages,
        encoder: Encoder,
        config: BankConfig,
        device: torch.device,
        seed: int,
        ranks: Ranks = ALONE,
    ) -> None:
        self.images = images
        self.encoder = encoder
        self.config = config
        self.device = device
        self._keypoint_images = keypoint_images
        self.seed = seed
        self.ranks = ranks
        """The processes that share the work on these images."""
        self.height, self.width = images.pixels.shape[-2:]
        self.grid = (self.height // encoder.stride, self.width // encoder.stride)
        cells = self.grid[0] * self.grid[1]
        split = divided(
            config.memory_budget_bytes,
            config.feature_cache_bytes,
            config.buffer,
            images=len(images),
            cells=cells,
            channels=encoder.channels,
            buffer_on_device=device.type == "cpu" or config.buffer.device == "same",
        )
        self.buffer = FeatureBuffer.plan(len(images), cells, encoder.channels, split.buffer, device)
        self.cache = FeatureCache(
            len(images),
            (encoder.channels, *self.grid),
            split.feature_cache_bytes,
            device,
            spills=device.type == "cuda" and config.feature_cache_bytes > 0,
        )
        self._keypoints: Keypoints | None = None
        self._detected = torch.zeros(len(images), dtype=torch.bool)
        self._similarity: Tensor | None = None
        self._upright: bool | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def pixel_scale(self) -> float:
        """Factor of thresholds that are stated for a shortest side of 480 pixels."""
        return min(self.height, self.width) / 480

    def camera(self, focal_original_px: float) -> PinholeCamera:
        """The shared camera in pixels of the network image; principal point at the centre."""
        image_set = self.images.image_set
        camera = PinholeCamera.centred(
            focal_original_px, image_set.width, image_set.height, device=self.device
        )
        return camera.scaled(self.images.scale_xy)

    def focal_original_px(self, camera: PinholeCamera) -> float:
        """Focal length of the image files for a camera of the network image."""
        return float(camera.focal_px[0]) / self.images.scale_xy[0]

    def features(self, indices: Int[Tensor, " b"]) -> Float[Tensor, "b c rows cols"]:
        """Features of the plain images, on the device."""
        return self.cache.features(
            indices.cpu(), lambda rows: encode(self.encoder, self.images.batch(rows, self.device))
        )

    def fill_buffer(self, indices: Int[Tensor, " b"]) -> None:
        """Makes the training patches of these images, if they are not there yet.

        Several ranks, which must all be called so, encode some of the images each and give them to the others.
        """
        missing, size = self.buffer.missing(indices), self.config.buffer.encode_batch
        for turn, part in enumerate(_reported(missing, size, "images")):
            if turn % self.ranks.count != self.ranks.rank:
                continue
            # A stream per part: what an image's patches are does not depend on what was encoded before.
            stream = random_stream(self.seed, "buffer", int(part[0]))
            self.buffer.fill(
                part,
                lambda frames: self.images.batch(frames, self.device),
                self.features,
                self.encoder,
                self.config.augmentation,
                stream,
            )
        if self.ranks.count > 1 and len(missing):
            for turn, part in enumerate(missing.split(size)):
                self.buffer.take_over(part, turn % self.ranks.count, self.ranks)

    def keypoints(self, indices: Int[Tensor, " b"]) -> Keypoints:
        """All keypoints, with those of these images present; positions are in pixels of the network image."""
        indices = indices.cpu().unique()
        missing = indices[~self._detected[indices]]
        scale = torch.tensor(
            [
                self.width / self._keypoint_images.pixels.shape[-1],
                self.height / self._keypoint_images.pixels.shape[-2],
            ],
            device=self.device,
        )
        for part in _reported(missing, 16, "images with keypoints"):
            images = self._keypoint_images.batch(part, self.device)
            found = detect_keypoints(images, self.config.keypoints, upright=self.upright)
            if self._keypoints is None:
                self._keypoints = _empty_like(found, len(self))
            rows = part.to(self.device)
            self._keypoints.pixels[rows] = found.pixels * scale
            self._keypoints.descriptors[rows] = found.descriptors
            self._keypoints.scores[rows] = found.scores
            self._keypoints.valid[rows] = found.valid
            self._detected[part] = True
        assert self._keypoints is not None, "keypoints of no image at all were asked for"
        return self._keypoints

    @property
    def upright(self) -> bool:
        """Whether keypoints are described without an orientation; found out once if the settings leave it open."""
        if self._upright is None:
            wish = self.config.orientation
            self._upright = wish.upright == "yes" or (
                wish.upright == "auto" and self._matches_better_upright()
            )
        return self._upright

    def _matches_better_upright(self) -> bool:
        config, stream = self.config, random_stream(self.seed, "orientation")
        pairs = sample_pairs(self.similarity(), config.orientation.pairs, stream)
        if not len(pairs):
            return False
        used, rows = pairs.unique(return_inverse=True)
        # The small pictures tell as well, in a fraction of the time.
        images = self.images.batch(used, self.device)
        return upright_matches_better(images, rows.to(self.device), config.keypoints, config.orientation)

    def similarity(self) -> Float[Tensor, "n n"]:
        """How much each pair of images looks alike, by global descriptors of all features."""
        if self._similarity is None:
            for part in _reported(torch.arange(self.cache.kept), AT_ONCE, "images encoded"):
                self.features(part)
            descriptors = global_descriptors(self.features, len(self), random_stream(self.seed, "retrieval"))
            self._similarity = descriptors @ descriptors.T
        return self._similarity


def _reported(indices: Int[Tensor, " n"], size: int, unit: str) -> Iterator[Tensor]:
    """In pieces of at most ``size``, each reported when it has been worked on; no piece at all of nothing.

    ``Tensor.split`` gives one empty piece of nothing.
    """
    done = 0
    for part in indices.split(size) if len(indices) else ():
        yield part
        done += len(part)
        report(done, len(indices), unit)


def _empty_like(found: Keypoints, images: int) -> Keypoints:
    def grown(x: Tensor) -> Tensor:
        return x.new_zeros(images, *x.shape[1:])

    return Keypoints(grown(found.pixels), grown(found.descriptors), grown(found.scores), grown(found.valid))
