"""What is kept of a round, and what is said of images that failed."""

from dataclasses import replace
from pathlib import Path

import pypose as pp
import pytest
import torch
from reference.turning_walk import walk_with_turn

from acezero_gpu.data import PosedViews
from acezero_gpu.data.point_tracks import PointTracks
from acezero_gpu.geometry import se3_from_matrix
from acezero_gpu.io import read_history, write_history
from acezero_gpu.mapping import TrainingProgress
from acezero_gpu.network import Head, HeadConfig, SceneMap
from acezero_gpu.reconstruction import ReconstructionStep
from acezero_gpu.reconstruction.history import RunHistory
from acezero_gpu.reconstruction.state import Placement
from acezero_gpu.runtime import InputError

BEFORE = RunHistory("/photos", (640, 480), (("b.jpg", "truncated"),), 1200, 120.0, True)
TRAINING = (
    TrainingProgress(100, 200, 5.1, 0.25, 0.004, 526.0),
    TrainingProgress(200, 200, 3.3, 0.5, 1e-4, 527.125),
)


def step(index: int, name: str = "iteration") -> ReconstructionStep:
    """Placed by the map, by keypoints, contradicted, missed by a little, missed altogether."""
    names = ("a.jpg", "ein Bild.jpg", "c.jpg", "d.jpg", b"\xff.jpg".decode("utf-8", "surrogateescape"))
    confidence = torch.tensor([600.0, 120.0, 118.8, 60.0, 0.0])
    views = PosedViews(names, pp.identity_SE3(5).tensor(), torch.full((5,), 527.125), confidence)
    given = PosedViews(
        names, views.cam_from_world, views.focal_px, torch.tensor([torch.inf, torch.inf, 0, 0, 0])
    )
    placement = Placement(
        torch.tensor([True, True, False, False, False]),
        torch.tensor([True, False, False, False, False]),
        torch.tensor([True, True, False, False, False]),
        torch.tensor([False, False, True, False, False]),
        torch.tensor([600.0, 90.0, 300.0, 60.0, 0.0]),
    )
    scene_map = SceneMap(Head(4, HeadConfig(width=8), torch.zeros(3)), "e", 240, 1.1, (0.01, -0.02))
    return ReconstructionStep(index, name, scene_map, given, views, 2, 1, "enough", TRAINING, placement)


def test_images_are_told_how_they_were_placed_and_why_not() -> None:
    images = BEFORE.after(step(0), {}).images
    assert [image.placed_by for image in images] == ["map", "keypoints", "none", "none", "none"]
    assert [image.map_inlier_share for image in images] == pytest.approx([0.5, 0.075, 0.25, 0.05, 0.0])
    assert [image.reason for image in images] == [
        None,
        None,
        "its keypoints contradict the pose that the map gave it",
        "5.0 % of its cells agree with the map, 10 % are needed, and its keypoints do not place it",
        "none of its cells agrees with the map, 10 % are needed, and its keypoints do not place it",
    ]


def test_a_seed_without_a_map_says_so() -> None:
    grown = BEFORE.after(replace(step(0, "seed"), scene_map=None, training_log=()), {})
    assert grown.rounds[0].mapped == 0
    assert grown.images[4].reason == "its keypoints do not place it, and no map has been trained yet"


def test_a_round_has_the_seconds_that_were_spent_in_it() -> None:
    history = BEFORE.after(step(0, "seed"), {"loading": 2.0, "mapping": 5.0})
    history = history.after(step(1), {"loading": 2.0, "mapping": 11.0, "registration": 3.0})
    history = history.after(step(2, "final"), {"loading": 2.0, "mapping": 30.0, "registration": 3.5})
    assert [dict(round_.seconds) for round_ in history.rounds] == [
        {"loading": 2.0, "mapping": 5.0},
        {"mapping": 6.0, "registration": 3.0},
        {"mapping": 19.0, "registration": 0.5},
    ]
    assert [(r.name, r.mapped, r.registered, r.registered_by_map) for r in history.rounds][2] == (
        "final",
        2,
        2,
        1,
    )
    assert history.rounds[2].training == TRAINING


def step_of_a_walk(name: str, across: int) -> ReconstructionStep:
    """22 images of a walk with a turn on the spot; ``across`` points tie what is before to what is behind."""
    points, centres, view, point = walk_with_turn(torch.device("cpu"), across)
    count = len(centres)
    poses = torch.eye(3, 4).repeat(count, 1, 1)
    poses[:, :, 3] = -centres
    names = tuple(f"{row:02d}.jpg" for row in range(count))
    sure, yes = torch.full((count,), 600.0), torch.ones(count, dtype=torch.bool)
    views = PosedViews(names, se3_from_matrix(poses), torch.full((count,), 500.0), sure)
    tracks = PointTracks(points, view, point, torch.zeros(len(view), 2), torch.zeros(len(view)))
    placed = Placement(yes, ~yes, yes, ~yes, sure)
    return ReconstructionStep(2, name, None, views, views, count, 0, "enough", (), placed, tracks)


def test_images_whose_scale_is_a_guess_are_named(tmp_path: Path) -> None:
    history = BEFORE.after(step_of_a_walk("final", across=0), {})
    parts = [image.scale_part for image in history.images]
    apart = [image.name for image in history.images if image.scale_part == 1]
    assert set(parts) == {0, 1} and 0 < len(apart) <= 11
    assert f"ties them to the rest: {len(apart)} images ({apart[0]} to {apart[-1]})" in str(
        history.uncertain_scale
    )
    write_history(tmp_path / "history.json", history)
    assert read_history(tmp_path / "history.json") == history


def test_stretches_of_several_parts_are_told_apart() -> None:
    history = BEFORE.after(step_of_a_walk("final", across=20), {})
    parts = [1, 1, 1, 0, 0, 1, 0, 2, 2, 0, 2, 0, 2, 0, 2, 0, 2, 0, 2, 0, 0, 0]
    images = tuple(replace(image, scale_part=part) for image, part in zip(history.images, parts, strict=True))
    told = str(replace(history, images=images).uncertain_scale)
    assert (
        "4 images (00.jpg to 02.jpg, 05.jpg) and 7 images (07.jpg to 08.jpg, 10.jpg, 12.jpg, 14.jpg and 2 further"
        in told
    )
    assert "a factor for each" in told


def test_given_poses_that_are_held_hold_the_scale() -> None:
    fixed = replace(BEFORE, poses_fixed=True).after(step_of_a_walk("final", across=0), {})
    assert fixed.uncertain_scale is None


@pytest.mark.parametrize(("name", "across"), [("final", 20), ("iteration", 0)])
def test_nothing_is_said_of_what_hangs_together_or_is_not_finished(name: str, across: int) -> None:
    history = BEFORE.after(step_of_a_walk(name, across), {})
    assert {image.scale_part for image in history.images} == {0}
    assert history.uncertain_scale is None


def test_it_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    history = BEFORE.after(step(0, "seed"), {"mapping": 5.0}).after(step(1), {"mapping": 1 / 3 + 5.0})
    write_history(tmp_path / "history.json", history)
    assert read_history(tmp_path / "history.json") == history
    write_history(tmp_path / "history.json", BEFORE)
    assert read_history(tmp_path / "history.json") == BEFORE
    assert [path.name for path in tmp_path.iterdir()] == ["history.json"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": "acezero-history-1"}', '{"format": "another"}', "\x00"]
)
def test_a_damaged_file_is_told_by_its_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "history.json").write_text(text)
    with pytest.raises(InputError, match=r"history\.json: not the history"):
        read_history(tmp_path / "history.json")
