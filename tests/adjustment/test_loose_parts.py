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


def on(device: str | torch.device, matches: PairMatches) -> PairMatches:
    return PairMatches(*(getattr(matches, name).to(device) for name in PairMatches.__slots__))


def with_across(parts: list[range], across: PairMatches, generator: torch.Generator) -> PairMatches:
    """These matches, and all of the parts' own."""
    inside = matched(along(parts), 0.0, generator)
    return PairMatches.concatenate([inside, across], torch.device("cpu"))


def settled(
    world: World,
    matches: PairMatches,
    config: LoosePartsConfig = CONFIG,
    device: str | torch.device = "cpu",
    *,
    used: PairMatches | None = None,
) -> JointResult | None:
    """On the device, with all matches used if not said which; the result back on the CPU."""
    moved = {
        name: getattr(world.joint, name).to(device) for name in JointResult.__slots__ if name != "camera"
    }
    joint = JointResult(**moved, camera=world.joint.camera.to(device, torch.float32))
    found = settle_loose_parts(
        joint,
        on(device, used or matches),
        on(device, matches),
        world.pixels.to(device),
        config,
        pixel_scale=1.0,
        generator=torch.Generator().manual_seed(0),
    )
    if found is None:
        return None
    return replace(world.joint, cam_from_world=found.cam_from_world.cpu(), points=found.points.cpu())


@pytest.mark.parametrize("scored", [loose_parts.MOST_SCORED, 100])
@pytest.mark.parametrize("wrong", [0.0, 0.6])
def test_a_part_goes_to_its_place_and_scale(generator, device, wrong, scored, monkeypatch):
    monkeypatch.setattr(loose_parts, "MOST_SCORED", scored)
    monkeypatch.setattr(loose_parts, "CHUNK_BYTES", 2**22)  # several blocks of hypotheses
    parts = [range(7), range(7, 12)]
    world = World(generator, parts).with_moved(parts[1], WRONG)
    across = matched([(1, 8), (10, 4), (5, 7)], wrong, generator)
    found = settled(world, with_across(parts, across, generator), device=device)
    assert world.errors(world.joint)[1] > 1.0
    assert found is not None
    assert world.errors(found)[0] < 0.2
    assert world.errors(found)[1] < 0.02
    # The larger part stays as it was, and points move along with the views that see them.
    assert torch.equal(found.cam_from_world[:7], world.joint.cam_from_world[:7])
    assert torch.equal(found.points[:POINTS], world.joint.points[:POINTS])
    assert (found.points[:POINTS] - found.points[POINTS:]).norm(dim=-1).max() < 0.1


def test_a_part_that_only_another_loose_part_knows_follows_it(generator):
    parts = [MAIN, NEXT, LAST]
    world = World(generator, parts).with_moved(NEXT, WRONG)
    other = Similarity(torch.tensor(3.0), turned(-3.0), torch.tensor([-2.0, 0.3, 0.0]))
    world.with_moved(LAST, other)
    across = matched([(4, 7), (8, 10)], 0.2, generator)
    found = settled(world, with_across(parts, across, generator))
    assert found is not None
    assert world.errors(found)[1] < 0.03


def test_what_common_points_tie_is_left_alone(generator):
    """Whatever else is matched: whether these views are in place is for adjustment to say."""
    parts = [MAIN, range(6, 12)]
    world, always = World(generator, parts), replace(CONFIG, min_gain=0.0)
    across = matched([(1, 7), (5, 6)], 0.2, generator)
    matches = with_across(parts, across, generator)
    assert settled(world, matches, always) is not None
    world.joint = replace(world.joint, point_index=world.joint.keypoint_index)
    assert settled(world, matches, always) is None
    # Matches that were not used tie nothing.
    inside = matched(along(parts), 0.0, generator)
    assert settled(world, matches, always, used=inside) is not None


@pytest.mark.parametrize("turn_deg", [32.0, 40.0])
def test_a_part_does_not_turn_far(generator, turn_deg):
    """What shows the same from another side is another place."""
    parts = [MAIN, range(6, 12)]
    world = World(generator, parts, noise=0.05).with_moved(
        parts[1], replace(WRONG, rotation=turned(turn_deg))
    )
    matches = with_across(parts, matched([(1, 7), (5, 6)], 0.0, generator), generator)
    assert settled(world, matches) is None
    assert settled(world, matches, replace(CONFIG, max_turn_deg=60.0)) is not None


def test_a_part_that_is_nearly_in_place_is_left_to_adjustment(generator):
    parts = [MAIN, range(6, 12)]
    nearly = Similarity(torch.tensor(1.005), turned(0.1), torch.tensor([0.01, 0.0, 0.0]))
    world = World(generator, parts).with_moved(parts[1], nearly)
    matches = with_across(parts, matched([(1, 7), (5, 6)], 0.2, generator), generator)
    assert settled(world, matches) is None
    assert settled(world, matches, replace(CONFIG, min_gain=1.0)) is not None


def test_one_point_in_many_views_is_one_point(generator):
    parts = [MAIN, range(6, 12)]
    world = World(generator, parts).with_moved(parts[1], WRONG)
    across = matched([(a, b) for a in parts[0] for b in parts[1]], 0.0, generator)
    few = across.where(across.keypoint_a < 20)
    assert len(few) > 10 * CONFIG.min_inliers
    assert settled(world, with_across(parts, few, generator)) is None
    assert settled(world, with_across(parts, few, generator), replace(CONFIG, min_inliers=20)) is not None


@pytest.mark.parametrize(
    ("wrong", "config"),
    [(1.0, CONFIG), (0.0, LoosePartsConfig(min_inliers=POINTS + 1)), (0.6, LoosePartsConfig(min_share=0.7))],
    ids=["wrong matches", "few matches", "few agree"],
)
def test_without_evidence_a_part_stays(generator, wrong, config):
    parts = [MAIN, range(6, 12)]
    world = World(generator, parts).with_moved(parts[1], WRONG)
    matches = with_across(parts, matched([(1, 7), (5, 6), (3, 9)], wrong, generator), generator)
    assert settled(world, matches, config) is None
    assert (settled(world, matches) is None) == (wrong == 1.0)


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
