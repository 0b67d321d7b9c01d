"""A film of a reconstruction that grows: one chapter per round, then a sweep around what came of it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from acezero_gpu.data.camera_frusta import FRUSTUM_EDGES, confidence_colours, frustum_corners
from acezero_gpu.geometry import camera_centres
from acezero_gpu.runtime.atomic import replaced_when_complete
from acezero_gpu.runtime.progress import report
from acezero_gpu.viz.framing import frustum_size, middle_and_radius, up_and_ahead
from acezero_gpu.viz.panel import BACKGROUND, CUT_RADIUS, EYE_DISTANCE
from acezero_gpu.viz.splatting import Dots, Eye, draw, orbiting

WIDTH, HEIGHT = 1280, 720
HEAD_PX, FOOT_PX = 60, 44
"""Heights of the strips with the words."""
INK = (38, 42, 48)
ELEVATION_DEG, AZIMUTH_DEG = 28.0, 24.0
DRIFT_DEG_PER_S = 5.0
"""How fast the eye moves while the reconstruction grows."""
SWING_DEG = 45.0
"""The sweep goes so far to both sides where all cameras look one way; else once around."""
TOGETHER = 0.4
"""The cameras look one way if the mean of their viewing directions is at least so long."""
APPEARING_SHARE = 0.6
"""New cameras appear one by one over this share of a chapter."""
LINE_PX, MOST_CAMERAS = 2, 500


@dataclass(frozen=True, slots=True)
class FilmConfig:
    """How long the film is, and how much it shows."""

    frames_per_s: int = 24
    chapter_s: float = 1.75
    """For each round, as long as they all fit into ``growth_s``."""
    growth_s: float = 8.0
    """The most for all rounds together."""
    sweep_s: float = 6.0
    max_points: int = 60_000
    """Of a chapter; more are thinned out at random."""


@dataclass(frozen=True, slots=True)
class Chapter:
    """The reconstruction after one round."""

    caption: str
    points: Float[Tensor, "n 3"]
    colours: UInt8[Tensor, "n 3"]
    cam_from_world: Float[Tensor, "v 3 4"]
    """One row per image, the same in all chapters."""
    confidence: Float[Tensor, " v"]
    """0 for an image without a pose; otherwise on the scale of ``confidence_colours``."""


def write_film(
    path: str | Path,
    chapters: Sequence[Chapter],
    *,
    title: str,
    aspect: float = 4 / 3,
    config: FilmConfig = FilmConfig(),
) -> int:
    """Write an MP4 (H.264, 1280x720) of the chapters, which must not be none; the number of its frames.

    It needs no display and no graphics card. ``OSError`` if the encoder fails or the file cannot be written.
    """
    scene = _Scene.of(chapters, aspect, config)
    growth = max(6, int(min(config.chapter_s, config.growth_s / len(chapters)) * config.frames_per_s))
    sweep = int(config.sweep_s * config.frames_per_s)
    total = growth * len(chapters) + sweep
    with replaced_when_complete(path) as temporary:
        writer = imageio_ffmpeg.write_frames(
            str(temporary),
            (WIDTH, HEIGHT),
            pix_fmt_in="rgba",
            pix_fmt_out="yuv420p",
            fps=config.frames_per_s,
            codec="libx264",
            quality=None,
            ffmpeg_log_level="error",
            output_params=["-crf", "26", "-preset", "veryfast", "-movflags", "+faststart"],
        )
        writer.send(None)
        try:
            for index, frame in enumerate(_frames(scene, chapters, growth, sweep, title, config)):
                writer.send(np.ascontiguousarray(frame))
                report(index + 1, total, "frames")
        finally:
            writer.close()
    return total


def _frames(
    scene: "_Scene", chapters: Sequence[Chapter], growth: int, sweep: int, title: str, config: FilmConfig
) -> Iterator[UInt8[np.ndarray, "h w 4"]]:
    for row in range(len(chapters)):
        strips = _strips(title, chapters[row].caption)
        for step in range(growth):
            ahead_s = (growth * (len(chapters) - row) - step) / config.frames_per_s
            azimuth = AZIMUTH_DEG - DRIFT_DEG_PER_S * ahead_s
            shown = min(1.0, (step + 1) / (APPEARING_SHARE * growth))
            yield _with_words(scene.picture(row, azimuth, shown), strips)
    strips = _strips(title, chapters[-1].caption)
    for step in range(sweep):
        yield _with_words(scene.picture(len(chapters) - 1, scene.sweep_deg(step / sweep), 1.0), strips)


class _Scene:
    """All chapters in one frame of unit size, and the eye that looks at them."""

    def __init__(
        self,
        dots: list[Dots],
        lines: list[Float[np.ndarray, "v s 3"]],
        line_colours: list[UInt8[np.ndarray, "v 3"]],
        posed: list[Bool[np.ndarray, " v"]],
        up_ahead: tuple[Float[np.ndarray, "3"], Float[np.ndarray, "3"]],
        centres: Float[np.ndarray, "c 3"],
        together: bool,
    ) -> None:
        self._dots, self._lines, self._line_colours, self._posed = dots, lines, line_colours, posed
        self._up, self._ahead = up_ahead
        self._centres, self._together = centres, together
        self._scale_px, self._middle_px = self._fitted()

    @staticmethod
    def of(chapters: Sequence[Chapter], aspect: float, config: FilmConfig) -> "_Scene":
        last = chapters[-1]
        posed = last.confidence > 0
        points = _finite(last)[0]
        poses = last.cam_from_world[posed].float()
        middle, radius = middle_and_radius(points, camera_centres(poses))
        up, ahead = up_and_ahead(points - middle, poses)
        size = frustum_size(poses, radius)
        keep = _thinned_rows(len(last.confidence), MOST_CAMERAS)
        dots, lines, colours, shown = [], [], [], []
        for chapter in chapters:
            dots.append(_dots_of(chapter, middle, radius, config.max_points))
            corners = (frustum_corners(chapter.cam_from_world[keep].float(), size, aspect) - middle) / radius
            lines.append(_edge_samples(corners.numpy(), size / radius))
            colours.append(confidence_colours(chapter.confidence[keep]).numpy())
            shown.append((chapter.confidence[keep] > 0).numpy())
        centres = ((camera_centres(poses) - middle) / radius).numpy().astype(np.float32)
        together = len(poses) > 0 and float(poses[:, 2, :3].mean(0).norm()) > TOGETHER
        return _Scene(dots, lines, colours, shown, (up.numpy(), ahead.numpy()), centres, together)

    def sweep_deg(self, share: float) -> float:
        """Azimuth after this share of the sweep; it ends where it began."""
        if self._together:
            return AZIMUTH_DEG + SWING_DEG * math.sin(2 * math.pi * share)
        return AZIMUTH_DEG + 360.0 * share

    def picture(self, row: int, azimuth_deg: float, shown: float) -> UInt8[np.ndarray, "h w 4"]:
        """One chapter from one side, with this share of its new cameras."""
        eye = self._eye(azimuth_deg)
        visible = self._posed[row].copy()
        before = self._posed[row - 1] if row else np.zeros_like(visible)
        new = np.flatnonzero(visible & ~before)
        visible[new[round(shown * len(new)) :]] = False
        samples = self._lines[row][visible]
        colours = np.repeat(self._line_colours[row][visible], samples.shape[1], axis=0)
        lines = Dots(samples.reshape(-1, 3), colours, LINE_PX)
        return draw(eye, [self._dots[row], lines], WIDTH, HEIGHT - HEAD_PX - FOOT_PX)

    def _eye(self, azimuth_deg: float) -> Eye:
        rotation = orbiting(self._up, self._ahead, azimuth_deg, ELEVATION_DEG)
        # What lies nearer than nearly all cameras (a ceiling, the near wall of a room) would hide the rest.
        depth = self._centres @ rotation[2]
        cut = float(np.quantile(depth, 0.05)) if len(depth) else -EYE_DISTANCE
        return Eye(rotation, self._scale_px, self._middle_px, cut)

    def _fitted(self) -> tuple[float, tuple[float, float]]:
        """The scale and the middle that keep nearly everything in the picture from all sides."""
        height = HEIGHT - HEAD_PX - FOOT_PX
        self._scale_px, self._middle_px = 1.0, (0.0, 0.0)
        lows, highs = [], []
        points = self._dots[-1].positions[:: max(1, len(self._dots[-1].positions) // 5000)]
        for share in np.linspace(0, 1, 8, endpoint=False):
            eye = self._eye(self.sweep_deg(float(share)))
            for part in (points, self._centres):
                if len(part):
                    low, high = np.quantile(eye.project(part)[0], [0.02, 0.98], axis=0)
                    lows.append(low)
                    highs.append(high)
        if not lows:
            return 1.0, (WIDTH / 2, height / 2)
        low, high = np.min(lows, axis=0), np.max(highs, axis=0)
        span = np.maximum(high - low, 1e-3)
        scale = float(min(0.92 * WIDTH / span[0], 0.9 * height / span[1]))
        middle = (low + high) / 2 * scale
        return scale, (WIDTH / 2 - float(middle[0]), height / 2 - float(middle[1]))


def _finite(chapter: Chapter) -> tuple[Float[Tensor, "n 3"], UInt8[Tensor, "n 3"]]:
    keep = chapter.points.isfinite().all(-1)
    return chapter.points[keep].float(), chapter.colours[keep]


def _thinned_rows(count: int, most: int) -> Tensor:
    """Rows spread evenly over all."""
    return torch.linspace(0, count - 1, min(count, most)).round().long()


def _dots_of(chapter: Chapter, middle: Float[Tensor, "3"], radius: float, most: int) -> Dots:
    points, colours = _finite(chapter)
    points = (points - middle) / radius
    near = points.norm(dim=-1) < CUT_RADIUS
    points, colours = points[near], colours[near]
    if len(points) > most:
        some = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:most]
        points, colours = points[some], colours[some]
    size_px = 3 if len(points) > 30_000 else 4
    return Dots(points.numpy().astype(np.float32), colours.numpy(), size_px)


def _edge_samples(corners: Float[np.ndarray, "v 5 3"], size: float) -> Float[np.ndarray, "v s 3"]:
    """Points along the edges of all frusta, dense enough to look like lines."""
    count = int(np.clip(900 * size, 8, 64))
    along = np.linspace(0, 1, count, dtype=np.float32)[:, None]
    start = corners[:, [a for a, _ in FRUSTUM_EDGES], None]
    end = corners[:, [b for _, b in FRUSTUM_EDGES], None]
    return (start + (end - start) * along).reshape(len(corners), -1, 3).astype(np.float32)


def _strips(title: str, caption: str) -> tuple[UInt8[np.ndarray, "a w 4"], UInt8[np.ndarray, "b w 4"]]:
    """The words above and the scale of the camera colours below."""
    head = Image.new("RGBA", (WIDTH, HEAD_PX), BACKGROUND)
    words = ImageDraw.Draw(head)
    room = WIDTH - 60 - words.textlength(caption, font=_font(24)) - 40
    while title and words.textlength(title, font=_font(28)) > room:
        title = title[:-2].rstrip("…") + "…" if len(title) > 2 else ""
    words.text((30, HEAD_PX // 2), title, fill=INK, font=_font(28), anchor="lm")
    words.text((WIDTH - 30, HEAD_PX // 2), caption, fill=INK, font=_font(24), anchor="rm")
    foot = Image.new("RGBA", (WIDTH, FOOT_PX), BACKGROUND)
    words, middle, left = ImageDraw.Draw(foot), FOOT_PX // 2, 30
    label = "cameras by confidence:  just registered"
    words.text((left, middle), label, fill=INK, font=_font(18), anchor="lm")
    left += int(words.textlength(label, font=_font(18))) + 10
    bar = confidence_colours(torch.linspace(480, 2000, 200))[None].expand(14, -1, -1).numpy()
    foot.paste(Image.fromarray(np.ascontiguousarray(bar)), (left, middle - 7))
    words.text((left + 210, middle), "four times that and more", fill=INK, font=_font(18), anchor="lm")
    return np.asarray(head), np.asarray(foot)


def _with_words(
    scene: UInt8[np.ndarray, "m w 4"],
    strips: tuple[UInt8[np.ndarray, "a w 4"], UInt8[np.ndarray, "b w 4"]],
) -> UInt8[np.ndarray, "h w 4"]:
    return np.concatenate([strips[0], scene, strips[1]])


def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px)
