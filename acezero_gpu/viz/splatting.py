"""A scene seen from an eye that circles it, drawn in numpy: dots with a depth test, fast enough for a film."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8, UInt32
from numpy.typing import NDArray

from acezero_gpu.viz.panel import BACKGROUND, EYE_DISTANCE, FADE

NEAREST = 0.2
"""Nothing nearer to the eye than this many radii is drawn."""
DEPTH_STEPS = 65_535


@dataclass(frozen=True, slots=True)
class Dots:
    """Points to be drawn; the world is centred on the scene and its radius is 1."""

    positions: Float[np.ndarray, "n 3"]
    colours: UInt8[np.ndarray, "n 3"]
    size_px: int
    """Side of the square that stands for a point."""


@dataclass(frozen=True, slots=True)
class Eye:
    """From where the scene is seen."""

    rotation: Float[np.ndarray, "3 3"]
    """Rows are right, down and forward in the world, as of a camera."""
    scale_px: float
    """Pixels per radius at the middle of the scene."""
    middle_px: tuple[float, float]
    """Where the middle of the scene appears: column, row."""
    cut: float
    """Dots nearer to the eye than this depth are left out; the middle of the scene has depth 0."""

    def project(
        self, positions: Float[np.ndarray, "n 3"]
    ) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, " n"]]:
        """Column and row in pixels, and the depth in radii."""
        seen = positions @ self.rotation.T.astype(np.float32)
        depth = seen[:, 2]
        nearer = EYE_DISTANCE / np.maximum(depth + EYE_DISTANCE, NEAREST)
        pixels = seen[:, :2] * (nearer * self.scale_px)[:, None] + np.asarray(self.middle_px, np.float32)
        return pixels, depth


def orbiting(
    up: Float[np.ndarray, "3"], ahead: Float[np.ndarray, "3"], azimuth_deg: float, elevation_deg: float
) -> Float[np.ndarray, "3 3"]:
    """Rotation of an eye that looks along ``ahead``, turned sideways by the azimuth, down by the elevation."""
    azimuth, elevation = math.radians(azimuth_deg), math.radians(elevation_deg)
    level = math.cos(azimuth) * ahead + math.sin(azimuth) * np.cross(ahead, up)
    sideways = np.cross(level, up)
    forward = math.cos(elevation) * level - math.sin(elevation) * up
    return np.stack([sideways, np.cross(forward, sideways), forward]).astype(np.float32)


def draw(eye: Eye, parts: list[Dots], width: int, height: int) -> UInt8[np.ndarray, "h w 4"]:
    """The dots of all parts in one picture, nearer ones over farther ones; the fourth channel means nothing."""
    canvas = np.full(height * width, _packed(np.array([BACKGROUND], np.uint8))[0], np.uint32)
    targets, colours, depths = [], [], []
    for part in parts:
        target, colour, depth = _squares(eye, part, width, height)
        targets.append(target)
        colours.append(colour)
        depths.append(depth)
    if targets:
        depth = np.concatenate(depths)
        # From far to near: of several values for one pixel numpy keeps the last. Whole numbers of 16 bits are
        # sorted by radix, many times as fast as floats.
        low, high = EYE_DISTANCE, -EYE_DISTANCE
        steps = np.clip((depth - high) / (low - high), 0, 1) * DEPTH_STEPS
        order = np.argsort((DEPTH_STEPS - steps).astype(np.uint16), kind="stable")
        canvas[np.concatenate(targets)[order]] = np.concatenate(colours)[order]
    return canvas.view(np.uint8).reshape(height, width, 4)


def _squares(
    eye: Eye, dots: Dots, width: int, height: int
) -> tuple[Int[np.ndarray, " k"], UInt32[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """Pixel index, colour and depth of every pixel that the dots cover."""
    pixels, depth = eye.project(dots.positions)
    size = dots.size_px
    column, row = (np.rint(pixels - size / 2)).astype(np.int32).T
    inside = (column >= 0) & (row >= 0) & (column <= width - size) & (row <= height - size)
    inside &= (depth > eye.cut) & (depth > NEAREST - EYE_DISTANCE)
    column, row, depth = column[inside], row[inside], depth[inside]
    colour = _packed(_faded(dots.colours[inside], depth))
    steps = np.arange(size, dtype=np.int32)
    offsets = (steps[:, None] * width + steps).ravel()
    first = row * width + column
    return (
        (first[:, None] + offsets).ravel(),
        np.repeat(colour, size * size),
        np.repeat(depth, size * size),
    )


def _faded(colours: UInt8[np.ndarray, "n 3"], depth: Float[np.ndarray, " n"]) -> UInt8[np.ndarray, "n 3"]:
    share = (np.clip((depth + 1) / 2, 0, 1) * FADE)[:, None].astype(np.float32)
    return (colours * (1 - share) + np.asarray(BACKGROUND, np.float32) * share).astype(np.uint8)


def _packed(colours: UInt8[np.ndarray, "n 3"]) -> NDArray[np.uint32]:
    """One number per colour, red in the first byte of memory."""
    full = np.full((len(colours), 4), 255, np.uint8)
    full[:, :3] = colours
    return full.view(np.uint32)[:, 0]
