"""Parts that nothing ties to the others find their place and scale, by matches that no adjustment can use."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from acezero_gpu.adjustment import loose_parts
from acezero_gpu.adjustment.joint import JointResult
from acezero_gpu.adjustment.loose_parts import LoosePartsConfig, settle_loose_parts
from acezero_gpu.adjustment.match_graph import PairMatches
from acezero_gpu.geometry import PinholeCamera, Similarity, camera_centres, reproject, rotation_angle_deg

VIEWS, POINTS = 12, 80
MAIN, NEXT, LAST = range(6), range(6, 9), range(9, 12)
CONFIG = LoosePartsConfig()


def turned(deg: float) -> Tensor:
    angle = torch.deg2rad(torch.tensor(deg))
    turn = torch.eye(3)
    turn[0, 0] = turn[2, 2] = angle.cos()
    turn[0, 2], turn[2, 0] = angle.sin(), -angle.sin()
    return turn


WRONG = Similarity(torch.tensor(0.4), turned(2.0), torch.tensor([1.0, -0.5, 2.0]))


class World:
    """Cameras on an arc about a cloud; every view sees every point, but each part has triangulated it for itself."""

    def __init__(self, generator: torch.Generator, parts: list[range], noise: float = 0.005) -> None:
        self.parts = parts
        self.camera = PinholeCamera.centred(400.0, 640, 480)
        cloud = torch.randn(POINTS, 3, generator=generator)
        pose = torch.zeros(VIEWS, 3, 4)
        for view in range(VIEWS):
            pose[view, :, :3] = turned(5.0 * view)
        pose[:, 2, 3] = 7.0
        self.cam_from_world = pose
        self.pixels = reproject(cloud.expand(VIEWS, -1, -1), pose, self.camera).pixels
        view = torch.arange(VIEWS).repeat_interleave(POINTS)
        slot = torch.arange(POINTS).repeat(VIEWS)
        part = torch.zeros(VIEWS, dtype=torch.long)
        for index, rows in enumerate(parts):
            part[list(rows)] = index
        self.part = part
        points = cloud.repeat(len(parts), 1)
        points = points + noise * torch.randn(points.shape, generator=generator)
        none = torch.zeros(len(view))
        self.joint = JointResult(
            pose, self.camera, torch.zeros(2), points, view, part[view] * POINTS + slot, slot, none
        )

    def with_moved(self, rows: range, similarity: Similarity) -> "World":
        """This part at another place and scale."""
        index = int(self.part[rows[0]])
        poses, points = self.joint.cam_from_world.clone(), self.joint.points.clone()
        poses[list(rows)] = similarity.apply_to_cameras(poses[list(rows)])
        own = slice(index * POINTS, (index + 1) * POINTS)
        points[own] = similarity.apply(points[own])
        self.joint = replace(self.joint, cam_from_world=poses, points=points)
        return self

    def errors(self, joint: JointResult) -> tuple[float, float]:
        angle = rotation_angle_deg(joint.cam_from_world[:, :, :3], self.cam_from_world[:, :, :3])
        distance = camera_centres(joint.cam_from_world) - camera_centres(self.cam_from_world)
        return float(angle.max()), float(distance.norm(dim=-1).max())


def matched(pairs: list[tuple[int, int]], wrong: float, generator: torch.Generator) -> PairMatches:
    """All points of these pairs, a share of them with a wrong partner."""
    parts = []
    for a, b in pairs:
        slots = torch.arange(POINTS)
        other = slots.clone()
        lost = torch.rand(POINTS, generator=generator) < wrong
        other[lost] = torch.randint(POINTS, (int(lost.sum()),), generator=generator)
        parts.append(PairMatches(torch.full_like(slots, a), torch.full_like(slots, b), slots, other))
    return PairMatches.concatenate(parts, torch.device("cpu"))


def along(parts: list[range]) -> list[tuple[int, int]]:
    """Each view of a part with the next."""
    return [(a, a + 1) for rows in parts for a in rows[:-1]]


def settled(
    world: World, matches: PairMatches, config: LoosePartsConfig = CONFIG, device: str | torch.device = "cpu"
) -> JointResult | None:
    """On the device; the result back on the CPU."""
    moved = {
        name: getattr(world.joint, name).to(device) for name in JointResult.__slots__ if name != "camera"
    }
    joint = JointResult(**moved, camera=world.joint.camera.to(device, torch.float32))
    matches = PairMatches(*(getattr(matches, name).to(device) for name in PairMatches.__slots__))
    found = settle_loose_parts(
        joint,
        matches,
        matches,
        world.pixels.to(device),
        config,
        pixel_scale=1.0,
        generator=torch.Generator().manual_seed(0),
    )
    if found is None:
        return None
    return replace(world.joint, cam_from_world=found.cam_from_world.cpu(), points=found.points.cpu())


@pytest.mark.parametrize("wrong", [0.0, 0.6])
def test_a_part_goes_to_its_place_and_scale(generator, device, wrong):
    parts = [MAIN, range(6, 12)]
    world = World(generator, parts).with_moved(parts[1], WRONG)
    matches = matched(along(parts), 0.0, generator)
    across = matched([(1, 7), (10, 4), (5, 6)], wrong, generator)
    found = settled(world, PairMatches.concatenate([matches, across], torch.device("cpu")), device=device)
    assert world.errors(world.joint)[1] > 1.0
    assert found is not None
    assert world.errors(found)[0] < 0.2
    assert world.errors(found)[1] < 0.02
    # The larger part stays as it was, and points move along with the views that see them.
    assert torch.equal(found.cam_from_world[:6], world.joint.cam_from_world[:6])
    assert (found.points[:POINTS] - found.points[POINTS:]).norm(dim=-1).max() < 0.1


def test_a_part_that_only_another_loose_part_knows_follows_it(generator):
    parts = [MAIN, NEXT, LAST]
    world = World(generator, parts).with_moved(NEXT, WRONG)
    other = Similarity(torch.tensor(3.0), turned(-3.0), torch.tensor([-2.0, 0.3, 0.0]))
    world.with_moved(LAST, other)
    across = matched([(4, 7), (8, 10)], 0.2, generator)
    matches = PairMatches.concatenate([matched(along(parts), 0.0, generator), across], torch.device("cpu"))
    found = settled(world, matches)
    assert found is not None
    assert world.errors(found)[1] < 0.03


def test_what_common_points_tie_is_left_alone(generator):
    world = World(generator, [range(12)])
    assert settled(world, matched(along([range(12)]), 0.0, generator)) is None


def test_a_part_does_not_turn_far(generator):
    """What shows the same from another side is another place."""
    parts = [MAIN, range(6, 12)]
    world = World(generator, parts).with_moved(parts[1], replace(WRONG, rotation=turned(40.0)))
    across = matched([(1, 7), (5, 6)], 0.0, generator)
    matches = PairMatches.concatenate([matched(along(parts), 0.0, generator), across], torch.device("cpu"))
    assert settled(world, matches) is None
    assert settled(world, matches, replace(CONFIG, max_turn_deg=60.0)) is not None


def test_matches_that_were_not_used_tie_nothing(generator):
    """The part is in place, but for all that was adjusted it might be anywhere."""
    parts = [MAIN, range(6, 12)]
    world = World(generator, [range(12)])
    inside, across = matched(along(parts), 0.0, generator), matched([(5, 6)], 0.0, generator)
    label = loose_parts._tied_views(inside, world.joint.point_index.view(VIEWS, POINTS), 15)
    assert len(label.unique()) == 2
    both = PairMatches.concatenate([inside, across], torch.device("cpu"))
    assert len(loose_parts._tied_views(both, world.joint.point_index.view(VIEWS, POINTS), 15).unique()) == 1


def test_a_part_that_is_nearly_in_place_is_left_to_adjustment(generator):
    parts = [MAIN, range(6, 12)]
    nearly = Similarity(torch.tensor(1.005), turned(0.1), torch.tensor([0.01, 0.0, 0.0]))
    world = World(generator, parts).with_moved(parts[1], nearly)
    across = matched([(1, 7), (5, 6)], 0.2, generator)
    matches = PairMatches.concatenate([matched(along(parts), 0.0, generator), across], torch.device("cpu"))
    assert settled(world, matches) is None
    assert settled(world, matches, replace(CONFIG, min_gain=1.0)) is not None


@pytest.mark.parametrize(
    ("wrong", "config"),
    [(1.0, CONFIG), (0.0, LoosePartsConfig(min_inliers=POINTS + 1)), (0.7, LoosePartsConfig(min_share=0.5))],
    ids=["wrong matches", "few matches", "few agree"],
)
def test_without_evidence_a_part_stays(generator, wrong, config):
    parts = [MAIN, range(6, 12)]
    world = World(generator, parts).with_moved(parts[1], WRONG)
    across = matched([(1, 7)], wrong, generator)
    matches = PairMatches.concatenate([matched(along(parts), 0.0, generator), across], torch.device("cpu"))
    assert settled(world, matches, config) is None


def test_views_without_points_and_no_matches_at_all(generator):
    world = World(generator, [MAIN, range(6, 12)])
    assert settled(world, PairMatches.concatenate([], torch.device("cpu"))) is None
    empty = replace(
        world.joint,
        points=world.joint.points[:0],
        view_index=world.joint.view_index[:0],
        point_index=world.joint.point_index[:0],
        keypoint_index=world.joint.keypoint_index[:0],
        error_px=world.joint.error_px[:0],
    )
    world.joint = empty
    assert settled(world, matched([(1, 7)], 0.0, generator)) is None
