"""What every export is written from: the posed images of a run under the names that they get there."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from os.path import commonpath
from pathlib import Path, PurePath

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from acezero_gpu.data.image_set import probe_size
from acezero_gpu.data.posed_views import PosedViews
from acezero_gpu.io.run_folder import IMAGE_SIZE
from acezero_gpu.io.run_reader import FinishedRun
from acezero_gpu.io.track_file import SavedTracks
from acezero_gpu.runtime import InputError


@dataclass(frozen=True, slots=True)
class ExportScene:
    """Posed images of one camera."""

    views: PosedViews
    """World to camera, OpenCV axes; the names are those of the run."""
    file_names: tuple[str, ...]
    """Names below an export's image folder: unique, without white space, ``/`` between folders."""
    sources: tuple[Path | None, ...]
    """Where the image files lie; None where they are gone."""
    width: int
    height: int
    radial: tuple[float, float]
    """``k1, k2`` of the shared lens, as COLMAP's RADIAL camera has them."""

    @property
    def focal_px(self) -> float:
        """Of the image files as stored (``_original_px``), shared by all."""
        return float(self.views.focal_px[0])

    def subset(self, rows: Sequence[int]) -> "ExportScene":
        """The images at these positions, in this order."""
        return replace(
            self,
            views=self.views.subset(rows),
            file_names=tuple(self.file_names[row] for row in rows),
            sources=tuple(self.sources[row] for row in rows),
        )

    def images(self) -> tuple[Path, ...]:
        """All image files; ``InputError`` with what to do if some are gone, or have another size than they had."""
        found = tuple(path for path in self.sources if path is not None)
        if len(found) < len(self.sources):
            gone = self.views.names[self.sources.index(None)]
            raise InputError(
                f"{gone}: no longer there, {len(self.sources) - len(found)} of {len(self.sources)} images are "
                "missing; say with --images in which folder they lie now."
            )
        with ThreadPoolExecutor() as pool:
            for path, size in zip(found, pool.map(probe_size, found), strict=True):
                if isinstance(size, str):
                    raise InputError(f"{path}: cannot be read ({size}).")
                if size != (self.width, self.height):
                    raise InputError(
                        f"{path}: is {size[0]}x{size[1]}, but the run was made with images of {self.width}x"
                        f"{self.height}; give the same images with --images."
                    )
        return found


@dataclass(frozen=True, slots=True)
class ColouredPoints:
    """Points of the world; on the CPU."""

    points: Float[Tensor, "n 3"]
    colours: UInt8[Tensor, "n 3"]


def export_scene(run: FinishedRun, min_confidence: float) -> ExportScene:
    """The images of a run from this confidence on; there may be none."""
    keep = run.views.registered(min_confidence).nonzero()[:, 0].tolist()
    width, height = _image_size(run)
    k1, k2 = (float(value) for value in run.summary.get("radial", (0.0, 0.0)))
    names = exported_names(run.views.names)
    return ExportScene(run.views, names, run.image_paths, width, height, (k1, k2)).subset(keep)


def tracks_of_scene(saved: SavedTracks, scene: ExportScene) -> SavedTracks:
    """The tracks by rows of the scene, without observations by other images.

    ``InputError`` if they are of other images than the run.
    """
    row_of = {name: row for row, name in enumerate(scene.views.names)}
    rows = torch.tensor([row_of.get(name, -1) for name in saved.names], dtype=torch.int64)
    if not bool((rows >= 0).any()) and len(saved.names):
        raise InputError("tracks.safetensors: of other images than poses_final.txt; make the run again.")
    used, tracks = saved.tracks.seen_by(rows >= 0)
    tracks = replace(tracks, view_index=rows[tracks.view_index])
    return SavedTracks(scene.views.names, tracks, saved.colours[used])


def exported_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """File names where these are unique, else paths from the folder that all share; no white space.

    A name that would still occur twice gets its number in front.
    """
    paths = [PurePath(name) for name in names]
    if len({path.name for path in paths}) == len(paths):
        wanted = [path.name for path in paths]
    else:
        wanted = _below_shared_folder(paths)
    wanted = ["_".join(name.split()) for name in wanted]
    count = Counter(wanted)
    return tuple(name if count[name] == 1 else f"{row:06d}_{name}" for row, name in enumerate(wanted))


def _below_shared_folder(paths: list[PurePath]) -> list[str]:
    """The paths from the folder that all share; the bare file names where there is no such folder."""
    try:
        shared = commonpath([str(path.parent) for path in paths])
    except ValueError:  # some are absolute, some are not
        return [path.name for path in paths]
    below = [path.relative_to(shared) for path in paths]
    # A step upwards in the middle of a path could lead out of the folder of the export.
    inside = all(".." not in path.parts for path in below)
    return [path.as_posix() if inside else path.name for path in below]


def _image_size(run: FinishedRun) -> tuple[int, int]:
    size = run.summary.get(IMAGE_SIZE)
    if size is not None:
        return int(size[0]), int(size[1])
    there = next((path for path in run.image_paths if path is not None), None)
    if there is None:
        raise InputError(
            f"{run.path}: none of its images is where it was, and summary.json does not say how large they are; "
            "say with --images where they lie now."
        )
    probed = probe_size(there)
    if isinstance(probed, str):
        raise InputError(f"{there}: cannot be read ({probed}).")
    return probed
