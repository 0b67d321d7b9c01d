"""Images join by their keypoints: ring by ring, along the graph only, and also where the camera only turns."""

from dataclasses import replace

import pytest
import torch
from reference.rendered_room import Room, room_with_a_turn
from torch import Tensor

from acezero_gpu.adjustment.joint import JointConfig, JointResult, adjust_views, triangulate_views
from acezero_gpu.geometry import camera_centres, rotation_angle_deg
from acezero_gpu.reconstruction import ImageBank, ReconstructionState
from acezero_gpu.reconstruction.growth import GrowthConfig, grow
from acezero_gpu.reconstruction.matching import MatchStore, all_pairs
from acezero_gpu.reconstruction.resection import PointMap, resect_images

JOINT = JointConfig(min_angle_deg=1.0)
PLACED = [0, 1, 2, 3]


@pytest.fixture(scope="module")
def found(room: Room) -> tuple[ImageBank, MatchStore]:
    bank = room.bank(torch.device("cpu"))
    return bank, MatchStore(bank)


def start(
    room: Room, found: tuple[ImageBank, MatchStore], rows: list[int]
) -> tuple[ReconstructionState, PointMap, JointResult]:
    """These images at their true poses, with the points of their matches; the others anywhere."""
    bank, matches = found
    views = torch.tensor(rows)
    graph = matches.between(all_pairs(views), views)
    pixels = bank.keypoints(views).pixels[views]
    bundle = replace(JOINT.bundle, refine_focal=False)
    joint = adjust_views(
        graph,
        pixels,
        room.cam_from_world[views],
        room.camera,
        replace(JOINT, bundle=bundle),
        pixel_scale=bank.pixel_scale,
        fixed_views=torch.ones(len(rows), dtype=torch.bool),
    )
    every = triangulate_views(graph, pixels, joint, JOINT, pixel_scale=bank.pixel_scale)
    slots = bank.config.keypoints.per_image
    point_map = PointMap.of(every, views, len(room), slots).with_points_of(joint, views)
    registered = torch.zeros(len(room), dtype=torch.bool)
    registered[views] = True
    poses = torch.eye(3, 4).repeat(len(room), 1, 1)
    poses[views] = room.cam_from_world[views]
    state = ReconstructionState.by_one_map(poses, 100.0 * registered, registered, room.camera, torch.zeros(2))
    return state, point_map, joint


def chain(images: int, reach: int = 2) -> Tensor:
    return torch.tensor([(a, b) for a in range(images) for b in range(a + 1, min(images, a + 1 + reach))])


def grown(
    room: Room,
    found: tuple[ImageBank, MatchStore],
    rows: list[int],
    graph: Tensor,
    config: GrowthConfig = GrowthConfig(until_adjusted=100.0),
) -> ReconstructionState:
    state, point_map, _ = start(room, found, rows)
    generator = torch.Generator().manual_seed(0)
    return grow(*found, graph, state, state.registered, point_map, config, JOINT, generator)


def test_rings_join_one_after_another_along_the_graph(room, found):
    state = grown(room, found, PLACED, chain(9))
    assert state.registered.all()
    assert rotation_angle_deg(state.cam_from_world[:, :, :3], room.cam_from_world[:, :, :3]).max() < 0.5
    distance = camera_centres(state.cam_from_world) - camera_centres(room.cam_from_world)
    assert distance.norm(dim=-1).max() < 0.05
    assert torch.equal(state.cam_from_world[PLACED], room.cam_from_world[PLACED])


def test_what_the_graph_does_not_reach_stays_out(room, found):
    graph = chain(9)
    cut = graph[~((graph[:, 0] <= 6) & (graph[:, 1] >= 7))]
    state = grown(room, found, PLACED, cut)
    assert state.registered.tolist() == [row <= 6 for row in range(9)]
    assert torch.equal(state.cam_from_world[7:], torch.eye(3, 4).expand(2, 3, 4))


def test_it_stops_when_all_should_be_adjusted(room, found):
    state = grown(room, found, PLACED, chain(9, 1), GrowthConfig(until_adjusted=1.5))
    assert int(state.registered.sum()) == 6


