"""How large the map of the last round is, by the number of images."""

from dataclasses import replace

import pytest
import torch

from acezero_gpu.cli.settings import heads_flags, resolve_settings
from acezero_gpu.config import preset
from acezero_gpu.mapping import PoseRefinementConfig, TrainingConfig
from acezero_gpu.network import HeadConfig, make_encoder
from acezero_gpu.reconstruction import FinalMapConfig, LoopConfig
from acezero_gpu.reconstruction.final_map import final_training

COMMON = TrainingConfig(head=HeadConfig(width=512, blocks=2), batch_size=5000, inlier_px=7.0)


def test_what_is_not_said_is_as_in_all_rounds():
    assert FinalMapConfig().training(COMMON, heads=3) == COMMON
    smaller = FinalMapConfig(width=64, batch_size=300).training(COMMON, heads=3)
    assert (smaller.head, smaller.batch_size, smaller.inlier_px) == (HeadConfig(64, 2), 300, 7.0)


@pytest.mark.parametrize("heads, batch", [(1, 900), (3, 900), (4, 675), (5, 540), (6, 450), (16, 450)])
def test_many_heads_share_their_batches_down_to_a_half(heads, batch):
    config = FinalMapConfig(batch_size=900, full_batches=3)
    assert config.training(COMMON, heads).batch_size == batch


@pytest.mark.parametrize("images, heads", [(1, 1), (20, 1), (31, 1), (32, 2), (125, 7), (1000, 16)])
def test_the_fast_preset_has_a_head_for_sixteen_images(images, heads):
    said: list[str] = []
    loop = preset("fast").loop
    held = PoseRefinementConfig(name="none")
    training, found = final_training(loop.final_map, loop.training, held, images, said.append)
    assert found == heads
    assert (training.head.width, training.batch_size) == (128, {1: 1024, 2: 1024, 7: 585, 16: 512}[heads])
    assert said == [f"{images} images teach {heads} heads, 16 at least for each"]


def test_the_other_presets_have_one_head_and_say_nothing():
    loop, said = LoopConfig(), []
    found = final_training(loop.final_map, loop.training, loop.training.poses, 1000, said.append)
    assert found == (loop.training, 1)
    assert said == []


def test_poses_that_are_reestimated_leave_one_head_and_that_is_said():
    said: list[str] = []
    loop, moving = preset("fast").loop, PoseRefinementConfig(name="lm")
    training, heads = final_training(loop.final_map, loop.training, moving, 125, said.append)
    assert (heads, training.batch_size) == (1, 1024)
    assert said == ["one head instead of 7, because poses are re-estimated in its map (poses.name=lm)"]


def test_what_the_fast_preset_says_is_for_features_that_see_one_place():
    size = preset("fast").loop.final_map
    assert size.with_encoder(make_encoder("dense-sift", torch.device("cpu")).identifier) == size
    assert size.with_encoder(make_encoder("acezero", torch.device("cpu")).identifier) == FinalMapConfig()
    asked = replace(size, encoder="")
    assert asked.with_encoder("another") == asked


def test_heads_that_are_asked_for_are_for_every_encoder():
    flags = heads_flags(5)
    size = resolve_settings("cpu", "fast", None, flags, []).config.loop.final_map
    assert (size.heads, size.with_encoder("another").heads_for(80)) == (5, 5)
    assert set(heads_flags(None).values()) == {None}
