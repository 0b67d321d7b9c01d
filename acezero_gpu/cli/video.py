"""``acezero video``: a film of a reconstruction that grows."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from acezero_gpu.cli import exchange_options as exchange
from acezero_gpu.cli import options as opt
from acezero_gpu.cli.failure import RunFailedError, as_input_error
from acezero_gpu.cli.output import say
from acezero_gpu.cli.point_cloud import map_points
from acezero_gpu.cli.run_log import RunLog, verbosity
from acezero_gpu.config import load_config, preset
from acezero_gpu.data import ImageSet, PosedViews, load_grey, resolve_images
from acezero_gpu.io import FinishedRun, RunFolder, RunRound, open_run, read_points
from acezero_gpu.io.export_scene import ColouredPoints
from acezero_gpu.network import SceneMap, make_encoder
from acezero_gpu.reconstruction import ImageBank
from acezero_gpu.runtime import InputError, StageTimer, resolve_device
from acezero_gpu.viz.film import Chapter, write_film

FILM_IMAGES = 48
"""Images whose points are shown of each round; a choice where there are more."""
USUAL_THRESHOLD = 480.0
"""Confidence from which an image of 4800 cells, ACE0's, is registered: the colours of cameras hold at that scale."""


def video(
    run: exchange.RunDir,
    images: exchange.MovedImages = None,
    device: opt.Device = "auto",
    quiet: opt.Quiet = False,
    verbose: opt.Verbose = False,
) -> None:
    """A film of a finished reconstruction: how it grew, and what came of it."""
    found = open_run(run, images=images, points=True, rounds=True)
    with as_input_error():
        place = resolve_device(device)
    path = RunFolder(run).video
    with RunLog(verbosity(quiet, verbose)) as log:
        timer = StageTimer(place)
        with timer.stage("loading"):
            bank = _bank_of(found, place, log)
        assert found.point_cloud is not None, "open_run was told to demand it"
        cloud = ColouredPoints(*read_points(found.point_cloud))
        with timer.stage("video"):
            frames = film_of_run(path, found.rounds, found.views, found.min_confidence, cloud, bank)
        say(f"{frames} frames, {log.seconds:.0f} s → {path}")


def film_of_run(
    path: Path,
    rounds: Sequence[RunRound],
    final: PosedViews,
    min_confidence: float,
    cloud: ColouredPoints,
    bank: ImageBank | None,
) -> int:
    """Write the film; the number of its frames.

    Each round shows its own map by some images of ``bank``; without it, all rounds show the final points. ``final``
    and ``cloud`` are those of the last round. ``RunFailedError`` if no image is registered or the encoder fails.
    """
    if not bool(final.registered(min_confidence).any()):
        raise RunFailedError(f"{path.parent}: no image is registered, so there is nothing to show.")
    chapters = []
    for round_ in rounds[:-1]:
        views = round_.views()
        points = cloud
        if bank is not None and round_.scene_map is not None:
            points = _points_of_round(round_.scene_map, views, min_confidence, bank)
        chapters.append(_chapter(_name_of(round_.index), views, min_confidence, points))
    chapters.append(_chapter("final", final, min_confidence, cloud))
    aspect = bank.width / bank.height if bank is not None else 4 / 3
    try:
        return write_film(path, chapters, title=path.resolve().parent.name, aspect=aspect)
    except OSError as error:
        reason = (str(error).strip().splitlines() or ["no reason given"])[-1]
        raise RunFailedError(f"{path}: the video could not be written ({reason}).") from error


def _name_of(index: int) -> str:
    return "start" if index == 0 else f"round {index}"


def _chapter(name: str, views: PosedViews, min_confidence: float, cloud: ColouredPoints) -> Chapter:
    registered = views.registered(min_confidence)
    shown = torch.where(registered, views.confidence * (USUAL_THRESHOLD / min_confidence), 0.0)
    caption = f"{name}: {int(registered.sum())} of {len(shown)} images registered"
    return Chapter(caption, cloud.points, cloud.colours, views.matrices, shown)


def _points_of_round(
    map_file: Path, views: PosedViews, min_confidence: float, bank: ImageBank
) -> ColouredPoints:
    with as_input_error():
        scene_map = SceneMap.load(map_file, bank.device)
    if scene_map.encoder_identifier != bank.encoder.identifier:
        raise InputError(
            f"{map_file}: was made with the encoder {scene_map.encoder_identifier}, not with that of config.toml."
        )
    row_of = {name: row for row, name in enumerate(views.names)}
    rows = torch.tensor([row_of[name] for name in bank.images.image_set.names])
    views = replace(
        views,
        names=bank.images.image_set.names,
        cam_from_world=torch.as_tensor(views.cam_from_world)[rows],
        focal_px=views.focal_px[rows],
        confidence=views.confidence[rows],
    )
    return map_points(bank, scene_map, views, min_confidence, seed=0, most_images=FILM_IMAGES)


def _bank_of(run: FinishedRun, device: torch.device, log: RunLog) -> ImageBank | None:
    """Some of the run's images with its encoder; None, and a warning, if there are no images or no settings."""
    config_file = RunFolder(run.path).config
    there = [row for row, path in enumerate(run.image_paths) if path is not None and run.registered[row]]
    if not there or not config_file.is_file():
        what = "its images are not where they were; give --images" if not there else "config.toml is missing"
        log.warn(f"{run.path}: {what}. All rounds show the points of the last one.")
        return None
    rows = [there[i] for i in torch.linspace(0, len(there) - 1, min(len(there), FILM_IMAGES)).long().tolist()]
    paths = tuple(path for row in rows if (path := run.image_paths[row]) is not None)
    first = resolve_images(paths[0], minimum=1)
    image_set = ImageSet(tuple(run.views.names[row] for row in rows), paths, first.width, first.height)
    config = load_config(config_file, preset("default"))
    with as_input_error():
        encoder = make_encoder(config.encoder, device)
    images = load_grey(image_set, config.bank.shortest_side_px, minimum=1)
    return ImageBank(images, images, encoder, config.bank, device, config.seed)
