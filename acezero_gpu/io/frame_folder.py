"""A folder of frames taken from videos, with a table of where each is from."""

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from acezero_gpu.data.frame_selection import FrameSelection, select_frames, sharpness
from acezero_gpu.data.image_set import IMAGE_SUFFIXES, files_of
from acezero_gpu.data.video import VIDEO_SUFFIXES, VideoFrames
from acezero_gpu.io.placed_images import JPEG_QUALITY
from acezero_gpu.runtime import InputError
from acezero_gpu.runtime.atomic import write_atomically

FRAMES_FILE = "frames.json"
FORMAT = "acezero-frames-1"
_TELL_EVERY = 25
"""Frames between two words about the progress."""

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class TakenFrames:
    """What an extraction has to say."""

    taken: int
    """Frames in the folder."""
    seen: int
    """Frames that the videos have."""
    complaints: tuple[str, ...]
    """One sentence per video that the decoder was not happy with."""
    reused: bool = False
    """Whether the folder held these very frames already."""


def find_videos(specs: Sequence[str | Path]) -> tuple[Path, ...]:
    """The files that are named; of a folder those that look like videos, alphabetically.

    ``InputError`` for a name that leads nowhere, and for a folder without videos.
    """
    videos: list[Path] = []
    for spec in map(Path, specs):
        found = files_of(spec, VIDEO_SUFFIXES) if spec.is_dir() else [spec]
        if not found:
            raise InputError(f"{spec}: no video there ({', '.join(sorted(VIDEO_SUFFIXES))}).")
        missing = next((path for path in found if not path.is_file()), None)
        if missing is not None:
            raise InputError(f"{missing}: no such video.")
        videos += found
    return tuple(videos)


def take_frames(
    videos: Sequence[Path],
    folder: Path,
    selection: FrameSelection,
    *,
    overwrite: bool = False,
    reuse: bool = False,
    tell: Tell = lambda _text: None,
) -> TakenFrames:
    """Write the chosen frames of all videos as JPEG files, and ``frames.json`` with their times.

    Names sort in the order of the videos and of time. The folder gets its frames when all are there, so a call that
    is interrupted leaves nothing. Each video is read twice: to look at all frames, and to write the chosen ones.
    ``reuse`` takes the frames that an earlier call with the same videos and selection has left. ``InputError`` for a
    folder that holds images of another origin, or frames unless ``overwrite``; for a video without frames, and if
    no frame is chosen.
    """
    source = _source(videos, selection)
    earlier = _earlier(folder)
    if reuse and earlier is not None and earlier["source"] == source and _complete(folder, earlier):
        return TakenFrames(len(earlier["frames"]), earlier["seen"], (), reused=True)
    _require_room(folder, earlier, overwrite)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        rows: list[dict[str, Any]] = []
        complaints, seen = [], 0
        for index, video in enumerate(videos):
            frames = VideoFrames(video, selection.min_side_px, grey=True)
            times, sharp = _look(frames, tell)
            seen += len(times)
            if frames.complaints:
                complaints.append(
                    f"{video}: the decoder found damage ({frames.complaints[0]}); {len(times)} frames up to "
                    f"{times[-1]:.1f} s could be read."
                )
            chosen = select_frames(times, sharp, selection)
            rows += _write(
                video, partial, _prefix(video, index, len(videos)), chosen, times, sharp, selection, tell
            )
        if not rows:
            raise InputError(
                f"--min-sharpness {selection.min_sharpness:g}: no frame is as sharp; the sharpest of {videos[-1]} "
                f"has {sharp.max():.1f}."
            )
        table = {"format": FORMAT, "source": source, "seen": seen, "frames": rows}
        write_atomically(partial / FRAMES_FILE, json.dumps(table, indent=1, ensure_ascii=False) + "\n")
        _replace(folder, earlier, partial)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); give another folder.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return TakenFrames(len(rows), seen, tuple(complaints))


def frame_times(paths: Sequence[Path | None]) -> list[float] | None:
    """Seconds at which these images were taken, if all lie in one folder of frames of one video; else None."""
    folders = {path.parent for path in paths if path is not None}
    table = _earlier(folders.pop()) if len(folders) == 1 else None
    if table is None or len(table["source"]["videos"]) != 1:
        return None
    time_of = {row["name"]: float(row["time_s"]) for row in table["frames"]}
    if any(path is None or path.name not in time_of for path in paths):
        return None
    return [time_of[path.name] for path in paths if path is not None]


