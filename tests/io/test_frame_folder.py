"""Frames of videos on disk: the right ones, in order, complete or not at all."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reference.videos import write_video

from acezero_gpu.data.frame_selection import FrameSelection
from acezero_gpu.io import frame_folder
from acezero_gpu.io.frame_folder import find_videos, frame_times, take_frames
from acezero_gpu.runtime import InputError

EVERY_THIRD = FrameSelection(every=3)
SHARPEST = (1, 5, 6, 9)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten frames, dark to light; of each three one has far more contrast."""
    frames = np.zeros((10, 48, 64, 3), np.uint8)
    checks = (np.indices((48, 64)).sum(0) // 8 % 2)[..., None]
    for number in range(10):
        frames[number] = 20 * number + (60 if number in SHARPEST else 6) * checks
    return write_video(tmp_path_factory.mktemp("video") / "my phone.mkv", frames)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_sharpest_frames_are_written_in_the_order_of_time(video: Path, tmp_path: Path) -> None:
    told: list[str] = []
    taken = take_frames((video,), tmp_path / "out", EVERY_THIRD, tell=told.append)
    assert (taken.taken, taken.seen, taken.complaints) == (4, 10, ())
    pictures = [f"my_phone_{number:06d}.jpg" for number in SHARPEST]
    assert names(tmp_path / "out") == ["frames.json", *pictures]
    assert names(tmp_path) == ["out"], "nothing else is left"
    for name, number in zip(pictures, SHARPEST, strict=True):
        with Image.open(tmp_path / "out" / name) as image:
            assert image.size == (64, 48)
            assert np.asarray(image).mean() == pytest.approx(20 * number + 30, abs=2)
    table = json.loads((tmp_path / "out" / "frames.json").read_text())
    assert [row["time_s"] for row in table["frames"]] == pytest.approx([n / 10 for n in SHARPEST])
    assert told[-1].endswith("wrote 4 of 4 frames")


def test_names_of_several_videos_sort_in_their_order(video: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mkv").write_bytes(video.read_bytes())
    take_frames((video, tmp_path / "a.mkv"), tmp_path / "out", FrameSelection(max_frames=1))
    assert names(tmp_path / "out") == ["1_my_phone_000001.jpg", "2_a_000001.jpg", "frames.json"]
    assert find_videos([video.parent, tmp_path / "a.mkv"]) == (video, tmp_path / "a.mkv")
    with pytest.raises(InputError, match="no video there"):
        find_videos([tmp_path / "out"])
    with pytest.raises(InputError, match="no such video"):
        find_videos([tmp_path / "b.mkv"])


def test_times_are_found_again(video: Path, tmp_path: Path) -> None:
    take_frames((video,), tmp_path / "out", EVERY_THIRD)
    paths = sorted((tmp_path / "out").glob("*.jpg"))
    assert frame_times(paths[1:]) == pytest.approx([0.5, 0.6, 0.9])
    assert frame_times([*paths, tmp_path / "other.jpg"]) is None
    assert frame_times([*paths, None]) is None
    assert frame_times([tmp_path / "other.jpg"]) is None


def test_frames_are_replaced_when_asked_and_reused_when_the_same(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    take_frames((video,), out, EVERY_THIRD)
    with pytest.raises(InputError, match="holds 4 frames already"):
        take_frames((video,), out, EVERY_THIRD)
    (out / "notes.txt").write_text("mine")
    fewer = FrameSelection(max_frames=2)
    take_frames((video,), out, fewer, overwrite=True)
    assert names(out) == ["frames.json", "my_phone_000001.jpg", "my_phone_000005.jpg", "notes.txt"]

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("decoded again")

    with monkeypatch.context() as patched:
        patched.setattr(frame_folder, "VideoFrames", fail)
        again = take_frames((video,), out, fewer, overwrite=True, reuse=True)
        assert (again.taken, again.seen, again.reused) == (2, 10, True)
        with pytest.raises(AssertionError, match="decoded again"):
            take_frames((video,), out, EVERY_THIRD, overwrite=True, reuse=True)
    (out / "my_phone_000001.jpg").unlink()
    assert not take_frames((video,), out, fewer, overwrite=True, reuse=True).reused
    assert len(names(out)) == 4


def test_images_of_others_are_never_mixed_with(video: Path, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "holiday.png")
    with pytest.raises(InputError, match=r"holiday\.png"):
        take_frames((video,), tmp_path, EVERY_THIRD, overwrite=True)
    assert names(tmp_path) == ["holiday.png"]


def test_an_interrupted_call_leaves_nothing(video: Path, tmp_path: Path) -> None:
    def interrupt(text: str) -> None:
        raise KeyboardInterrupt(text)

    with pytest.raises(KeyboardInterrupt):
        take_frames((video,), tmp_path / "out", EVERY_THIRD, tell=interrupt)
    assert names(tmp_path) == []


def test_too_strict_a_limit_says_what_there_is(video: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the sharpest of .* has"):
        take_frames((video,), tmp_path / "out", FrameSelection(min_sharpness=1e9))
    assert names(tmp_path) == []


def test_damage_is_told_with_what_could_be_read(video: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    taken = take_frames((cut,), tmp_path / "out", FrameSelection())
    assert 1 < taken.taken == taken.seen < 10
    assert len(taken.complaints) == 1
    assert f"{taken.seen} frames" in taken.complaints[0]
