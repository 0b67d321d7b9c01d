"""Points that several images see: what a bundle adjustment leaves beside the poses."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from acezero_gpu.data.loading import load_colours

_AT_ONCE = 32
"""Images whose colours are in memory together."""


@dataclass(frozen=True, slots=True)
class PointTracks:
    """Points of the world and where they were seen; on the CPU, sorted by point."""

    points: Float[Tensor, "p 3"]
    """In the world of the poses that they were adjusted with."""
    view_index: Int[Tensor, " k"]
    """Row of the image that made each observation."""
    point_index: Int[Tensor, " k"]
    """Row of the point that was observed."""
    pixels_px: Float[Tensor, "k 2"]
    """Where it was seen, lens distortion included, in pixels of the image file as stored (``_original_px``)."""
    error_px: Float[Tensor, " k"]
    """Reprojection error of each observation, in the same pixels."""

    def seen_by(self, views: Bool[Tensor, " v"]) -> tuple[Int[Tensor, " q"], "PointTracks"]:
        """The observations by these images, and the points that two of them or more see, with their former rows."""
        keep = views[self.view_index]
        often = torch.bincount(self.point_index[keep], minlength=len(self.points)) >= 2
        keep &= often[self.point_index]
        used, point = self.point_index[keep].unique(return_inverse=True)
        return used, PointTracks(
            self.points[used], self.view_index[keep], point, self.pixels_px[keep], self.error_px[keep]
        )

    def mean_error_px(self) -> Float[Tensor, " p"]:
        """Mean reprojection error of each point."""
        total = torch.zeros(len(self.points)).index_add_(0, self.point_index, self.error_px.float())
        return total / torch.bincount(self.point_index, minlength=len(self.points)).clamp_min(1)


def track_colours(
    tracks: PointTracks,
    paths: Sequence[Path],
    original_size_px: tuple[int, int],
    size_px: tuple[int, int],
) -> UInt8[Tensor, "p 3"]:
    """The mean colour of each point where it was seen, from the images decoded at ``size_px`` (width, height).

    ``paths`` are in the order of ``view_index``. An image that cannot be decoded counts as black.
    """
    total = torch.zeros(len(tracks.points), 3)
    scale = torch.tensor(size_px) / torch.tensor(original_size_px)
    limit = torch.tensor(size_px) - 1
    u, v = (tracks.pixels_px * scale).long().clamp_min(0).minimum(limit).unbind(-1)
    for rows in tracks.view_index.unique().split(_AT_ONCE) if len(tracks.view_index) else ():
        pictures = load_colours([paths[row] for row in rows.tolist()], size_px)
        slot = torch.full((len(paths),), -1)
        slot[rows] = torch.arange(len(rows))
        seen = slot[tracks.view_index] >= 0
        colours = pictures[slot[tracks.view_index[seen]], v[seen], u[seen]]
        total.index_add_(0, tracks.point_index[seen], colours.float())
    count = torch.bincount(tracks.point_index, minlength=len(tracks.points)).clamp_min(1)
    return (total / count[:, None]).round().to(torch.uint8)