def test_the_best_of_a_ring_come_first(room, found):
    _, point_map, _ = start(room, found, PLACED)
    graph = torch.tensor([(0, 4), (1, 4), (2, 4), (3, 4), (0, 6), (4, 6)])
    seen = resect_images(
        *found,
        point_map,
        [(4, PLACED), (6, [0])],
        max_error_px=GrowthConfig().max_error_px,
        generator=torch.Generator().manual_seed(0),
    ).inlier_count.tolist()
    assert seen[0] > 2 * seen[1] > 2 * GrowthConfig().min_inliers
    for share, joined in ((0.0, [4, 6]), (0.5, [4])):
        config = GrowthConfig(until_adjusted=1.01, best_share=share)
        state = grown(room, found, PLACED, graph, config)
        assert state.registered.nonzero()[:, 0].tolist() == PLACED + joined
    # What had to wait is not forgotten.
    assert grown(room, found, PLACED, graph).registered[6]


def test_a_new_view_is_adjusted_against_those_that_show_it_most(room, found):
    config = GrowthConfig(until_adjusted=100.0, partners=1, min_observations=80)
    first, nearest = torch.tensor([(0, 7)]), torch.tensor([(3, 7)])
    assert not grown(room, found, PLACED, first, config).registered[7]
    assert grown(room, found, PLACED, torch.cat([first, nearest]), config).registered[7]


@pytest.mark.parametrize("field", ["min_inliers", "min_observations"])
def test_few_points_place_nothing(room, found, field):
    config = GrowthConfig(until_adjusted=100.0, **{field: 10_000})
    state = grown(room, found, PLACED, chain(9), config)
    assert state.registered.nonzero()[:, 0].tolist() == PLACED


def test_points_without_parallax_carry_one_ring_further():
    """The last of six walking cameras turns by 28 degrees: what it turns to, no other camera has seen."""
    room = room_with_a_turn()
    bank = room.bank(torch.device("cpu"))
    found = bank, MatchStore(bank)
    state, point_map, _ = start(room, found, list(range(6)))
    config = GrowthConfig(until_adjusted=100.0)

    def further(state: ReconstructionState, point_map: PointMap, every_point: bool) -> ReconstructionState:
        generator = torch.Generator().manual_seed(0)
        arguments = chain(10), state, state.registered, point_map, config, JOINT, generator
        return grow(*found, *arguments, every_point=every_point)

    strict = further(state, point_map, False)
    assert not strict.registered[8:].any()
    ring = further(state, point_map, True)
    # Along the chain a ring reaches two images beyond the last.
    assert ring.registered.tolist() == [row < 8 for row in range(10)]
    new = slice(6, 8)
    assert rotation_angle_deg(ring.cam_from_world[new, :, :3], room.cam_from_world[new, :, :3]).max() < 1.0
    distance = camera_centres(ring.cam_from_world[new]) - camera_centres(room.cam_from_world[new])
    assert distance.norm(dim=-1).max() < 0.1


def test_resection_without_points_finds_nothing(room, found):
    _, point_map, _ = start(room, found, PLACED)
    nothing = replace(point_map, point_of=torch.full_like(point_map.point_of, -1))
    generator = torch.Generator().manual_seed(0)
    result = resect_images(*found, nothing, [(5, [3, 4]), (4, [3])], max_error_px=8.0, generator=generator)
    assert result.inlier_count.tolist() == [0, 0]
    placed = resect_images(*found, point_map, [(4, [2, 3])], max_error_px=8.0, generator=generator)
    assert int(placed.inlier_count[0]) > 30
    assert rotation_angle_deg(placed.cam_from_world[:, :, :3], room.cam_from_world[4:5, :, :3]).max() < 0.5


def test_the_later_adjustment_knows_better(room, found):
    _, point_map, joint = start(room, found, PLACED)
    views = torch.tensor(PLACED)
    moved = replace(joint, points=joint.points + 1.0)
    both = point_map.with_points_of(moved, views)
    seen = both.point_of[views[joint.view_index], joint.keypoint_index]
    torch.testing.assert_close(both.points[seen], moved.points[joint.point_index])
    assert (both.point_of >= 0).sum() == (point_map.point_of >= 0).sum()
