"""Each stage that meets an error of memory goes on in smaller pieces and ends with the same result."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from reference.analytic_world import make_world
from reference.posed_scene import make_scene
from torch import Tensor

from acezero_gpu.mapping import (
    CalibrationConfig,
    FrameTable,
    PoseRefinementConfig,
    ScheduleConfig,
    TrainingConfig,
    train_map,
)
from acezero_gpu.mapping.training_step import TrainingStep
from acezero_gpu.network import Head, HeadConfig, SceneMap, encode
from acezero_gpu.network import keypoints as keypoints_module
from acezero_gpu.network.keypoints import KeypointConfig, Keypoints, match_pairs
from acezero_gpu.registration import RegistrationConfig, register_images
from acezero_gpu.runtime import memory


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(memory, "_halvings", {})
    yield


def limited(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, most: int, argument: int) -> list[int]:
    """A function that has memory for so many rows of one of its arguments; the numbers that it was called with."""
    inner, sizes = getattr(owner, name), []

    def outer(*arguments: Any, **options: Any) -> Any:
        rows = arguments[argument]
        rows = rows.features if hasattr(rows, "features") else rows
        sizes.append(len(rows))
        result = inner(*arguments, **options)
        if len(rows) > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return result

    monkeypatch.setattr(owner, name, outer)
    return sizes


def test_a_batch_of_the_mapping_in_two_pieces_gives_the_same_map(monkeypatch: pytest.MonkeyPatch) -> None:
    """The failed attempt has left gradients behind, which must not count."""
    world = make_world()
    config = TrainingConfig(
        head=HeadConfig(width=48, blocks=0),
        schedule=ScheduleConfig(name="constant", iterations=6, lr_max=0.001),
        poses=PoseRefinementConfig("mlp", zero_initialised=False),
        calibration=CalibrationConfig(refine=True),
        batch_size=512,
        report_every=2,
    )
    start = world.disturbed_poses(torch.Generator().manual_seed(2))
    table = FrameTable(torch.arange(len(world)), start, world.camera)

    def train() -> Any:
        return train_map(world.buffer(), table, config, generator=torch.Generator().manual_seed(0))

    whole = train()
    sizes = limited(monkeypatch, TrainingStep, "_backward", 256, 1)
    pieces = train()
    assert sizes == [512, *[256] * 12]
    torch.testing.assert_close(pieces.cam_from_world, whole.cam_from_world, atol=2e-4, rtol=0)
    torch.testing.assert_close(pieces.camera.focal_px, whole.camera.focal_px, atol=0.01, rtol=0)
    assert [entry.loss for entry in pieces.log] == pytest.approx(
        [entry.loss for entry in whole.log], rel=1e-3
    )
    assert [entry.inlier_share for entry in pieces.log] == pytest.approx(
        [entry.inlier_share for entry in whole.log], abs=0.004
    )


class FirstChannels(SceneMap):
    """Finds the scene coordinate of a cell in its feature; has memory for two images."""

    def scene_coordinates(self, features: Tensor, chunk_cells: int = 65536) -> Tensor:
        if len(features) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return features[:, :3].flatten(2).transpose(1, 2)[None]


def test_registration_in_smaller_batches_finds_the_same_poses() -> None:
    scene = make_scene(5, rows=15, columns=20, device=torch.device("cpu"), noise_px=1.0, outliers=0.4)
    features = scene.points.transpose(1, 2).unflatten(2, (15, 20))

    def register(batch: int) -> Any:
        return register_images(
            lambda part: features[part],
            torch.arange(5),
            FirstChannels(Head(3, HeadConfig(width=4), torch.zeros(3)), "truth", 480, 1.0),
            scene.camera,
            RegistrationConfig(batch=batch),
            stride=32,
            pixel_scale=1.0,
            generator=torch.Generator().manual_seed(0),
        )

    fits, halved = register(2), register(5)
    torch.testing.assert_close(halved.cam_from_world, fits.cam_from_world, atol=1e-5, rtol=0)
    assert torch.equal(halved.inlier_count, fits.inlier_count)
    assert (fits.inlier_count > 100).all()


def test_encoding_in_smaller_chunks_gives_the_same_features() -> None:
    class Encoder:
        stride, channels, identifier = 8, 2, "test"
        seen: tuple[int, ...] = ()

        def __call__(self, images: Tensor) -> Tensor:
            self.seen = (*self.seen, len(images))
            if len(images) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return torch.nn.functional.avg_pool2d(images, 8).expand(-1, 2, -1, -1)

    encoder, images = Encoder(), torch.rand(7, 1, 16, 24, generator=torch.Generator().manual_seed(0))
    features = encode(encoder, images)
    assert encoder.seen == (7, 4, 2, 2, 2, 1)
    assert torch.equal(features, torch.cat([encoder(image[None]) for image in images]).half())


def test_pairs_in_smaller_chunks_have_the_same_matches(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    descriptors = torch.nn.functional.normalize(torch.rand(4, 30, 128, generator=generator), dim=-1)
    descriptors[1:, :20] = descriptors[:1, :20]
    keypoints = Keypoints(
        torch.rand(4, 30, 2, generator=generator),
        descriptors,
        torch.ones(4, 30),
        torch.ones(4, 30, dtype=torch.bool),
    )
    pairs, config = torch.combinations(torch.arange(4), 2), KeypointConfig(matched=30)
    whole = match_pairs(keypoints, pairs, config)
    sizes = limited(monkeypatch, keypoints_module, "_match_chunk", 2, 0)
    halved = match_pairs(keypoints, pairs, config)
    assert len(sizes) > 3 and max(sizes[-3:]) <= 2
    assert torch.equal(halved.index_b, whole.index_b)
    assert (whole.index_b >= 0).sum() >= 20 * 6
