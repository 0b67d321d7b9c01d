"""``acezero frames``: pictures from videos."""

from pathlib import Path

from acezero_gpu.cli import exchange_options as exchange
from acezero_gpu.cli import options as opt
from acezero_gpu.cli.output import say
from acezero_gpu.cli.run_log import RunLog, verbosity
from acezero_gpu.data.frame_selection import FrameSelection
from acezero_gpu.data.video import VIDEO_SUFFIXES, VideoFrames
from acezero_gpu.io.frame_folder import find_videos, take_frames
from acezero_gpu.runtime import InputError

FRAME_FOLDER = "frames"
"""Where a run keeps the frames of its video, below its own folder."""


def frames(
    videos: exchange.Videos,
    out: exchange.FramesOut,
    fps: exchange.Fps = None,
    every: exchange.Every = None,
    min_sharpness: exchange.MinSharpness = 0.0,
    max_frames: exchange.MaxFrames = None,
    min_side: exchange.MinSide = 540,
    overwrite: exchange.FramesOverwrite = False,
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """Frames of videos as photographs for reconstruct: all of them, or the sharpest of each stretch of time."""
    selection = frame_selection(fps, every, min_sharpness, max_frames, min_side)
    with RunLog(verbosity(quiet, verbose)) as log:
        log.stage("frames")
        taken = take_frames(find_videos(videos), out, selection, overwrite=overwrite, tell=log.line)
        for complaint in taken.complaints:
            log.warn(complaint)
    say(f"took {taken.taken} of {taken.seen} frames, {log.seconds:.0f} s → {out}")


def named_video(images: str) -> Path | None:
    """The video that IMAGES is, if it is one; ``InputError`` if no frame of it can be read."""
    path = Path(images)
    if not path.is_file() or path.suffix.lower() not in VIDEO_SUFFIXES:
        return None
    next(iter(VideoFrames(path, grey=True)))
    return path


def frames_of_run(video: Path, out: Path, selection: FrameSelection, log: RunLog) -> Path:
    """The folder of a run's frames: those that it has already if they are of the same video and selection."""
    folder = out / FRAME_FOLDER
    taken = take_frames((video,), folder, selection, overwrite=True, reuse=True, tell=log.line)
    for complaint in taken.complaints:
        log.warn(complaint)
    log.line(
        f"{taken.taken} of {taken.seen} frames of {video}" + (", as taken before" if taken.reused else "")
    )
    return folder


def refuse_video_flags(
    images: str, fps: float | None, every: int | None, min_sharpness: float, max_frames: int | None
) -> None:
    """``InputError`` for what says which frames to take, where there is no video."""
    flags = {"--fps": fps, "--every": every, "--min-sharpness": min_sharpness, "--max-frames": max_frames}
    if given := [flag for flag, value in flags.items() if value]:
        raise InputError(f"{' and '.join(given)}: of use for a video only, and {images} is none.")


def frame_selection(
    fps: float | None, every: int | None, min_sharpness: float, max_frames: int | None, min_side: int = 540
) -> FrameSelection:
    """The flags as one record; ``InputError`` for two that exclude each other."""
    if fps is not None and every is not None:
        raise InputError("--fps and --every: give one of the two.")
    return FrameSelection(fps, every, min_sharpness, max_frames, min_side)
