"""Videos on the command line: as frames, and in the place of photographs."""

from pathlib import Path

import pytest
from cli_calls import SMALL, Call
from reference.videos import plain_frames, write_video


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "walk.mkv", plain_frames(12))


def test_frames_are_taken_and_refused_twice(call: Call, video: Path, tmp_path: Path) -> None:
    said = call("frames", video, tmp_path / "out", "--fps", 5, "--max-frames", 4)
    assert said.code == 0, said.err
    assert said.out.startswith("took 4 of 12 frames")
    assert len(list((tmp_path / "out").glob("walk_*.jpg"))) == 4
    again = call("frames", video, tmp_path / "out")
    assert again.code == 2
    assert "holds 4 frames already" in again.sentence


def test_two_ways_to_thin_out_exclude_each_other(call: Call, video: Path, tmp_path: Path) -> None:
    said = call("frames", video, tmp_path / "out", "--fps", 5, "--every", 4)
    assert said.code == 2
    assert "one of the two" in said.sentence


def test_reconstruct_takes_a_video(call: Call, video: Path, tmp_path: Path, no_loop: list) -> None:
    """Its frames lie in the run's folder, and are there the next time."""
    out = tmp_path / "run"
    flags = ["--every", 2, "--max-frames", 5, *SMALL]
    assert call("reconstruct", video, out, *flags).code == 1  # the loop gives up at once
    (bank, *_), *_ = no_loop
    files = [Path(name) for name in bank.images.image_set.names]
    assert len(files) == 5
    assert {file.parent for file in files} == {out / "frames"}
    assert "5 of 12 frames" in (out / "log.txt").read_text()
    assert "--every 2 --max-frames 5" in (out / "config.toml").read_text().splitlines()[0]
    first = files[0].stat().st_mtime_ns
    assert call("reconstruct", video, out, *flags).code == 1
    assert "as taken before" in (out / "log.txt").read_text()
    assert files[0].stat().st_mtime_ns == first


def test_a_broken_video_is_told_before_the_folder_is_made(call: Call, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    said = call("reconstruct", tmp_path / "broken.mp4", tmp_path / "run", *SMALL)
    assert said.code == 2
    assert "broken.mp4" in said.sentence
    assert not (tmp_path / "run").exists()


def test_rates_are_for_videos_only(call: Call, photos: Path, tmp_path: Path) -> None:
    for flags in (("--fps", 2), ("--max-frames", 100), ("--every", 2, "--min-sharpness", 9)):
        said = call("reconstruct", photos, tmp_path / "run", *flags)
        assert said.code == 2
        assert all(flag in said.sentence for flag in flags[::2])


def test_other_commands_say_how_to_get_photographs(call: Call, video: Path, tmp_path: Path) -> None:
    said = call("map", video, tmp_path / "out", "--poses", video)
    assert said.code == 2
    assert "acezero frames" in said.sentence
