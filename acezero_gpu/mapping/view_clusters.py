"""Which head of an ensemble learns which images: views of one part of the scene together, as many for each head."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from acezero_gpu.geometry import camera_centres

PLACE_WEIGHT = 2.0
"""Of where a camera stands against where it looks, both in units of their spread."""


def taught_heads(wanted: int, views: int, views_per_head: int) -> int:
    """As many heads as are wanted, or as so many views teach, of which each needs some of its own."""
    return min(wanted, max(1, views // views_per_head))


def view_clusters(cam_from_world: Float[Tensor, "f 3 4"], count: int) -> list[Int[Tensor, " _"]]:
    """Rows of the views in each of ``count`` clusters, ascending; sizes differ by one at most, on the CPU.

    By where the camera stands and, with less weight, where it looks, both in units of their spread over all views: a
    camera that turns on the spot sees other things. The views are halved across the direction in which they differ
    most, and the halves again. No draw: the same views give the same clusters. ``ValueError`` for more clusters than
    views.
    """
    if not 1 <= count <= len(cam_from_world):
        raise ValueError(f"{len(cam_from_world)} views cannot make {count} clusters")
    matrices = cam_from_world.detach().cpu().double()
    places, directions = camera_centres(matrices), matrices[:, 2, :3]
    described = torch.cat([PLACE_WEIGHT * _in_spreads(places), _in_spreads(directions)], dim=1)
    return _halved(described, torch.arange(len(matrices)), count)


def _in_spreads(values: Float[Tensor, "f 3"]) -> Float[Tensor, "f 3"]:
    centred = values - values.mean(0)
    return centred / centred.square().sum(1).mean().sqrt().clamp_min(1e-12)


def _halved(described: Float[Tensor, "f 6"], rows: Int[Tensor, " r"], count: int) -> list[Int[Tensor, " _"]]:
    if count == 1:
        return [rows.sort().values]
    centred = described[rows] - described[rows].mean(0)
    direction = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -1]
    ordered = rows[(centred @ direction).argsort(stable=True)]
    first = count // 2
    parts = ordered.split([len(rows) * first // count, len(rows) - len(rows) * first // count])
    return _halved(described, parts[0], first) + _halved(described, parts[1], count - first)
