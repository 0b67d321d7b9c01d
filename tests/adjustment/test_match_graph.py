"""Matches of many pairs, and their Sampson distance: against OpenCV's, and zero where the poses are right."""

import cv2
import numpy as np
import torch
from reference.analytic_world import make_world
from torch import Tensor

from acezero_gpu.adjustment.match_graph import PairMatches, epipolar_distance_px
from acezero_gpu.geometry import PinholeCamera, compose, invert


def random_matches(views: int, keypoints: int, count: int, generator: torch.Generator) -> PairMatches:
    """The same keypoint slot in two different views is the same point."""
    view_a = torch.randint(views, (count,), generator=generator)
    view_b = (view_a + torch.randint(1, views, (count,), generator=generator)) % views
    keypoint = torch.randint(keypoints, (count,), generator=generator)
    return PairMatches(view_a, view_b, keypoint, keypoint)


def on(matches: PairMatches, device: torch.device) -> PairMatches:
    return PairMatches(*(getattr(matches, name).to(device) for name in PairMatches.__slots__))


def opencv_distance_px(
    pixel_a: Tensor, pixel_b: Tensor, pose_a: Tensor, pose_b: Tensor, camera: PinholeCamera
) -> float:
    b_from_a = compose(pose_b, invert(pose_a)).double().numpy()
    t = b_from_a[:, 3]
    cross = np.array([[0, -t[2], t[1]], [t[2], 0, -t[0]], [-t[1], t[0], 0]])
    (fx, fy), (cx, cy) = camera.focal_px.tolist(), camera.principal_point_px.tolist()
    inverse = np.linalg.inv(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]))
    fundamental = inverse.T @ cross @ b_from_a[:, :3] @ inverse
    points = [np.array([[*pixel.double().tolist(), 1.0]]).T for pixel in (pixel_a, pixel_b)]
    return float(np.sqrt(cv2.sampsonDistance(*points, fundamental)))


def test_exact_matches_have_no_distance(device, generator):
    world = make_world(views=6, points=80).to(device)
    matches = on(random_matches(6, 80, 500, generator), device)
    distance = epipolar_distance_px(matches, world.pixels(), world.cam_from_world, world.camera)
    assert distance.max() < 5e-3


def test_it_is_opencvs_distance_in_pixels(device, generator):
    world = make_world(views=5, points=60)
    pixels = world.pixels() + 10 * torch.randn(5, 60, 2, generator=generator)
    matches = random_matches(5, 60, 100, generator)
    place = world.to(device)
    ours = epipolar_distance_px(
        on(matches, device), pixels.to(device), place.cam_from_world, place.camera
    ).cpu()
    for row in range(len(matches)):
        a, b, keypoint = (int(x[row]) for x in (matches.view_a, matches.view_b, matches.keypoint_a))
        theirs = opencv_distance_px(
            pixels[a, keypoint],
            pixels[b, keypoint],
            world.cam_from_world[a],
            world.cam_from_world[b],
            world.camera,
        )
        assert abs(float(ours[row]) - theirs) < 0.01 + 1e-3 * theirs
    assert ours.median() > 3


def test_wrong_matches_are_far_from_their_lines(device, generator):
    world = make_world(views=6, points=80).to(device)
    right = on(random_matches(6, 80, 400, generator), device)
    wrong = PairMatches(right.view_a, right.view_b, right.keypoint_a, (right.keypoint_b + 1) % 80)
    distance = epipolar_distance_px(wrong, world.pixels(), world.cam_from_world, world.camera)
    assert (distance > 5).float().mean() > 0.8


def test_two_views_from_one_place_have_no_line_and_no_nan(device):
    world = make_world(views=2, points=20).to(device)
    poses = world.cam_from_world[:1].expand(2, -1, -1)
    matches = on(random_matches(2, 20, 50, torch.Generator().manual_seed(0)), device)
    assert epipolar_distance_px(matches, world.pixels(), poses, world.camera).isfinite().all()


def test_matches_are_put_together_and_picked(device, generator):
    first, second = (on(random_matches(4, 9, count, generator), device) for count in (5, 3))
    both = PairMatches.concatenate([first, second], device)
    assert len(both) == 8
    keep = torch.tensor([True, False] * 4, device=device)
    for name in PairMatches.__slots__:
        parts = torch.cat([getattr(first, name), getattr(second, name)])
        assert torch.equal(getattr(both, name), parts)
        assert torch.equal(getattr(both.where(keep), name), parts[::2])
    nothing = PairMatches.concatenate([], device)
    assert len(nothing) == 0
    assert nothing.view_a.dtype == torch.int64
