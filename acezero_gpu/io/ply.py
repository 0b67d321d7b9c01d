"""Binary PLY: coloured points and camera pyramids, for MeshLab, Blender, CloudCompare and the like."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from acezero_gpu.data.camera_frusta import FRUSTUM_EDGES, frustum_corners
from acezero_gpu.runtime import InputError
from acezero_gpu.runtime.atomic import write_atomically

_VERTEX = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])
_FACE = np.dtype([("count", "u1"), ("corners", "<i4", 3), ("rgb", "u1", 3)])
_END = b"end_header\n"
_EDGE_WIDTH = 0.02
"""Thickness of a drawn camera edge, as a share of the camera's size."""


def write_points(path: str | Path, points: Float[Tensor, "n 3"], colours: UInt8[Tensor, "n 3"]) -> None:
    """World points with colours. Points that are not finite are left out: most viewers fail on them."""
    keep = points.isfinite().all(-1)
    vertices = _vertices(points[keep], colours[keep])
    write_atomically(path, _header(len(vertices)) + vertices.tobytes())


def read_points(path: str | Path) -> tuple[Float[Tensor, "n 3"], UInt8[Tensor, "n 3"]]:
    """The points and colours that ``write_points`` wrote; ``InputError`` for a file of any other layout."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    end = data.find(_END) + len(_END)
    rest = len(data) - end
    count, beyond = divmod(rest, _VERTEX.itemsize)
    if beyond or data[:end] != _header(count):
        raise InputError(f"{path}: not a point cloud of this program; give the folder of a finished run.")
    vertices = np.frombuffer(data, _VERTEX, count, end)
    return torch.from_numpy(vertices["xyz"].copy()), torch.from_numpy(vertices["rgb"].copy())


def write_cameras(
    path: str | Path,
    cam_from_world: Float[Tensor, "n 3 4"],
    colours: UInt8[Tensor, "n 3"],
    *,
    size: float,
    aspect: float = 4 / 3,
    opening: float = 0.6,
) -> None:
    """One pyramid per camera: its apex is the camera centre, its base faces the scene at depth ``size``.

    ``opening`` is half the base's height per depth, ``aspect`` its width per height.

    Edges are thin strips of two triangles, which every viewer shows; few show PLY's own ``edge`` elements.
    """
    corners = frustum_corners(cam_from_world, size, aspect, opening)
    start, end = corners[:, [a for a, _ in FRUSTUM_EDGES]], corners[:, [b for _, b in FRUSTUM_EDGES]]
    along = torch.nn.functional.normalize(end - start, dim=-1)
    forward = cam_from_world[:, None, 2, :3].expand_as(along)
    # No edge lies along the viewing direction, so this cross product never vanishes.
    across = torch.nn.functional.normalize(torch.linalg.cross(along, forward), dim=-1)
    side = across * (size * _EDGE_WIDTH / 2)
    quads = torch.stack([start - side, start + side, end + side, end - side], dim=2)
    strips = quads.flatten(0, 2)
    first = 4 * np.arange(len(strips) // 4, dtype=np.int32)[:, None, None]
    triangles = (first + np.array([[0, 1, 2], [0, 2, 3]], dtype=np.int32)).reshape(-1, 3)
    vertex_colours = colours.repeat_interleave(4 * len(FRUSTUM_EDGES), dim=0)
    vertices = _vertices(strips, vertex_colours)
    faces = np.empty(len(triangles), dtype=_FACE)
    faces["count"], faces["corners"] = 3, triangles
    faces["rgb"] = vertices["rgb"][triangles[:, 0]]
    write_atomically(path, _header(len(vertices), len(faces)) + vertices.tobytes() + faces.tobytes())


def _vertices(points: Float[Tensor, "n 3"], colours: UInt8[Tensor, "n 3"]) -> np.ndarray:
    vertices = np.empty(len(points), dtype=_VERTEX)
    vertices["xyz"] = points.detach().float().cpu().numpy()
    vertices["rgb"] = colours.cpu().numpy()
    return vertices


def _header(vertices: int, faces: int = 0) -> bytes:
    colour = [f"property uchar {name}" for name in ("red", "green", "blue")]
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {vertices}"]
    lines += [f"property float {axis}" for axis in "xyz"] + colour
    if faces:
        lines += [f"element face {faces}", "property list uchar int vertex_indices", *colour]
    return ("\n".join([*lines, "end_header"]) + "\n").encode()
