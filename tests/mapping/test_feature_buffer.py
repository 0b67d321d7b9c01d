"""The training buffer: what is encoded, where its patches lie, and what is drawn from it."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from acezero_gpu.data.augmentation import AugmentationConfig
from acezero_gpu.geometry import cell_centres_px
from acezero_gpu.mapping import BufferConfig, FeatureBuffer

HEIGHT, WIDTH = 64, 96
ROWS, COLUMNS = HEIGHT // 8, WIDTH // 8
GEOMETRY = AugmentationConfig(brightness=0.0, contrast=0.0)


class GreyEncoder:
    """Mean grey of each cell, in two channels so that half precision keeps sixteen bits of it."""

    stride = 8
    channels = 2
    identifier = "grey"

    def __init__(self) -> None:
        self.encoded = 0

    def __call__(self, images: Tensor) -> Tensor:
        self.encoded += len(images)
        rows, columns = images.shape[-2] // 8, images.shape[-1] // 8
        mean = torch.nn.functional.avg_pool2d(images[..., : 8 * rows, : 8 * columns], 8)
        coarse = mean.half().float()
        return torch.cat([coarse, mean - coarse], dim=1)


class Source:
    """Image 0 is as bright as u says, image 1 as v says, the others are flat, each in its own grey."""

    def __init__(self, images: int, device: torch.device) -> None:
        v, u = torch.meshgrid(
            (torch.arange(HEIGHT) + 0.5) / HEIGHT, (torch.arange(WIDTH) + 0.5) / WIDTH, indexing="ij"
        )
        flat = [torch.full_like(u, 0.1 + 0.8 * index / images) for index in range(2, images)]
        self.images = torch.stack([u, v, *flat])[:, None].to(device)
        self.encoder = GreyEncoder()
        self.loaded: list[int] = []

    def load(self, indices: Tensor) -> Tensor:
        self.loaded += indices.tolist()
        return self.images[indices.to(self.images.device)]

    def plain(self, indices: Tensor) -> Tensor:
        return self.encoder(self.images[indices.to(self.images.device)]).half()


def filled(
    source: Source,
    frames: list[int],
    config: BufferConfig,
    seed: int = 0,
    buffer: FeatureBuffer | None = None,
) -> FeatureBuffer:
    device = source.images.device
    if buffer is None:
        buffer = FeatureBuffer.plan(len(source.images), ROWS * COLUMNS, 2, config, device)
    generator = torch.Generator().manual_seed(seed)
    buffer.fill(torch.tensor(frames), source.load, source.plain, source.encoder, GEOMETRY, generator)
    return buffer


@given(
    images=st.integers(1, 5000),
    cells=st.integers(1, 5000),
    samples=st.integers(1, 2000),
    passes=st.integers(1, 12),
    most=st.integers(1, 1_000_000),
)
def test_a_plan_keeps_its_bounds(images, cells, samples, passes, most):
    config = BufferConfig(samples_per_pass=samples, max_passes=passes, max_patches=most)
    buffer = FeatureBuffer.plan(images, cells, 8, config, torch.device("cpu"))
    assert 1 <= buffer.passes <= passes
    assert 1 <= buffer.per_pass <= min(samples, cells)
    slots = buffer.passes * buffer.per_pass
    assert images * slots <= max(most, images)
    # Nothing is left out that would still fit.
    assert buffer.passes == passes or images * (slots + buffer.per_pass) > most


def test_it_takes_the_memory_that_it_announces(device):
    buffer = filled(Source(3, device), [0], BufferConfig(samples_per_pass=20, max_passes=3))
    taken = sum(x.numel() * x.element_size() for x in (buffer.features, buffer.pixels))
    assert buffer.bytes_needed == taken


def test_no_image_is_encoded_twice(device):
    source, config = Source(6, device), BufferConfig(samples_per_pass=20, max_passes=3)
    buffer = filled(source, [0, 3], config)
    assert (sorted(source.loaded), source.encoder.encoded) == ([0, 3], 2 * 3)
    assert buffer.missing(torch.tensor([3, 1, 0, 2])).tolist() == [1, 2]
    before = buffer.features[[0, 3]].clone(), buffer.pixels[[0, 3]].clone()
    filled(source, [3, 5, 0], config, seed=9, buffer=buffer)
    assert (sorted(source.loaded), source.encoder.encoded) == ([0, 3, 5], 3 * 3)
    filled(source, [0, 3, 5], config, seed=9, buffer=buffer)
    assert source.encoder.encoded == 3 * 3
    assert torch.equal(buffer.features[[0, 3]], before[0])
    assert torch.equal(buffer.pixels[[0, 3]], before[1])


def test_the_first_pass_is_the_plain_image_without_repetition(device):
    every = filled(Source(2, device), [0, 1], BufferConfig(max_passes=1))
    assert every.per_pass == ROWS * COLUMNS
    centres = {tuple(pixel) for pixel in cell_centres_px(ROWS, COLUMNS, 8).tolist()}
    assert {tuple(pixel) for pixel in every.pixels[0].tolist()} == centres
    some = filled(Source(2, device), [0, 1], BufferConfig(max_passes=1, samples_per_pass=40))
    drawn = [tuple(pixel) for pixel in some.pixels[0].tolist()]
    assert len(set(drawn)) == len(drawn) == 40
    assert set(drawn) < centres
    assert not torch.equal(some.pixels[0], some.pixels[1])


def test_pixels_are_those_that_the_features_were_made_from(device):
    """Brightness grows with u in one image and with v in the other, so a patch tells where it lies."""
    buffer = filled(Source(2, device), [0, 1], BufferConfig(samples_per_pass=80, max_passes=8))
    for image, axis, extent in ((0, 0, WIDTH), (1, 1, HEIGHT)):
        pixels = buffer.pixels[image].cpu()
        told = buffer.features[image].float().sum(-1).cpu() * extent
        assert ((pixels >= 0) & (pixels < torch.tensor([WIDTH, HEIGHT]))).all()
        # A cell of a reduced image is up to 12 pixels wide and turned; nearer to the border it sees reflections.
        away = ((pixels > 13) & (pixels < torch.tensor([WIDTH, HEIGHT]) - 13)).all(-1)
        error = (told - pixels[:, axis])[away].abs()
        assert away.sum() > 150
        assert error.max() < 0.1
        assert (pixels / 8 % 1 - 0.5).abs().max() > 0.2, "augmented patches lie between the cells"


def test_patches_come_from_the_given_frames_alone_and_evenly(device, generator):
    source = Source(8, device)
    buffer = filled(source, [2, 4, 7], BufferConfig(samples_per_pass=30, max_passes=2))
    frames = torch.tensor([7, 2, 4])
    batch = buffer.sample(frames, 6000, generator)
    counts = torch.bincount(batch.frames.cpu(), minlength=8)
    assert counts.sum() == 6000
    # 2000 expected, standard deviation 37.
    assert (counts[[2, 4, 7]] > 1800).all()
    greys = source.images[:, 0, 0, 0].cpu()[batch.frames.cpu()]
    torch.testing.assert_close(batch.features.float().sum(-1).cpu(), greys, atol=1e-3, rtol=0)
    assert len(batch.pixels.unique(dim=0)) > 100, "all slots are drawn from"
    assert batch.features.device.type == device.type


def test_draws_depend_on_the_generator_alone(device):
    buffers = [
        filled(Source(4, device), [0, 1, 2], BufferConfig(max_passes=3), seed=seed) for seed in (1, 1, 2)
    ]
    assert torch.equal(buffers[0].pixels[:3], buffers[1].pixels[:3])
    assert not torch.equal(buffers[0].pixels[:3], buffers[2].pixels[:3])
    batches = [
        buffers[0].sample(torch.tensor([0, 2]), 50, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)
    ]
    assert torch.equal(batches[0].pixels, batches[1].pixels)
    assert not torch.equal(batches[0].pixels, batches[2].pixels)


def test_patches_kept_in_main_memory_are_the_same(device, generator):
    here = filled(Source(3, device), [0, 1], BufferConfig(max_passes=2))
    there = filled(Source(3, device), [0, 1], BufferConfig(max_passes=2, device="cpu"))
    assert there.features.device.type == there.pixels.device.type == "cpu"
    first = here.sample(torch.tensor([0, 1]), 64, torch.Generator().manual_seed(3))
    second = there.sample(torch.tensor([0, 1]), 64, torch.Generator().manual_seed(3))
    assert second.features.device.type == device.type
    torch.testing.assert_close(second.pixels, first.pixels)
    torch.testing.assert_close(second.features, first.features)


def test_nothing_to_fill_is_nothing_done(device):
    source = Source(3, device)
    buffer = FeatureBuffer.plan(3, ROWS * COLUMNS, 2, BufferConfig(), device)
    empty = torch.zeros(0, dtype=torch.long)
    buffer.fill(empty, source.load, source.plain, source.encoder, GEOMETRY, torch.Generator())
    assert source.encoder.encoded == 0
