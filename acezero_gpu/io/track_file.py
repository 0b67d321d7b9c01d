"""The adjusted points of a run and their observations, as safetensors."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import UInt8
from safetensors.torch import save
from torch import Tensor

from acezero_gpu.data.point_tracks import PointTracks
from acezero_gpu.network.tensor_file import read_tensors
from acezero_gpu.runtime import InputError
from acezero_gpu.runtime.atomic import write_atomically

FORMAT = "acezero-tracks-1"
_DTYPES = {
    "points": torch.float32,
    "colours": torch.uint8,
    "view_index": torch.int32,
    "point_index": torch.int32,
    "pixels_px": torch.float32,
    "error_px": torch.float32,
}


@dataclass(frozen=True, slots=True)
class SavedTracks:
    """Points with colours, and the images that see them."""

    names: tuple[str, ...]
    """Image names in the order that ``tracks.view_index`` counts."""
    tracks: PointTracks
    colours: UInt8[Tensor, "p 3"]


def write_tracks(path: Path, saved: SavedTracks) -> None:
    """The file appears complete or not at all."""
    tracks = saved.tracks
    tensors = {
        "points": tracks.points,
        "colours": saved.colours,
        "view_index": tracks.view_index,
        "point_index": tracks.point_index,
        "pixels_px": tracks.pixels_px,
        "error_px": tracks.error_px,
    }
    tensors = {key: value.to(_DTYPES[key]).contiguous() for key, value in tensors.items()}
    meta = {"format": FORMAT, "names": list(saved.names)}
    write_atomically(path, save(tensors, metadata={"tracks": json.dumps(meta)}))


def read_tracks(path: Path) -> SavedTracks:
    """``InputError`` for a file that is not one of these, or whose indices lead nowhere."""
    try:
        meta, tensors = read_tensors(path, "tracks")
        if meta["format"] != FORMAT:
            raise ValueError(f"its format is {meta['format']!r}")
        tracks = PointTracks(
            tensors["points"],
            tensors["view_index"].long(),
            tensors["point_index"].long(),
            tensors["pixels_px"],
            tensors["error_px"],
        )
        saved = SavedTracks(tuple(meta["names"]), tracks, tensors["colours"])
        _check(saved)
    except Exception as error:  # safetensors raises types of its own for damaged files
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: not a readable file of tracks ({reason}); make the run again.") from error
    return saved


def _check(saved: SavedTracks) -> None:
    tracks = saved.tracks
    for index, count, what in (
        (tracks.view_index, len(saved.names), "image"),
        (tracks.point_index, len(tracks.points), "point"),
    ):
        if len(index) and not (int(index.min()) >= 0 and int(index.max()) < count):
            raise ValueError(f"an observation of {what} {int(index.max())} of {count}")
    rows = {len(tracks.view_index), len(tracks.point_index), len(tracks.pixels_px), len(tracks.error_px)}
    if len(rows) > 1 or len(saved.colours) != len(tracks.points):
        raise ValueError("columns of different lengths")
