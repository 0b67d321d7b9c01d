"""What a reconstruction starts from beside its images: depth maps, known poses, a map."""

from dataclasses import dataclass
from pathlib import Path

import pypose as pp
import torch

from acezero_gpu.cli.given import (
    focal_of_map,
    given_of,
    guessed_focal_px,
    load_map,
    read_given,
    shared_focal_px,
)
from acezero_gpu.cli.run_log import RunLog
from acezero_gpu.cli.settings import Settings
from acezero_gpu.data import ImageSet, PosedViews, find_depth_files
from acezero_gpu.geometry import PinholeCamera
from acezero_gpu.network import SceneMap
from acezero_gpu.reconstruction import GivenPoses, ImageBank
from acezero_gpu.runtime import InputError


@dataclass(frozen=True, slots=True)
class Start:
    """What a reconstruction starts from, beside its images; at most one of depth, poses and map."""

    depth: str | None = None
    """Folder or glob of depth maps."""
    poses: str | None = None
    """Pose file, or folder or glob of matrices, of some images."""
    fix_poses: bool = False
    """Keep those poses exactly as given."""
    seed_map: Path | None = None
    """A map that an earlier run wrote."""

    def command(self) -> list[str | Path]:
        """The flags that say so."""
        flags: list[str | Path] = []
        for name, value in (("--depth", self.depth), ("--poses", self.poses), ("--seed-map", self.seed_map)):
            flags += [name, value] if value is not None else []
        return [*flags, *(["--fix-poses"] if self.fix_poses else [])]

    def check(self) -> None:
        """``InputError`` for what does not go together."""
        given = {"--depth": self.depth, "--poses": self.poses, "--seed-map": self.seed_map}
        names = [name for name, value in given.items() if value is not None]
        if len(names) > 1:
            raise InputError(
                f"{' and '.join(names)}: a reconstruction starts from one of them; leave the others out."
            )
        if self.fix_poses and self.poses is None:
            raise InputError("--fix-poses: say with --poses which ones.")


@dataclass(frozen=True, slots=True)
class LoadedStart:
    """What a start names, read before anything is written: wrong files are told before the folder is made."""

    poses: PosedViews | None
    scene_map: SceneMap | None


def load_start(start: Start, image_set: ImageSet, settings: Settings, focal_px: float | None) -> LoadedStart:
    """Read and check the files. ``InputError`` with one sentence if something is wrong with them."""
    poses = None
    if start.poses is not None:
        poses = read_given(start.poses, image_set, focal_px, allow_missing=True)
        if int((poses.confidence > 0).sum()) < 2:
            raise InputError(
                f"{start.poses}: one image alone has a pose there; give at least two to start from."
            )
    if start.depth is not None:
        find_depth_files(start.depth, image_set.names)
    return LoadedStart(
        poses,
        None if start.seed_map is None else load_map(start.seed_map, settings, encoder_given=True)[0],
    )


def starting_camera(
    bank: ImageBank, start: Start, loaded: LoadedStart, focal_px: float | None, log: RunLog
) -> PinholeCamera:
    """By ``--focal-px``, else by the poses or the map, else 0.7 of the diagonal."""
    image_set = bank.images.image_set
    if loaded.poses is not None and start.poses is not None:
        return bank.camera(shared_focal_px(loaded.poses, start.poses, focal_px, log))
    if focal_px is None and loaded.scene_map is not None:
        focal_px = focal_of_map(loaded.scene_map, image_set, log)
    return bank.camera(guessed_focal_px(image_set) if focal_px is None else focal_px)


def given_poses(loaded: LoadedStart, image_set: ImageSet, fixed: bool) -> GivenPoses | None:
    """The given poses by image index; None if there are none."""
    if loaded.poses is None:
        return None
    views = given_of(loaded.poses, image_set)
    rows = (views.confidence > 0).nonzero()[:, 0]
    return GivenPoses(rows, pp.SE3(torch.as_tensor(views.cam_from_world)[rows]), fixed)
