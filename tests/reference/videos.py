"""Small videos, made by the ffmpeg binary of the wheel."""

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray


def ffmpeg(*arguments: str | Path) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", *map(str, arguments)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def write_video(path: Path, frames: NDArray[np.uint8], rate: float = 10.0) -> Path:
    """Frames ``(n, h, w, 3)`` without loss."""
    height, width = frames.shape[1:3]
    raw = path.with_suffix(".raw")
    raw.write_bytes(frames.tobytes())
    source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(rate), "-i", raw]
    ffmpeg(*source, "-c:v", "ffv1", "-pix_fmt", "gbrp", path)
    raw.unlink()
    return path


def plain_frames(count: int, size: tuple[int, int] = (64, 48)) -> NDArray[np.uint8]:
    """Frame i is grey of the value 10 i, with the left half redder."""
    frames = np.zeros((count, size[1], size[0], 3), np.uint8)
    frames += 10 * np.arange(count, dtype=np.uint8)[:, None, None, None]
    frames[:, :, : size[0] // 2, 0] += 100
    return frames
