"""Frames located anew in a map: exact truth comes back, what cannot be located stays, trust is a share of the way."""

import math
from dataclasses import replace

import numpy as np
import pypose as pp
import pytest
import torch
from reference.analytic_world import World
from reference.posed_scene import make_scene, random_poses
from scipy.spatial.transform import Rotation
from torch import Tensor

from acezero_gpu.geometry import PinholeCamera, camera_centres, compose, invert, retract, rotation_angle_deg
from acezero_gpu.mapping import FeatureBuffer, ReestimationConfig
from acezero_gpu.mapping.pose_reestimation import reestimate_against_map, reestimate_poses, step_towards

TAKE = ReestimationConfig(trust=1.0, sample=200)
INLIER_PX = 10.0


def true_points(features: Tensor) -> Tensor:
    """A map that predicts right coordinates: in this world, they are the first three features."""
    return features[:, :3]


def located(
    world: World,
    start: Tensor,
    config: ReestimationConfig = TAKE,
    *,
    frames: Tensor | None = None,
    buffer: FeatureBuffer | None = None,
    camera: PinholeCamera | None = None,
    predict=true_points,
    **more: object,
):
    frames = torch.arange(len(world), device=world.points.device) if frames is None else frames
    generator = torch.Generator(device=world.points.device).manual_seed(7)
    return reestimate_against_map(
        buffer or world.buffer(), frames, predict, start, camera or world.camera, config,
        inlier_px=INLIER_PX, generator=generator, **more,
    )  # fmt: skip


def errors(world: World, poses: Tensor) -> tuple[Tensor, Tensor]:
    """Degrees and distances of the centres, in the frame of the truth: nothing is aligned."""
    truth = world.cam_from_world
    distance = (camera_centres(poses) - camera_centres(truth)).norm(dim=-1)
    return rotation_angle_deg(poses[..., :3], truth[..., :3]), distance


def assert_rigid(poses: Tensor) -> None:
    eye = torch.eye(3, device=poses.device).expand(len(poses), 3, 3)
    torch.testing.assert_close(poses[..., :3] @ poses[..., :3].transpose(1, 2), eye, atol=1e-5, rtol=0)


def test_disturbed_poses_come_back_to_the_truth_of_a_right_map(world, generator):
    start = world.disturbed_poses(generator)
    assert errors(world, start)[0].min() > 0.5
    found = located(world, start)
    rotation, distance = errors(world, found.cam_from_world)
    assert found.accepted.all()
    assert rotation.max() < 0.01 and distance.max() < 2e-3
    assert_rigid(found.cam_from_world)


def test_a_block_that_walked_away_from_its_map_comes_back_as_a_block(world):
    """All frames moved alike are as wrong as one: the map is what holds them."""
    motion = random_poses(1, torch.Generator().manual_seed(3), 0.05).float().to(world.points.device)
    start = compose(world.cam_from_world, motion.expand(len(world), 3, 4))
    assert errors(world, start)[0].min() > 0.5 or errors(world, start)[1].min() > 0.05
    rotation, distance = errors(world, located(world, start).cam_from_world)
    assert rotation.max() < 0.01 and distance.max() < 2e-3


@pytest.mark.parametrize("trust", [0.25, 0.5])
def test_repeated_steps_of_half_trust_close_the_gap_geometrically(world, generator, trust):
    config = replace(TAKE, trust=trust)
    poses = world.disturbed_poses(generator)
    for _ in range(4):
        before = errors(world, poses)[0]
        poses = located(world, poses, config).cam_from_world
        torch.testing.assert_close(errors(world, poses)[0], (1 - trust) * before, rtol=0.02, atol=5e-3)


def test_without_trust_nothing_changes(world, generator):
    start = world.disturbed_poses(generator)
    found = located(world, start, replace(TAKE, trust=0.0))
    assert found.accepted.all()
    torch.testing.assert_close(found.cam_from_world, start, atol=2e-6, rtol=0)


