"""Poses and maps that a command is given: read, checked, matched to the images."""

import json
from dataclasses import replace
from pathlib import Path

import torch

from acezero_gpu.cli.failure import as_input_error
from acezero_gpu.cli.run_log import RunLog
from acezero_gpu.cli.settings import Settings
from acezero_gpu.config import ReconstructionConfig, load_config, preset
from acezero_gpu.data import ImageSet, PosedViews
from acezero_gpu.geometry import PinholeCamera
from acezero_gpu.io import FinishedRun, RunFolder, match_to_images, read_poses
from acezero_gpu.io.run_folder import REGISTERED_FROM
from acezero_gpu.network import SceneMap, make_encoder, packaged_encoder
from acezero_gpu.runtime import InputError

FOCAL_SPREAD = 0.01
"""Given focal lengths that differ by a larger share than this deserve a warning."""


def confidence_of_run(poses: Path, otherwise: float = 1.0) -> float:
    """From which confidence the run that wrote the file calls an image registered.

    ``otherwise`` if it lies beside no run; of a run that was interrupted only the history says it.
    """
    for name, key in (("summary.json", REGISTERED_FROM), ("history.json", "min_confidence")):
        try:
            return float(json.loads((poses.parent / name).read_text(encoding="utf-8"))[key])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return otherwise


def settings_of_run(run: FinishedRun) -> ReconstructionConfig:
    """The settings that a run was made with."""
    return load_config(RunFolder(run.path).config, preset("default"))


def cells_of_run(run: FinishedRun, config: ReconstructionConfig) -> float:
    """Prediction cells of an image: the most that its confidence can be (ACE0: 4800)."""
    return run.min_confidence / config.loop.registration.min_inlier_share


def read_given(poses: str, image_set: ImageSet, focal_px: float | None, *, allow_missing: bool) -> PosedViews:
    """The given poses by image, in double precision; confidence 0 where an image has none.

    A pose that the run which wrote it did not call registered is none. Matrices bring no focal length: 0.7 of the
    diagonal is assumed. ``InputError`` for an image without a pose, but for ``allow_missing``, and if no image has
    one.
    """
    focal = focal_px
    if focal is None and not Path(poses).is_file():
        focal = guessed_focal_px(image_set)
    given = read_poses(poses, image_set.names, focal, allow_missing=allow_missing, dtype=torch.float64)
    sure = given.registered(confidence_of_run(Path(poses)))
    given = replace(given, confidence=torch.where(sure, given.confidence, 0.0))
    lost = (~sure).nonzero()[:, 0]
    if len(lost) and not allow_missing:
        raise InputError(
            f"{poses}: image {given.names[int(lost[0])]} has no valid pose there; leave the image out, "
            "or give --allow-missing."
        )
    if len(lost) == len(given.names):
        raise InputError(f"{poses}: none of the {len(lost)} images has a valid pose there.")
    return given


def given_of(given: PosedViews, image_set: ImageSet) -> PosedViews:
    """The rows of these images, some of which may have turned out unreadable since."""
    return given if given.names == image_set.names else match_to_images(given, image_set.names)


def focal_is_guessed(poses: str, focal_px: float | None) -> bool:
    """Whether neither the user nor a pose file says the focal length; matrices do not."""
    return focal_px is None and not Path(poses).is_file()


def shared_focal_px(given: PosedViews, poses: str, focal_px: float | None, log: RunLog) -> float:
    """The median of the given focal lengths; says so where it is a guess, or where they differ."""
    if focal_is_guessed(poses, focal_px):
        log.warn(
            f"no --focal-px: starting from a guess of {float(given.focal_px[0]):.1f} px, 0.7 of the image diagonal."
        )
    focal = given.focal_px[given.confidence > 0]
    if float(focal.max() / focal.min()) > 1 + FOCAL_SPREAD:
        log.warn(
            f"{poses}: focal lengths from {float(focal.min()):.1f} to {float(focal.max()):.1f} px; one "
            "camera is assumed, their median is taken."
        )
    return float(focal.median())


def guessed_focal_px(image_set: ImageSet) -> float:
    """0.7 of the image diagonal."""
    return float(PinholeCamera.guess(image_set.width, image_set.height).focal_px[0])


def focal_of_map(scene_map: SceneMap, image_set: ImageSet, log: RunLog) -> float:
    """That of the map's images, in pixels of these; says so where it takes these for cropped ones."""
    size = image_set.width, image_set.height
    focal = scene_map.focal_px(*size)
    if not scene_map.has_shape_of(*size):
        log.warn(
            f"the images are {size[0]}x{size[1]}, of another shape than those of the map: taken for cropped ones of "
            f"the same camera, with a focal length of {focal:.1f} px; if they are not, say it with --focal-px."
        )
    return focal


def map_file_of(given: Path) -> Path:
    """The file itself, or the last map of a run's folder. ``InputError`` if there is none."""
    if not given.is_dir():
        if not given.is_file():
            raise InputError(f"{given}: no such file; give a map*.safetensors that an earlier run wrote.")
        return given
    rounds = {path.stem.removeprefix("map_"): path for path in given.glob("map_*.safetensors")}
    last = max((int(name) for name in rounds if name.isdecimal()), default=None)
    path = given / "map.safetensors" if last is None else rounds[str(last)]
    if not path.is_file():
        raise InputError(f"{given}: no map in this folder; acezero reconstruct or acezero map makes one.")
    return path


def load_map(map_file: Path, settings: Settings, encoder_given: bool) -> tuple[SceneMap, Settings]:
    """The map and the settings with its encoder.

    ``InputError`` if there is no map in the file, or one that the given encoder's features mean nothing to.
    """
    map_file = map_file_of(map_file)
    with as_input_error():
        scene_map = SceneMap.load(map_file, settings.device)
        encoder = make_encoder(settings.config.encoder, settings.device)
    if scene_map.encoder_identifier == encoder.identifier:
        return scene_map, settings
    name = None if encoder_given else packaged_encoder(scene_map.encoder_identifier)
    if name is not None:
        return scene_map, replace(settings, config=replace(settings.config, encoder=name))
    raise InputError(
        f"{map_file}: was made with the encoder {scene_map.encoder_identifier}, but this run has "
        f"{encoder.identifier}; give the same --encoder as for the map."
    )
