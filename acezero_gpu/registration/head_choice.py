"""Which of a map's heads is asked about an image: all of them about some of its cells, then few about all."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from acezero_gpu.network import SceneMap

LEAST_CELLS = 256
"""Fewer cells than these would not tell heads apart."""


def some_cells(rows: int, columns: int, device: torch.device) -> Int[Tensor, " n"]:
    """Every second cell of every second row, or all of a small grid; ascending."""
    cells = torch.arange(rows * columns, device=device).view(rows, columns)
    few = cells[::2, ::2]
    return (few if few.numel() >= LEAST_CELLS else cells).flatten()


def points_at(
    scene_map: SceneMap, features: Float[Tensor, "b c rows cols"], cells: Int[Tensor, " n"]
) -> Float[Tensor, "heads b n 3"]:
    """What each head makes of some cells."""
    return scene_map.scene_coordinates(features.flatten(2)[:, :, cells][:, :, None]).float()


def points_by(
    parts: Sequence[SceneMap],
    features: Float[Tensor, "b c rows cols"],
    head: Int[Tensor, " p"],
    image: Int[Tensor, " p"],
) -> Float[Tensor, "p cells 3"]:
    """What one head makes of all cells of one image, for each pair of them; ``parts`` are the map's."""
    points = torch.zeros(len(head), features[0, 0].numel(), 3, device=features.device)
    for index, part in enumerate(parts):
        asked = (head == index).nonzero()[:, 0]
        if len(asked):
            points[asked] = part.scene_coordinates(features[image[asked]])[0].float()
    return points