def _look(frames: VideoFrames, tell: Tell) -> tuple[np.ndarray, np.ndarray]:
    """Time and sharpness of every frame."""
    times, sharp = [], []
    for frame in frames:
        times.append(frame.time_s)
        sharp.append(sharpness(frame.pixels))
        if len(times) % _TELL_EVERY == 0:
            about = f" of about {frames.expected}" if frames.expected else ""
            tell(f"  {frames.path.name}: looked at {len(times)}{about} frames")
    return np.array(times), np.array(sharp)


def _write(
    video: Path,
    folder: Path,
    prefix: str,
    chosen: np.ndarray,
    times: np.ndarray,
    sharp: np.ndarray,
    selection: FrameSelection,
    tell: Tell,
) -> list[dict[str, Any]]:
    wanted, rows = set(chosen.tolist()), []
    for frame in VideoFrames(video, selection.min_side_px) if wanted else ():
        if frame.number not in wanted:
            continue
        name = f"{prefix}{frame.number:06d}.jpg"
        Image.fromarray(frame.pixels).save(folder / name, quality=JPEG_QUALITY, subsampling=0)
        rows.append(
            {
                "name": name,
                "video": str(video),
                "number": frame.number,
                "time_s": round(float(times[frame.number]), 6),
                "sharpness": round(float(sharp[frame.number]), 2),
            }
        )
        if len(rows) % _TELL_EVERY == 0 or len(rows) == len(wanted):
            tell(f"  {video.name}: wrote {len(rows)} of {len(wanted)} frames")
        if len(rows) == len(wanted):
            break
    return rows


def _prefix(video: Path, index: int, videos: int) -> str:
    """Of the video's name what cannot be misread; of several videos their number first, so that names sort."""
    word = re.sub(r"[^\w-]+", "_", video.stem).strip("_") or "video"
    return f"{word}_" if videos == 1 else f"{index + 1:0{len(str(videos))}d}_{word}_"


def _source(videos: Sequence[Path], selection: FrameSelection) -> dict[str, Any]:
    """What the frames depend on, as JSON keeps it."""
    files = [
        {
            "path": str(video.absolute()),
            "bytes": video.stat().st_size,
            "modified_ns": video.stat().st_mtime_ns,
        }
        for video in videos
    ]
    return {"videos": files, "selection": asdict(selection)}


def _earlier(folder: Path) -> dict[str, Any] | None:
    """The table of an earlier extraction; None where there is none that can be read."""
    try:
        table = json.loads((folder / FRAMES_FILE).read_text(encoding="utf-8"))
        rows = [(str(row["name"]), float(row["time_s"])) for row in table["frames"]]
        known = (
            table["format"] == FORMAT and len(table["source"]["videos"]) > 0 and table["seen"] >= len(rows)
        )
        return table if known else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _complete(folder: Path, table: dict[str, Any]) -> bool:
    return all((folder / row["name"]).is_file() for row in table["frames"])


def _require_room(folder: Path, earlier: dict[str, Any] | None, overwrite: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is not a folder; give another one.")
    if earlier is not None and not overwrite:
        raise InputError(
            f"{folder}: holds {len(earlier['frames'])} frames already; give another folder, or --overwrite."
        )
    ours = {row["name"] for row in earlier["frames"]} if earlier else set()
    others = (
        [path for path in files_of(folder, IMAGE_SUFFIXES) if path.name not in ours]
        if folder.is_dir()
        else []
    )
    if others:
        raise InputError(
            f"{folder}: holds images that are no frames of an earlier call ({others[0].name}); give another folder."
        )


def _replace(folder: Path, earlier: dict[str, Any] | None, partial: Path) -> None:
    """The table goes first and comes last: a folder with a table has all its frames."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FRAMES_FILE).unlink(missing_ok=True)
    for row in earlier["frames"] if earlier else ():
        (folder / Path(row["name"]).name).unlink(missing_ok=True)
    for path in sorted(partial.iterdir(), key=lambda path: path.name == FRAMES_FILE):
        path.replace(folder / path.name)
