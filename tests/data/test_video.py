"""Frames come upright, with their own times, and files that are no sound videos are told apart."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from reference.videos import ffmpeg, plain_frames, write_video

from acezero_gpu.data.video import VideoFrames
from acezero_gpu.runtime import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module")
def video(folder: Path) -> Path:
    """Twelve frames at ten a second, 64x48."""
    return write_video(folder / "plain one.mkv", plain_frames(12))


@pytest.fixture(scope="module")
def compressed(folder: Path, video: Path) -> Path:
    """With its table of contents at the end, as cameras write it."""
    ffmpeg("-i", video, "-pix_fmt", "yuv420p", "-g", "4", folder / "plain.mp4")
    return folder / "plain.mp4"


def test_frames_are_those_that_went_in(video: Path) -> None:
    frames = VideoFrames(video)
    found = list(frames)
    assert [frame.number for frame in found] == list(range(12))
    assert [frame.time_s for frame in found] == pytest.approx(np.arange(12) / 10)
    assert np.array_equal(np.stack([frame.pixels for frame in found]), plain_frames(12))
    assert frames.expected == 12
    assert frames.complaints == []


def test_they_are_reduced_to_a_shortest_side_and_never_enlarged(video: Path) -> None:
    reduced = next(iter(VideoFrames(video, 24, grey=True)))
    assert reduced.pixels.shape == (24, 32)
    assert next(iter(VideoFrames(video, 240))).pixels.shape == (48, 64, 3)


def test_a_rotated_portrait_comes_upright(folder: Path, compressed: Path) -> None:
    """A quarter turn against the clock brings what was left to the bottom."""
    turned = folder / "turned.mp4"
    ffmpeg("-display_rotation", "90", "-i", compressed, "-c", "copy", turned)
    pixels = next(iter(VideoFrames(turned))).pixels.astype(int)
    assert pixels.shape == (64, 48, 3)
    redness = pixels[..., 0] - pixels[..., 2]
    assert redness[40:].mean() > 60
    assert redness[:24].mean() < 20


def test_times_of_a_variable_rate_are_the_frames_own(folder: Path, video: Path) -> None:
    uneven = folder / "uneven.mkv"
    ffmpeg("-i", video, "-vf", "select='lt(n,4)+not(mod(n,4))'", "-fps_mode", "vfr", "-c:v", "ffv1", uneven)
    found = list(VideoFrames(uneven))
    assert [frame.time_s for frame in found] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.8])
    assert [int(frame.pixels[0, -1, 2]) for frame in found] == [0, 10, 20, 30, 40, 80]


def test_pixels_come_out_square(folder: Path, video: Path) -> None:
    wide = folder / "wide.mkv"
    ffmpeg("-i", video, "-vf", "setsar=2", "-c:v", "ffv1", wide)
    assert next(iter(VideoFrames(wide))).pixels.shape == (48, 128, 3)


def test_a_cut_off_video_gives_what_is_there_and_says_so(folder: Path, video: Path) -> None:
    cut = folder / "cut.mkv"
    cut.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    frames = VideoFrames(cut)
    found = list(frames)
    assert 1 < len(found) < 12
    assert np.array_equal(found[1].pixels, plain_frames(12)[1])
    assert frames.complaints


def test_a_reader_that_stops_early_leaves_no_decoder_behind(video: Path) -> None:
    before = set(Path("/proc").glob("[0-9]*")) if Path("/proc").is_dir() else set()
    for frame in VideoFrames(video):
        assert frame.number == 0
        break
    names = [
        (process / "cmdline").read_bytes()
        for process in set(Path("/proc").glob("[0-9]*")) - before
        if (process / "cmdline").is_file()
    ]
    assert not any(str(video).encode() in name for name in names)


def test_a_program_may_end_in_the_middle_of_a_video(folder: Path) -> None:
    """A reader that is still open then must neither abort nor hold up Python."""
    long = write_video(folder / "long.mkv", plain_frames(25, (640, 480)))
    program = (
        "import builtins, pathlib, sys; from acezero_gpu.data.video import VideoFrames; "
        "builtins.kept = iter(VideoFrames(pathlib.Path(sys.argv[1]))); print(next(builtins.kept).number)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(long)], capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout.strip()) == (0, "0"), done.stderr


def test_without_ffmpeg_it_says_what_to_install(video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(video.parent / "no_ffmpeg"))
    with pytest.raises(InputError, match="no ffmpeg to read it with"):
        list(VideoFrames(video))


def test_what_is_no_video_is_said_in_a_sentence(folder: Path, compressed: Path) -> None:
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "words.txt").write_text("Frames are pictures.\n" * 100)
    (folder / "headless.mp4").write_bytes(compressed.read_bytes()[: compressed.stat().st_size // 2])
    ffmpeg("-f", "lavfi", "-i", "sine=duration=0.2", folder / "sound.mp4")
    for name, part in {
        "absent.mp4": "no such video",
        "empty.mp4": "no frame can be read",
        "words.txt": "no frame can be read",
        "headless.mp4": "cut off before its end",
        "sound.mp4": "only sound",
    }.items():
        with pytest.raises(InputError, match=part) as caught:
            list(VideoFrames(folder / name))
        assert name in str(caught.value)
