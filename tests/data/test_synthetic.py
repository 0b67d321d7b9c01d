import json
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from acezero_gpu.data.depth import find_depth_files
from acezero_gpu.data.image_set import resolve_images
from acezero_gpu.data.loading import load_grey
from acezero_gpu.data.synthetic import Scene, render, synthetic_scene, walk, walk_camera, write_dataset
from acezero_gpu.geometry import (
    camera_centres,
    cell_centres_px,
    invert,
    project,
    rotation_angle_deg,
    transform_points,
)

WIDTH, HEIGHT = 160, 120


@pytest.fixture(scope="module")
def scene() -> Scene:
    return synthetic_scene(3, texels_per_m=80)


@pytest.fixture(scope="module")
def poses(scene: Scene) -> Tensor:
    return walk(scene, 16, 3)


@pytest.fixture(scope="module")
def frames(scene: Scene, poses: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [render(scene, pose, walk_camera(WIDTH, HEIGHT)) for pose in poses[:4]]


def world_points(depth_m: Tensor, pose: Tensor) -> Tensor:
    """The surface point of every pixel."""
    rays = walk_camera(WIDTH, HEIGHT).normalised(cell_centres_px(HEIGHT, WIDTH, 1))
    points = torch.cat([rays, torch.ones_like(rays[:, :1])], dim=-1) * depth_m.flatten()[:, None]
    return transform_points(invert(pose), points)


def signed_distance(scene: Scene, points: Tensor) -> Tensor:
    """Distance of points to the nearest surface, negative inside furniture, by the textbook formulas."""
    distances = []
    for number, box in enumerate(scene.boxes):
        angle = math.radians(box.yaw_deg)
        offset = points.double() - torch.tensor(box.centre, dtype=torch.float64)
        x = math.cos(angle) * offset[:, 0] + math.sin(angle) * offset[:, 1]
        y = -math.sin(angle) * offset[:, 0] + math.cos(angle) * offset[:, 1]
        q = torch.stack([x, y, offset[:, 2]], -1).abs() - torch.tensor(box.half, dtype=torch.float64)
        distance = q.clamp_min(0).norm(dim=-1) + q.amax(-1).clamp_max(0)
        distances.append(-distance if number == 0 else distance)
    for sphere in scene.spheres:
        distances.append((points.double() - torch.tensor(sphere.centre)).norm(dim=-1) - sphere.radius)
    return torch.stack(distances).amin(0)


def test_depth_ends_on_the_first_surface(scene: Scene, poses: Tensor, frames: list) -> None:
    pose, depth_m = poses[0], frames[0][1]
    points = world_points(depth_m, pose)
    assert signed_distance(scene, points).abs().max() < 1e-4
    # Sphere tracing, which knows nothing of slabs and roots: no surface may come earlier on the way.
    centre = camera_centres(pose)
    for share in torch.linspace(0.05, 0.995, 40):
        assert signed_distance(scene, centre + share * (points - centre)).min() > -1e-4


def test_the_same_seed_gives_the_same_picture_and_another_does_not(frames: list, poses: Tensor) -> None:
    again = synthetic_scene(3, texels_per_m=80)
    rgb, depth_m = render(again, walk(again, 16, 3)[0], walk_camera(WIDTH, HEIGHT))
    assert torch.equal(rgb, frames[0][0])
    assert torch.equal(depth_m, frames[0][1])
    other, _ = render(synthetic_scene(4, texels_per_m=20), poses[0], walk_camera(WIDTH, HEIGHT))
    assert (other.float() - rgb.float()).abs().mean() > 10


def test_a_picture_twice_as_large_shows_the_same(scene: Scene, poses: Tensor, frames: list) -> None:
    large, large_depth = render(scene, poses[0], walk_camera(2 * WIDTH, 2 * HEIGHT))
    reduced = cv2.resize(large.numpy(), (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    assert np.abs(reduced.astype(int) - frames[0][0].numpy().astype(int)).mean() < 4
    assert (large_depth[::2, ::2] - frames[0][1]).abs().median() < 0.02


@pytest.mark.parametrize("count", [16, 48, 100])
def test_the_walk_moves_smoothly_inside_the_room_and_clear_of_things(scene: Scene, count: int) -> None:
    poses = walk(scene, count, seed=count)
    following = poses.roll(-1, 0) if count > 40 else poses[1:]
    here = poses if count > 40 else poses[:-1]
    steps = (camera_centres(following) - camera_centres(here)).norm(dim=-1)
    angles = rotation_angle_deg(here[:, :, :3], following[:, :, :3])
    assert steps.min() > 2.5 / count
    assert steps.max() < 0.5
    assert angles.max() < 20
    assert signed_distance(scene, camera_centres(poses)).min() > 0.3
    assert torch.allclose(poses[:, :, :3] @ poses[:, :, :3].transpose(1, 2), torch.eye(3), atol=1e-6)
    assert (torch.linalg.det(poses[:, :, :3]) > 0.99).all()


def test_neighbours_share_most_of_their_view(poses: Tensor, frames: list) -> None:
    camera = walk_camera(WIDTH, HEIGHT)
    for index in range(3):
        points = transform_points(poses[index + 1], world_points(frames[index][1], poses[index]))
        pixels = project(points, camera)
        inside = (points[:, 2] > 0) & (pixels >= 0).all(-1) & (pixels < torch.tensor([WIDTH, HEIGHT])).all(-1)
        u, v = pixels[inside].long().unbind(-1)
        seen = (points[inside, 2] - frames[index + 1][1][v, u]).abs() < 0.05
        assert seen.sum() > 0.6 * WIDTH * HEIGHT


def sift_matches(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, int]:
    """Pixels of matched keypoints in our convention; OpenCV counts from the centre of the first pixel."""
    sift = cv2.SIFT_create()
    found = [
        sift.detectAndCompute(cv2.cvtColor(rgb.numpy(), cv2.COLOR_RGB2GRAY), None) for rgb in (first, second)
    ]
    pairs = cv2.BFMatcher().knnMatch(found[0][1], found[1][1], k=2)
    good = [best for best, second in pairs if best.distance < 0.8 * second.distance]
    pixels_0 = torch.tensor([found[0][0][match.queryIdx].pt for match in good]) + 0.5
    pixels_1 = torch.tensor([found[1][0][match.trainIdx].pt for match in good]) + 0.5
    return pixels_0, pixels_1, len(found[0][0])


def test_sift_finds_plenty_and_its_matches_obey_the_truth(poses: Tensor, frames: list) -> None:
    """Keypoints of another library, lifted by our depth and moved by our poses, must meet their partners."""
    camera = walk_camera(WIDTH, HEIGHT)
    for index in range(3):
        pixels_0, pixels_1, keypoints = sift_matches(frames[index][0], frames[index + 1][0])
        assert keypoints > 200
        assert len(pixels_0) > 60
        depth = frames[index][1][pixels_0[:, 1].long(), pixels_0[:, 0].long()][:, None]
        points = torch.cat([camera.normalised(pixels_0) * depth, depth], dim=-1)
        moved = transform_points(poses[index + 1], transform_points(invert(poses[index]), points))
        offset = project(moved, camera) - pixels_1
        agree = offset.norm(dim=-1) < 2
        assert agree.float().mean() > 0.85
        assert offset[agree].median(0).values.abs().max() < 0.15

        focal, (cx, cy) = float(camera.focal_px[0]), camera.principal_point_px.tolist()
        matrix = np.array([[focal, 0, cx], [0, focal, cy], [0, 0, 1]])
        points_world = transform_points(invert(poses[index]), points).numpy()
        ok, rvec, tvec, _ = cv2.solvePnPRansac(
            points_world, pixels_1.numpy(), matrix, None, reprojectionError=1.0, iterationsCount=500
        )
        assert ok
        rotation = torch.from_numpy(cv2.Rodrigues(rvec)[0]).float()
        estimate = torch.cat([rotation, torch.from_numpy(tvec).float()], dim=-1)
        assert rotation_angle_deg(estimate[:, :3], poses[index + 1][:, :3]) < 0.5
        assert (camera_centres(estimate) - camera_centres(poses[index + 1])).norm() < 0.03


def test_a_written_dataset_reads_back_in_its_own_formats(tmp_path: Path) -> None:
    folder = write_dataset(tmp_path / "room", count=2, width=96, height=72, seed=5, texels_per_m=20)
    facts = json.loads((folder / "set.json").read_text())
    assert (facts["images"], facts["width"], facts["height"]) == (2, 96, 72)
    scene = synthetic_scene(5, texels_per_m=20)
    poses = walk(scene, 2, 5)
    images = resolve_images(folder / "images")
    depths = find_depth_files(folder / "depth", images.names)
    loaded = load_grey(images, 72)
    for index in range(2):
        world_from_cam = np.loadtxt(folder / "poses" / f"{images.paths[index].stem}.txt")
        assert np.allclose(np.linalg.inv(world_from_cam)[:3], poses[index], atol=1e-5)
        rgb, depth_m = render(scene, poses[index], walk_camera(96, 72))
        assert (depths.depth_m(index) - depth_m).abs().max() < 6e-4
        grey = cv2.cvtColor(rgb.numpy(), cv2.COLOR_RGB2GRAY).astype(int)
        assert np.abs(loaded.pixels[index, 0].numpy().astype(int) - grey).mean() < 3
    assert facts["fx"] == pytest.approx(float(walk_camera(96, 72).focal_px[0]))