def test_a_third_of_wrong_points_does_no_harm(world, generator):
    start = world.disturbed_poses(generator)
    points = world.points.expand(len(world), -1, -1).clone()
    wrong = torch.rand(points.shape[:2], generator=generator).to(points.device) < 1 / 3
    points = torch.where(wrong[..., None], points + 2.0, points)
    found = reestimate_poses(start, points, world.pixels(), world.camera, TAKE, inlier_px=INLIER_PX)
    rotation, distance = errors(world, found.cam_from_world)
    assert found.accepted.all()
    assert rotation.max() < 0.05 and distance.max() < 0.01


def test_frames_that_cannot_be_located_stay_and_the_others_do_not_notice(world, generator):
    """Too few inliers, not a number, a single point, everything behind the camera, a jump."""
    start = world.disturbed_poses(generator)
    whole = reestimate_poses(
        start, world.points.expand(len(world), -1, -1), world.pixels(), world.camera, TAKE, inlier_px=INLIER_PX
    )  # fmt: skip
    points = world.points.expand(len(world), -1, -1).clone()
    pixels = world.pixels()
    points[0, :260] = 4 * torch.rand(260, 3, generator=generator).to(points.device) - 2
    points[1, 5] = math.nan
    # Every patch sees one and the same point, exactly: all are inliers, and the pose is free.
    points[2], pixels[2], start[2] = points[2, :1].clone(), pixels[2, :1].clone(), world.cam_from_world[2]
    points[3] = (
        camera_centres(start)[3] - start[3, 2, :3] * torch.linspace(1, 3, 300, device=points.device)[:, None]
    )
    start[4] = retract(start[4:5], torch.tensor([[0, 0, 0, 0, 0, 0.3]], device=points.device))[0]
    found = reestimate_poses(start, points, pixels, world.camera, TAKE, inlier_px=INLIER_PX)
    assert found.accepted.tolist() == [False] * 5 + [True] * (len(world) - 5)
    assert torch.equal(found.cam_from_world[:5], start[:5])
    torch.testing.assert_close(found.cam_from_world[5:], whole.cam_from_world[5:], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "delta, within", [((0, 0, 0, 0.15, 0, 0), 8.6), ((0.9, 0, 0, 0, 0, 0), 8.5)], ids=["turn", "shift"]
)
def test_the_bound_on_the_jump_is_an_angle(world, delta, within):
    """0.15 rad are 8.6°; 0.9 from six away are 8.5°."""
    start = world.cam_from_world.clone()
    start[2] = retract(start[2:3], torch.tensor([delta], device=start.device))[0]
    for bound, accepted in ((within + 0.8, True), (within - 0.8, False)):
        found = located(world, start, replace(TAKE, max_jump_deg=bound))
        assert found.accepted.tolist() == [True, True, accepted] + [True] * (len(world) - 3)
        assert torch.equal(found.cam_from_world[2], start[2]) is not accepted


def test_the_share_of_inliers_decides(device):
    """Sixty per cent of the points of each frame are right."""
    scene = make_scene(3, outliers=0.4, rows=30, columns=40, device=device)
    start = retract(scene.cam_from_world.float(), torch.full((3, 6), 0.005, device=device))
    pixels = scene.pixels.expand(3, -1, -1)
    for share, accepted in ((0.5, True), (0.7, False)):
        config = replace(TAKE, min_inlier_share=share)
        found = reestimate_poses(start, scene.points, pixels, scene.camera, config, inlier_px=INLIER_PX)
        assert found.accepted.tolist() == [accepted] * 3


def test_chunks_change_nothing(world, generator):
    """The map errs, so that poses depend on which patches were drawn."""

    def rough(features: Tensor) -> Tensor:
        return features[:, :3] + 0.03 * torch.sin(40 * features[:, :3])

    start = world.disturbed_poses(generator)
    config = replace(TAKE, sample=40)
    whole = located(world, start, config, predict=rough)
    assert errors(world, whole.cam_from_world)[1].min() > 1e-3
    for size in (1, 40, 100, 200):
        parts = located(world, start, config, predict=rough, chunk_patches=size)
        torch.testing.assert_close(parts.cam_from_world, whole.cam_from_world, atol=1e-4, rtol=0)
        assert torch.equal(parts.accepted, whole.accepted)


