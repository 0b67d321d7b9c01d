"""Frames of a video, upright and with their times, by the ffmpeg that the imageio-ffmpeg wheel brings."""

import os
import re
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from acezero_gpu.runtime import InputError

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".mts", ".m2ts", ".ts", ".3gp", ".wmv"}
)
"""What counts as a video in a folder, and where photographs are expected."""

_COMPLAINT = re.compile(r"(?:\[[^\]]*\] )?\[(?:error|fatal)\] (.*\S)")
_FRAME = re.compile(r"\bn: *\d+ pts: *\S+ +pts_time: *(\S+) .*\bs:(\d+)x(\d+)")
_INPUT = re.compile(r"Input #0, (\S+), from")
_DURATION = re.compile(r"Duration: (\d+):(\d+):(\d+(?:\.\d+)?)")
_RATE = re.compile(r"Video: .*?([\d.]+) fps")
_NOT_VIDEO = ("tty",)
"""Formats that ffmpeg takes text files for."""


def _lines(descriptor: int) -> Iterator[str]:
    """Lines of a pipe until it is closed.

    Not through a buffered reader: Python aborts if it ends while another thread waits in one.
    """
    rest = b""
    while data := os.read(descriptor, 1 << 16):
        *lines, rest = (rest + data).split(b"\n")
        yield from (line.decode("utf-8", errors="replace") for line in lines)


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of a video."""

    number: int
    """Its place among the frames that can be decoded, from 0."""
    time_s: float
    """Its own timestamp: frames of a variable rate are not equally far apart."""
    pixels: NDArray[np.uint8]
    """``(h, w, 3)`` RGB or ``(h, w)`` grey, upright and with square pixels."""


class VideoFrames:
    """All frames of a file, in order, each time that it is iterated over.

    Frames are turned as the file's rotation says, made of square pixels, and reduced to the shortest side
    ``min_side_px`` (0: their own size; they are never enlarged). A file that is cut off gives the frames that are
    there; what the decoder complained of is in ``complaints`` afterwards. ``InputError`` if there is no frame.
    """

    def __init__(self, path: Path, min_side_px: int = 0, *, grey: bool = False) -> None:
        if not path.is_file():
            raise InputError(f"{path}: no such video.")
        self.path, self.min_side_px, self.grey = path, min_side_px, grey
        self.complaints: list[str] = []
        self.duration_s: float | None = None
        self.rate: float | None = None

    @property
    def expected(self) -> int | None:
        """About how many frames there are, as the file's head says; known once the first one was read."""
        return None if not (self.duration_s and self.rate) else round(self.duration_s * self.rate)

    def __iter__(self) -> Iterator[Frame]:
        self.complaints.clear()
        process = self._started()
        found: SimpleQueue[tuple[float | None, int, int] | None] = SimpleQueue()
        listener = threading.Thread(target=self._listen, args=(process, found), daemon=True)
        listener.start()
        number = 0
        try:
            # The decoder tells a frame's time and size before it passes the frame on.
            while (told := found.get()) is not None:
                frame = self._read(process, number, *told)
                if frame is None:
                    break
                yield frame
                number += 1
        finally:
            process.kill()
            listener.join()
            process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
        if number == 0:
            raise InputError(f"{self.path}: {self._why_nothing()}")

    def _started(self) -> subprocess.Popen:
        try:
            return subprocess.Popen(
                self._command(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
        except (OSError, RuntimeError) as error:  # the wheel has no binary for some machines
            raise InputError(
                f"{self.path}: no ffmpeg to read it with ({error}); install imageio-ffmpeg anew, or name one in "
                "the environment variable IMAGEIO_FFMPEG_EXE."
            ) from error

    def _command(self) -> list[str]:
        limit = f"min(1,{self.min_side_px}/min(iw*sar,ih))" if self.min_side_px else "1"
        size = f"w='round(iw*sar*{limit})':h='round(ih*{limit})'"
        kind = "gray" if self.grey else "rgb24"
        filters = f"scale={size}:flags=area,setsar=1,format={kind},showinfo=checksum=0"
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-nostdin", "-loglevel", "level+info"]
        # Nothing but this file is opened, whatever a playlist in it says.
        command += ["-protocol_whitelist", "file", "-i", f"file:{self.path}"]
        # V: pictures that move, not the cover of a record. Passed through: a variable rate stays one.
        command += ["-map", "0:V:0", "-fps_mode", "passthrough", "-vf", filters]
        return [*command, "-f", "rawvideo", "pipe:1"]

    def _listen(self, process: subprocess.Popen, found: SimpleQueue) -> None:
        assert process.stderr is not None
        for line in _lines(process.stderr.fileno()):
            if (match := _FRAME.search(line)) is not None:
                time = None if match[1] == "NOPTS" else float(match[1])
                found.put((time, int(match[2]), int(match[3])))
            elif (match := _COMPLAINT.match(line)) is not None:
                self.complaints.append(match[1])
            elif (match := _INPUT.search(line)) is not None and match[1] in _NOT_VIDEO:
                self.complaints.append("it is text")
                break
            elif (match := _DURATION.search(line)) is not None:
                hours, minutes, seconds = map(float, match.groups())
                self.duration_s = 3600 * hours + 60 * minutes + seconds
            elif self.rate is None and (match := _RATE.search(line)) is not None:
                self.rate = float(match[1])
        found.put(None)

    def _read(
        self, process: subprocess.Popen, number: int, time_s: float | None, width: int, height: int
    ) -> Frame | None:
        assert process.stdout is not None
        shape = (height, width) if self.grey else (height, width, 3)
        data = process.stdout.read(int(np.prod(shape)))
        if len(data) < np.prod(shape):
            return None
        if time_s is None:
            time_s = number / (self.rate or 1.0)
        return Frame(number, time_s, np.frombuffer(data, np.uint8).reshape(shape))

    def _why_nothing(self) -> str:
        complaints = " ".join(self.complaints)
        if "matches no streams" in complaints:
            return "holds no moving pictures, only sound or the like; give a video."
        said = f" ({self.complaints[0]})" if self.complaints else ""
        if "moov atom not found" in complaints:
            return f"has no table of contents{said}: it is no video, or cut off before its end; no frame can be read."
        return f"no frame can be read{said}; is it a video, and whole?"
