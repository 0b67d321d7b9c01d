"""An image with a depth map starts a reconstruction by its keypoints: metric, and with the right focal length."""

from dataclasses import replace

import pytest
import torch
from reference.rendered_room import Room, walked_room

from acezero_gpu.data import DepthSource
from acezero_gpu.geometry import PinholeCamera, camera_centres, rotation_angle_deg
from acezero_gpu.mapping import ScheduleConfig, TrainingConfig
from acezero_gpu.network import HeadConfig
from acezero_gpu.reconstruction import ImageBank, JointRefinementConfig, LoopConfig
from acezero_gpu.reconstruction.depth_seed import DepthSeed, grow_depth_seed
from acezero_gpu.reconstruction.matching import MatchStore
from acezero_gpu.reconstruction.rounds import Loop
from acezero_gpu.reconstruction.seed_round import first_round
from acezero_gpu.runtime import StageTimer

CONFIG = JointRefinementConfig()
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def room() -> Room:
    return walked_room().subset(list(range(4, 14)))


@pytest.fixture(scope="module")
def bank(room: Room) -> ImageBank:
    return room.bank(CPU)


@pytest.fixture(scope="module")
def matches(bank: ImageBank) -> MatchStore:
    return MatchStore(bank)


def seed_of(
    room: Room, bank: ImageBank, matches: MatchStore, images: list[int], focal_px: float, factor: float
) -> DepthSeed | None:
    return grow_depth_seed(
        bank,
        matches,
        bank.camera(focal_px),
        {image: room.depth_m[image] for image in images},
        CONFIG,
        max_focal_factor=factor,
        generator=torch.Generator().manual_seed(0),
    )


def test_look_alikes_are_placed_in_metres(room, bank, matches):
    """In the world of the image with depth, without any alignment."""
    found = seed_of(room, bank, matches, [3], float(room.camera.focal_px[0]), 1.0)
    assert found is not None
    assert found.image == 3
    assert len(found.views) >= 6
    assert found.views.tolist() == sorted(found.views.tolist())
    world = torch.eye(4)
    world[:3] = room.cam_from_world[3]
    true = room.cam_from_world[found.views] @ world.inverse()
    error_m = (camera_centres(found.cam_from_world) - camera_centres(true)).norm(dim=-1)
    assert error_m.max() < 0.03
    assert rotation_angle_deg(found.cam_from_world[..., :3], true[..., :3]).max() < 1.0


@pytest.mark.parametrize("factor", [0.6, 1.0, 1.6])
def test_the_focal_length_is_found_to_within_the_step_of_the_sweep(room, bank, matches, factor):
    true_px = float(room.camera.focal_px[0])
    found = seed_of(room, bank, matches, [3, 6], factor * true_px, 2.0)
    assert found is not None
    assert float(found.camera.focal_px[0]) / true_px == pytest.approx(1.0, abs=0.1)


def test_a_focal_length_that_is_known_is_kept(room, bank, matches):
    found = seed_of(room, bank, matches, [3], 1.1 * float(room.camera.focal_px[0]), 1.0)
    assert found is not None
    assert float(found.camera.focal_px[0]) == pytest.approx(1.1 * float(room.camera.focal_px[0]))


def test_the_image_whose_points_place_most_others_is_taken(room, bank, matches):
    """Image 0 stands at the end of the walk; of image 5 only a corner has a depth."""
    corner = torch.zeros_like(room.depth_m[5])
    corner[:20, :20] = room.depth_m[5, :20, :20]
    found = grow_depth_seed(
        bank,
        matches,
        room.camera,
        {5: corner, 0: room.depth_m[0]},
        CONFIG,
        max_focal_factor=1.0,
        generator=torch.Generator().manual_seed(0),
    )
    assert found is not None
    assert found.image == 0


class KnownDepth:
    """Depth maps of two pictures."""

    def __init__(self, room: Room) -> None:
        self.room = room

    def depth_m(self, index: int) -> torch.Tensor | None:
        return self.room.depth_m[index] if index in (3, 6) else None


def loop_with(bank: ImageBank, depth: DepthSource, config: LoopConfig, said: list[str]) -> Loop:
    return Loop(bank, config, 1, StageTimer(CPU), said.append, depth)


HARDLY_TRAINED = LoopConfig(
    training=TrainingConfig(head=HeadConfig(width=32), batch_size=64),
    seed_schedule=ScheduleConfig(iterations=2, warmup_iterations=1, cooldown_iterations=1),
)
"""A map so young that it places nobody."""


def test_no_map_is_needed_where_keypoints_place_the_pictures(room, bank):
    """From a guess of the focal length 9 % too large to all poses, in metres of the depth maps."""
    guess = PinholeCamera.guess(bank.width, bank.height)
    first = first_round(loop_with(bank, KnownDepth(room), HARDLY_TRAINED, []), guess)
    assert first.head is None
    assert first.step.scene_map is None
    assert first.state.registered.all()
    assert float(first.state.camera.focal_px[0]) == pytest.approx(float(room.camera.focal_px[0]), rel=0.03)
    found, true = camera_centres(first.state.cam_from_world), camera_centres(room.cam_from_world)
    # Depths grow with the focal length that the pictures are explained with.
    assert float((found - found[0]).norm() / (true - true[0]).norm()) == pytest.approx(1.0, abs=0.05)


def test_single_images_are_mapped_where_keypoints_place_nobody(room, bank):
    """The log says so, and the one whose map registers most is kept."""
    none = replace(CONFIG, growth=replace(CONFIG.growth, min_inliers=10_000))
    said: list[str] = []
    config = replace(HARDLY_TRAINED, joint=none)
    first = first_round(loop_with(bank, KnownDepth(room), config, said), room.camera)
    assert "place no further image; 2 single images with their depth maps are mapped" in said[0]
    assert sum("with its depth map: its map registers" in line for line in said) == 2
    assert first.head is not None
    assert int(first.step.preliminary.confidence.isinf().sum()) == 1


def test_keypoints_are_not_asked_when_maps_alone_are_wanted(room, bank):
    said: list[str] = []
    config = replace(HARDLY_TRAINED, grow_first=False)
    first = first_round(loop_with(bank, KnownDepth(room), config, said), room.camera)
    assert first.head is not None
    assert not any("keypoints" in line for line in said)
