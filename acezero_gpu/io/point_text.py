"""Point clouds as plain text."""

from pathlib import Path

from jaxtyping import Float, UInt8
from torch import Tensor

from acezero_gpu.runtime.atomic import write_atomically


def write_point_text(path: str | Path, points: Float[Tensor, "n 3"], colours: UInt8[Tensor, "n 3"]) -> None:
    """One line per point, ``x y z r g b``: ACE0's format. Points that are not finite are left out."""
    keep = points.isfinite().all(-1)
    rows = zip(points[keep].tolist(), colours[keep].tolist(), strict=True)
    write_atomically(path, "".join(f"{x:.6g} {y:.6g} {z:.6g} {r} {g} {b}\n" for (x, y, z), (r, g, b) in rows))