def test_no_more_than_a_chunk_is_predicted_at_once(world):
    sizes: list[int] = []

    def predict(features: Tensor) -> Tensor:
        sizes.append(len(features))
        return features[:, :3]

    located(world, world.cam_from_world, replace(TAKE, sample=40), chunk_patches=130, predict=predict)
    assert sizes == [120] * 4


def test_frames_are_those_of_the_buffer_that_are_named(world, generator):
    buffer = world.buffer()
    buffer.features[[0, 3, 4]] = math.nan
    frames = torch.tensor([7, 2, 9], device=world.points.device)
    start = world.disturbed_poses(generator)[frames]
    found = located(world, start, frames=frames, buffer=buffer)
    assert found.accepted.all()
    torch.testing.assert_close(found.cam_from_world, world.cam_from_world[frames], atol=2e-3, rtol=0)


def test_a_distorting_lens_is_taken_into_account(world, generator):
    radial = torch.tensor([-0.2, 0.03], device=world.points.device)
    buffer = world.buffer()
    plane = world.camera.normalised(buffer.pixels)
    r2 = plane.square().sum(-1, keepdim=True)
    plane = plane * (1 + radial[0] * r2 + radial[1] * r2**2)
    buffer.pixels = plane * world.camera.focal_px + world.camera.principal_point_px
    start = world.disturbed_poses(generator)
    told = located(world, start, buffer=buffer, radial=radial).cam_from_world
    untold = located(world, start, buffer=buffer).cam_from_world
    assert errors(world, told)[1].max() < 3e-3
    assert errors(world, untold)[1].max() > 0.02


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0, 1.5])
def test_a_step_is_a_share_of_the_retraction(share, generator, dtype):
    """Against pypose's logarithm and scipy's rotation vectors, up to 170 degrees."""
    current = random_poses(20, generator)
    delta = torch.randn(20, 6, generator=generator, dtype=torch.float64)
    angle = torch.linspace(1e-9, math.radians(170), 20, dtype=torch.float64)[:, None]
    delta[:, 3:] = torch.nn.functional.normalize(delta[:, 3:], dim=-1) * angle
    moved = step_towards(current.to(dtype), retract(current, delta).to(dtype), share).double()
    tolerance = 1e-12 if dtype == torch.float64 else 5e-5
    torch.testing.assert_close(moved, retract(current, share * delta), atol=tolerance, rtol=0)
    relative = compose(moved, invert(current))
    turned = Rotation.from_matrix(relative[..., :3].numpy()).as_rotvec()
    expected = Rotation.from_rotvec(share * delta[:, 3:].numpy()).as_rotvec()
    np.testing.assert_allclose(turned, expected, atol=3e-4 if dtype == torch.float32 else 1e-6)
    log = pp.mat2SO3(relative[..., :3], check=False).Log().tensor()
    torch.testing.assert_close(log.norm(dim=-1), torch.from_numpy(expected).norm(dim=-1), atol=3e-4, rtol=0)


def test_a_step_to_where_one_is_stays_there(device, dtype):
    poses = random_poses(5, torch.Generator().manual_seed(2)).to(device, dtype)
    moved = step_towards(poses, poses, 0.5)
    torch.testing.assert_close(moved, poses, atol=10 * torch.finfo(dtype).eps, rtol=0)


def test_it_is_due_after_the_start_and_after_the_wait():
    config = ReestimationConfig(start=20, interval=10)
    assert [step for step in range(60) if config.due(step, 0)] == [20, 30, 40, 50]
    assert [step for step in range(60) if config.due(step, 35)] == [35, 45, 55]
    assert not any(replace(config, trust=0.0).due(step, 0) for step in range(60))


@pytest.mark.parametrize("change", [{"interval": 0}, {"sample": 3}, {"trust": -0.1}, {"trust": 1.1}])
def test_impossible_settings_are_refused(change):
    with pytest.raises(ValueError, match="re-estimat"):
        replace(ReestimationConfig(), **change)
