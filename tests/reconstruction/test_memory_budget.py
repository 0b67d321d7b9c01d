"""A memory budget: how it is divided, and that what is made stays within it."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from reference.rendered_room import HEIGHT, WIDTH, tiny_bank, walked_room

from acezero_gpu.mapping import BufferConfig, FeatureBuffer
from acezero_gpu.network import DenseSiftEncoder, encode
from acezero_gpu.network import keypoints as keypoints_module
from acezero_gpu.network.keypoints import KeypointConfig
from acezero_gpu.reconstruction import ImageBank
from acezero_gpu.reconstruction.feature_cache import FeatureCache
from acezero_gpu.reconstruction.matching import MatchStore, all_pairs
from acezero_gpu.reconstruction.memory_budget import divided, working_bytes
from acezero_gpu.runtime import limited_working_memory

IMAGES, CELLS, CHANNELS = 6, (HEIGHT // 8) * (WIDTH // 8), DenseSiftEncoder().channels
PATCH_BYTES, IMAGE_BYTES = 2 * CHANNELS + 8, 2 * CHANNELS * CELLS
EVERYTHING = IMAGES * (IMAGE_BYTES + 3 * CELLS * PATCH_BYTES)
"""Features of all images, and three passes of patches."""


def bank_within(budget_bytes: int, device: torch.device) -> ImageBank:
    images = walked_room().subset(list(range(IMAGES)))
    return images.bank(device, replace(tiny_bank(), memory_budget_bytes=budget_bytes))


@pytest.mark.parametrize("share", [0.3, 0.5, 0.8])
def test_what_is_made_takes_the_budget_and_no_more(device: torch.device, share: float) -> None:
    """Counted by the bytes of the tensors, with the pairs that are matched at once."""
    budget = int(share * EVERYTHING)
    bank = bank_within(budget, device)
    bank.features(torch.arange(IMAGES))
    bank.fill_buffer(torch.arange(IMAGES))
    kept = bank.buffer.features.nbytes + bank.buffer.pixels.nbytes + bank.cache.device_bytes
    assert bank.buffer.bytes_needed == bank.buffer.features.nbytes + bank.buffer.pixels.nbytes
    working = working_bytes(budget)
    assert working is not None
    assert 0.9 * budget < kept + working <= budget


def test_a_large_budget_changes_nothing(device: torch.device) -> None:
    plain, roomy = bank_within(0, device), bank_within(2 * EVERYTHING, device)
    assert roomy.cache.kept == plain.cache.kept == IMAGES
    assert roomy.buffer.bytes_needed == plain.buffer.bytes_needed == EVERYTHING - IMAGES * IMAGE_BYTES


def test_features_that_are_not_kept_are_the_same(device: torch.device) -> None:
    bank, plain = bank_within(EVERYTHING // 3, device), bank_within(0, device)
    if device.type == "cpu":
        assert 0 < bank.cache.kept < IMAGES
    for rows in ([5, 0, 3], [0, 1, 2, 3, 4, 5], [4]):
        indices = torch.tensor(rows)
        torch.testing.assert_close(bank.features(indices), plain.features(indices), atol=2e-3, rtol=0)
    torch.testing.assert_close(bank.similarity(), plain.similarity(), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("near", "spills", "encoded"), [(7, False, 7), (3, False, 3 + 2 * 4), (3, True, 7), (0, True, 7)]
)
def test_a_cache_encodes_once_what_it_has_room_for(
    device: torch.device, near: int, spills: bool, encoded: int
) -> None:
    images = torch.rand(7, 1, 24, 32, generator=torch.Generator().manual_seed(0)).to(device)
    encoder, calls = DenseSiftEncoder().to(device), []
    shape = (encoder.channels, 3, 4)
    cache = FeatureCache(7, shape, near * 2 * encoder.channels * 12 + 5, device, spills=spills)

    def made(rows: torch.Tensor) -> torch.Tensor:
        calls.append(len(rows))
        return encode(encoder, images[rows.to(device)])

    order = torch.tensor([6, 2, 0, 5, 1, 3, 4])
    first, again = cache.features(order, made), cache.features(order, made)
    assert cache.device_bytes == near * 2 * encoder.channels * 12
    assert sum(calls) == encoded
    assert torch.equal(first, again)
    torch.testing.assert_close(first, encode(encoder, images[order.to(device)]), atol=2e-3, rtol=0)


def test_pairs_are_matched_within_the_working_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    bank = bank_within(0, torch.device("cpu"))
    bank.keypoints(torch.arange(IMAGES))  # matches a few pairs to see how they are best described
    sizes, inner = [], keypoints_module._match_chunk

    def counted(a: torch.Tensor, *others: object) -> tuple[torch.Tensor, torch.Tensor]:
        sizes.append(len(a))
        return inner(a, *others)

    monkeypatch.setattr(keypoints_module, "_match_chunk", counted)
    each = 2 * 4 * min(400, KeypointConfig().matched) ** 2
    with limited_working_memory(working_bytes(8 * 4 * each)):
        MatchStore(bank).ensure(all_pairs(torch.arange(IMAGES)))
    assert sizes == [4, 4, 4, 3]


@given(
    budget=st.integers(10**6, 10**11),
    images=st.integers(2, 3000),
    cells=st.integers(50, 5000),
    channels=st.sampled_from([128, 512]),
    cache=st.sampled_from([0, 2**30, 2**32]),
    most=st.sampled_from([10**5, 8 * 10**6]),
)
def test_no_division_exceeds_the_budget(
    budget: int, images: int, cells: int, channels: int, cache: int, most: int
) -> None:
    config = BufferConfig(max_patches=most)
    sizes = {"images": images, "cells": cells, "channels": channels}
    try:
        split = divided(budget, cache, config, buffer_on_device=True, **sizes)
    except ValueError as error:
        assert budget < 4 * 64 * images * (2 * channels + 8)
        assert "--memory-budget: too little for" in str(error)
        return
    patches = FeatureBuffer.slots(images, cells, split.buffer)
    taken = patches * (2 * channels + 8) + split.feature_cache_bytes + (working_bytes(budget) or 0)
    assert taken <= budget
    wanted = FeatureBuffer.slots(images, cells, config) * (2 * channels + 8)
    if wanted > budget and cache == 2**32:
        # What is lost comes of whole patches per pass, and the features' last image.
        assert taken > 0.9 * budget - images * 11 * (2 * channels + 8)
    assert split.feature_cache_bytes <= cache
    assert split.buffer.max_patches <= most


def test_patches_in_main_memory_leave_the_device_to_features() -> None:
    sizes = {"images": 100, "cells": 4800, "channels": 128}
    here = divided(10**8, 2**32, BufferConfig(), buffer_on_device=True, **sizes)
    away = divided(10**8, 2**32, BufferConfig(), buffer_on_device=False, **sizes)
    assert away.buffer == BufferConfig()
    assert away.feature_cache_bytes == 10**8 - working_bytes(10**8)
    assert here.feature_cache_bytes < 0.6 * away.feature_cache_bytes
    assert here.buffer.max_patches < BufferConfig().max_patches


def test_the_budget_that_is_asked_for_is_enough() -> None:
    sizes = {"images": 100, "cells": 4800, "channels": 128}
    with pytest.raises(ValueError, match="give at least 4MB"):
        divided(10**6, 2**32, BufferConfig(), buffer_on_device=True, **sizes)
    divided(4 * 10**6, 2**32, BufferConfig(), buffer_on_device=True, **sizes)
