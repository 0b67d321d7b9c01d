"""Pairs of views show the same place where their matches say so."""

import numpy as np
import pytest
import torch
from torch import Tensor

from acezero_gpu.encoder_training.homography_pairs import HomographyConfig, homography_pairs
from acezero_gpu.encoder_training.pairs import TrainingPairs
from acezero_gpu.encoder_training.photometric import PhotometricChanges, PhotometricConfig
from acezero_gpu.encoder_training.pictures import load_pictures, picture_paths
from acezero_gpu.encoder_training.scene_pairs import SceneConfig, render_scenes, scene_pairs
from acezero_gpu.geometry import cell_centres_px
from acezero_gpu.runtime import InputError

SIDE, STRIDE = 64, 8


def ramp(height: int, width: int) -> Tensor:
    """A picture whose red and green say where a pixel lies."""
    column = (torch.arange(width) + 0.5) / width
    row = (torch.arange(height) + 0.5) / height
    rgb = torch.stack(
        [column.expand(height, width), row[:, None].expand(height, width), torch.full((height, width), 0.5)]
    )
    return (rgb * 255).round().to(torch.uint8)


def pyramid(picture: Tensor) -> tuple[Tensor, ...]:
    levels = [picture]
    for _ in range(2):
        levels.append(torch.nn.functional.avg_pool2d(levels[-1].float(), 2).round().to(torch.uint8))
    return tuple(levels)


def sampled(images: Tensor, pixels: Tensor) -> Tensor:
    grid = 2 * pixels / images.shape[-1] - 1
    return torch.nn.functional.grid_sample(images, grid[:, None], align_corners=False)[:, :, 0]


