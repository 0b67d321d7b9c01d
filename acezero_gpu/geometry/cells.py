"""Prediction cells: the only place that knows where a cell of the feature map lies in the image."""

import torch
from jaxtyping import Float
from torch import Tensor


def grid_size(height: int, width: int, stride: int) -> tuple[int, int]:
    """Rows and columns of whole cells in an image."""
    return height // stride, width // stride


def cell_centres_px(
    rows: int,
    columns: int,
    stride: int,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "cells 2"]:
    """``(u, v)`` of every cell's centre, ``stride * (i + 0.5)``, row by row."""
    u = stride * (torch.arange(columns, device=device, dtype=dtype) + 0.5)
    v = stride * (torch.arange(rows, device=device, dtype=dtype) + 0.5)
    return torch.stack([u.expand(rows, columns), v[:, None].expand(rows, columns)], dim=-1).flatten(0, 1)
