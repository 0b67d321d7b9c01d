"""Files of one frame find each other by the strictest rule that finds anything."""

from pathlib import Path

import pytest

from acezero_gpu.data.file_matching import frame_key, match_by_key, match_files
from acezero_gpu.runtime import InputError


def test_frame_key_strips_what_tells_the_files_of_a_frame_apart() -> None:
    files = (
        "d/frame-000000.color.png",
        "frame-000000.depth.png",
        "frame-000000.pose.txt",
        "frame-000000.jpg",
    )
    assert {frame_key(name) for name in files} == {"frame-000000"}
    assert frame_key("color.png") == "color"


def test_matching_prefers_the_stricter_rule_and_never_serves_two() -> None:
    assert match_by_key(["a/1.png", "b/1.png"], ["b/1.png", "a/1.png"]) == [1, 0]
    assert match_by_key(["x/2.png", "x/1.png"], ["1.png", "2.png"]) == [1, 0]
    assert match_by_key(["x/2.png", "x/1.png"], ["1.txt"]) == [None, 0]
    assert match_by_key(["a/1.png", "b/1.png"], ["1.txt"]) == [None, None]
    assert match_by_key(["a/1.png", "b/1.png", "c/2.png"], ["1.txt", "2.txt"]) == [None, None, 1]
    assert match_by_key(["a.png"], ["b.txt"]) == [None]


def test_folders_tell_frames_of_one_name_apart() -> None:
    """Sequences of unequal length, as 7-Scenes has them, wherever they lie."""
    images = [f"/data/seq-0{seq}/frame-{row:06d}.color.png" for seq in (1, 2) for row in range(2 + seq)]
    poses = [f"truth/seq-0{seq}/frame-{row:06d}.pose.txt" for seq in (2, 1) for row in range(2 + seq)]
    matches = match_by_key(images, poses)
    assert None not in matches
    for image, match in zip(images, matches, strict=True):
        assert Path(image).parts[-2:] == (
            Path(poses[match]).parts[-2],
            Path(poses[match]).name.replace("pose.txt", "color.png"),
        )
    moved = [image.replace("/data/", "elsewhere/photos/") for image in images]
    assert match_by_key(images, moved) == list(range(len(images)))


def test_white_space_may_have_become_underscores() -> None:
    assert match_by_key(["p/IMG (1).jpg", "p/IMG (2).jpg"], ["IMG_(2).jpg", "IMG_(1).jpg"]) == [1, 0]
    assert match_by_key(["a.depth.png", ".depth.png"], ["a.txt"]) == [0, None]


def test_files_without_a_common_name_pair_in_order_if_they_are_as_many(caplog) -> None:
    files = [Path("p0.txt"), Path("p1.txt")]
    with caplog.at_level("WARNING"):
        assert match_files(["z.png", "y.png"], files, spec="p", kind="files") == [files[1], files[0]]
    assert "paired in order: y.png with p0.txt, … z.png with p1.txt" in caplog.text
    with pytest.raises(InputError, match="2 files for 3 images"):
        match_files(["z.png", "y.png", "x.png"], files, spec="p", kind="files")


def test_numbers_in_names_are_ordered_as_numbers() -> None:
    names = [f"frame_{row:02d}.jpg" for row in range(12)]
    files = sorted(Path(f"m{row}.txt") for row in range(12))
    assert files[2].name == "m10.txt"
    matches = match_files(names, files, spec="p", kind="files")
    assert [match.name for match in matches if match] == [f"m{row}.txt" for row in range(12)]


def test_nothing_to_match_is_no_error() -> None:
    assert match_files([], [], spec="p", kind="files") == []
    assert match_by_key([], ["a"]) == []