def differences(pairs: TrainingPairs) -> tuple[Tensor, Tensor]:
    """Colour at the cells' centres less that at their matches, both ways."""
    cells = cell_centres_px(SIDE // STRIDE, SIDE // STRIDE, STRIDE).expand(len(pairs), -1, 2)
    forth = (sampled(pairs.a, cells) - sampled(pairs.b, pairs.b_of_a)).abs().amax(1)[pairs.seen_a]
    back = (sampled(pairs.b, cells) - sampled(pairs.a, pairs.a_of_b)).abs().amax(1)[pairs.seen_b]
    return forth, back


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_homographies_match_what_they_say(generator, strength):
    config = HomographyConfig(
        1 + strength, 30 * strength, 0.2 * strength, 0.25 * strength, min_zoom=1.0, layered_share=0.0
    )
    pictures = [pyramid(ramp(160, 200)), pyramid(ramp(100, 90)), pyramid(ramp(64, 64))]
    pairs = homography_pairs(pictures, [0, 1, 2, 0, 1, 0], SIDE, STRIDE, config, generator)
    assert pairs.a.shape == pairs.b.shape == (6, 3, SIDE, SIDE)
    assert pairs.seen_a.any(1).all() and pairs.seen_b.any(1).all()
    for difference in differences(pairs):
        # Linear in the picture; 8 bits, coarser levels and the views' edges cost a little.
        assert difference.median() < 0.01
        assert difference.quantile(0.95) < 0.04
    if strength == 0:
        torch.testing.assert_close(pairs.a, pairs.b)
    else:
        assert not pairs.seen_a.all()
        assert (pairs.a - pairs.b).abs().mean() > 0.02


def test_foregrounds_match_themselves_and_hide_what_is_behind(generator):
    """The foreground is blue where the background is not, so that a match across the two would show."""
    back, front = ramp(160, 200), ramp(180, 150)
    back[2], front[2] = 0, 255
    pictures = [pyramid(back), pyramid(front)]
    config = HomographyConfig(layered_share=1.0, parallax=0.3)
    # Some have the same picture in front as behind, where nothing can be told apart.
    pairs = homography_pairs(pictures, [0] * 12, SIDE, STRIDE, config, generator)
    cells = cell_centres_px(SIDE // STRIDE, SIDE // STRIDE, STRIDE).expand(12, -1, 2)
    blue = sampled(pairs.a, cells)[:, 2]
    assert ((blue > 0.9).any(1) & (blue < 0.1).any(1)).sum() >= 3
    for difference in differences(pairs):
        assert difference.median() < 0.02
    there = sampled(pairs.b, pairs.b_of_a)[:, 2]
    clear = pairs.seen_a & ((blue - 0.5).abs() > 0.49) & ((there - 0.5).abs() > 0.49)
    assert (((blue > 0.5) == (there > 0.5)) | ~clear).all(), "no match from one layer to the other"
    assert (clear & (blue > 0.5)).any() and (clear & (blue < 0.5)).any()


def test_the_foreground_moves_by_itself(generator):
    """The camera stands still: what is behind stays, what is in front does not."""
    pictures = [pyramid(ramp(160, 200)), pyramid(ramp(180, 150))]
    config = HomographyConfig(1.0, 0.0, 0.0, 0.0, layered_share=1.0, parallax=0.3)
    pairs = homography_pairs(pictures, [0] * 12, SIDE, STRIDE, config, generator)
    moved = (pairs.b_of_a - cell_centres_px(SIDE // STRIDE, SIDE // STRIDE, STRIDE)).norm(dim=-1)
    still = moved < 1e-3
    assert 0.2 < still.float().mean() < 0.95
    assert (moved[~still] > 0.5).float().mean() > 0.8
    assert moved.max() < 0.7 * SIDE


def test_the_same_stream_gives_the_same_pairs():
    pictures = [pyramid(ramp(160, 200))]
    made = [
        homography_pairs(
            pictures, [0, 0], SIDE, STRIDE, HomographyConfig(), torch.Generator().manual_seed(seed)
        )
        for seed in (1, 1, 2)
    ]
    assert torch.equal(made[0].a, made[1].a) and torch.equal(made[0].b_of_a, made[1].b_of_a)
    assert not torch.equal(made[0].a, made[2].a)


def test_rooms_match_what_they_say(generator):
    config = SceneConfig(scenes=1, views=4, texels_per_m=40)
    scenes = render_scenes([pyramid(ramp(300, 400))], SIDE, config, 0)
    pairs = scene_pairs(scenes, 8, STRIDE, config, generator)
    assert pairs.seen_a.float().mean() > 0.3
    assert not pairs.seen_a.all()
    for difference in differences(pairs):
        # Light does not move with the camera; edges of surfaces and of the pieces of picture differ.
        assert difference.median() < 0.03
    shuffled = pairs.b[torch.arange(7, -1, -1)]
    wrong = differences(pairs.with_views(pairs.a, shuffled))[0]
    assert wrong.median() > 2 * differences(pairs)[0].median()


def test_a_view_is_never_paired_with_itself(generator):
    config = SceneConfig(scenes=1, views=3, reach=3, texels_per_m=30)
    scenes = render_scenes([pyramid(ramp(300, 400))], SIDE, config, 0)
    pairs = scene_pairs(scenes, 24, STRIDE, config, generator)
    assert (pairs.a - pairs.b).abs().flatten(1).amax(1).min() > 0


def test_changes_depend_on_their_own_stream_only(generator):
    images = torch.rand(4, 3, SIDE, SIDE, generator=generator)
    changes = PhotometricChanges(PhotometricConfig())
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first = changes(images, torch.Generator().manual_seed(3))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(first, changes(images, torch.Generator().manual_seed(3)))
    assert not torch.equal(first, changes(images, torch.Generator().manual_seed(4)))
    assert first.shape == (4, 1, SIDE, SIDE) and first.min() >= 0 and first.max() <= 1
    plain = PhotometricChanges(PhotometricConfig(strength=0.0))(images, generator)
    torch.testing.assert_close(plain[:, 0], images.permute(0, 2, 3, 1) @ torch.tensor([0.299, 0.587, 0.114]))


def test_pictures_are_read_and_bad_ones_left_out(tmp_path, caplog):
    import imageio.v3 as iio

    good, small, broken = tmp_path / "b.png", tmp_path / "c.png", tmp_path / "a.jpg"
    iio.imwrite(good, ramp(300, 280).permute(1, 2, 0).numpy())
    iio.imwrite(small, np.zeros((40, 40, 3), np.uint8))
    broken.write_bytes(b"no picture")
    paths = picture_paths([tmp_path])
    assert [path.name for path in paths] == ["a.jpg", "b.png", "c.png"]
    pictures = load_pictures(paths)
    assert [tuple(level.shape) for level in pictures[0]] == [(3, 300, 280), (3, 150, 140), (3, 75, 70)]
    assert torch.equal(pictures[0][0], ramp(300, 280))
    assert "a.jpg" in caplog.text and "c.png" in caplog.text
    with pytest.raises(InputError, match="none of the 2 training pictures"):
        load_pictures([broken, small])
    with pytest.raises(InputError, match="no such folder"):
        picture_paths([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no training pictures"):
        picture_paths([tmp_path / "empty"])
