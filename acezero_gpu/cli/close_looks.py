"""A report's pictures of single images in detail: the surest and the least sure of those that the map places."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from torch import Tensor

from acezero_gpu.config import ReconstructionConfig
from acezero_gpu.data import ImageSet, load_colours, load_grey
from acezero_gpu.geometry import PinholeCamera, camera_centres, cell_centres_px
from acezero_gpu.io import FinishedRun
from acezero_gpu.network import Encoder, SceneMap, encode, make_encoder
from acezero_gpu.registration import cell_agreement
from acezero_gpu.runtime import InputError
from acezero_gpu.viz import plot_inliers, plot_map_matches, plot_reprojection_error, plot_scene_coordinates
from acezero_gpu.viz.report import CloseLook

PICTURE_WIDTH_PX = 400
"""Photographs in the figures are not shown larger than this."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """One image and what the map says about it; pixels are of the picture that is shown."""

    name: str
    picture: UInt8[Tensor, "h w 3"]
    camera: PinholeCamera
    cell_px: Float[Tensor, "cells 2"]
    points: Float[Tensor, "rows cols 3"]
    error_px: Float[Tensor, "rows cols"]
    """In pixels of the network image, as thresholds are."""


def close_looks(
    run: FinishedRun, config: ReconstructionConfig, device: torch.device, notes: list[str]
) -> tuple[CloseLook, ...]:
    """Empty, with a note, where the last map, its encoder or the images are not there any more."""
    shown = _shown_rows(run)
    scene_map_file = run.rounds[-1].scene_map if run.rounds else None
    if not shown:
        return ()
    if scene_map_file is None:
        notes.append("The map of the last round is missing, so no image is looked at cell by cell.")
        return ()
    try:
        scene_map = SceneMap.load(scene_map_file, device)
        encoder = make_encoder(config.encoder, device)
        if encoder.identifier != scene_map.encoder_identifier:
            raise ValueError(f"its map was made with the encoder {scene_map.encoder_identifier}.")
        seen = [_look_at(run, row, scene_map, encoder, device) for row in shown]
    except (ValueError, OSError, InputError) as error:
        notes.append(f"No image could be looked at cell by cell: {error}")
        return ()
    scale = scene_map.shortest_side_px / 480
    threshold_px = config.loop.registration.ransac.max_error_px * scale
    looks = [_look("A closer look at the surest", seen[0], threshold_px)]
    if len(seen) > 1:
        least = _look("A closer look at the least sure", seen[-1], threshold_px)
        matches = _matches(run, shown[-1], seen[-1], threshold_px)
        looks.append(replace(least, figures=(*least.figures, *matches)))
    return tuple(looks)


def _shown_rows(run: FinishedRun) -> list[int]:
    """The image of the highest and that of the lowest confidence, of those that the map places and whose file is
    there."""
    held = (
        {record.name for record in run.history.images if record.placed_by == "keypoints"}
        if run.history
        else set()
    )
    rows = [
        row
        for row, (name, registered, path) in enumerate(
            zip(run.views.names, run.registered, run.image_paths, strict=True)
        )
        if registered and name not in held and path is not None
    ]
    rows.sort(key=lambda row: -float(run.views.confidence[row]))
    return [rows[0], rows[-1]] if len(rows) > 1 else rows


def _look_at(
    run: FinishedRun, row: int, scene_map: SceneMap, encoder: Encoder, device: torch.device
) -> _Seen:
    path, size = run.image_paths[row], run.image_size_px
    assert path is not None
    if size is None:
        raise InputError(f"{path}: cannot be read.")
    width, height = size
    image_set = ImageSet((run.views.names[row],), (path,), width, height)
    images = load_grey(image_set, scene_map.shortest_side_px, minimum=1)
    camera = PinholeCamera.centred(float(run.views.focal_px[row]), width, height, device=device)
    features = encode(encoder, images.batch([0], device))
    network_camera = camera.scaled(images.scale_xy)
    pose = run.views.matrices[row : row + 1].float().to(device)
    found = cell_agreement(features, scene_map, pose, network_camera, stride=encoder.stride)
    rows, columns = features.shape[-2:]
    network_height, network_width = images.pixels.shape[-2:]
    shrink = min(1.0, PICTURE_WIDTH_PX / network_width)
    shown_size = (round(network_width * shrink), round(network_height * shrink))
    return _Seen(
        run.views.names[row],
        load_colours([path], shown_size)[0],
        PinholeCamera.centred(float(run.views.focal_px[row]), width, height).scaled(
            (shown_size[0] / width, shown_size[1] / height)
        ),
        shrink * cell_centres_px(rows, columns, encoder.stride),
        found.points[0].unflatten(0, (rows, columns)).cpu(),
        found.error_px[0].unflatten(0, (rows, columns)).cpu(),
    )


def _look(title: str, seen: _Seen, threshold_px: float) -> CloseLook:
    figures = (
        (
            "How far scene coordinates project from their cells, in pixels of the image that the map was made at.",
            plot_reprojection_error(seen.picture, seen.error_px, max_px=threshold_px),
        ),
        ("Cells that count for the pose.", plot_inliers(seen.picture, seen.error_px, threshold_px)),
        (
            "Where the map sees each cell in the world. Smooth where it has learnt a surface, speckled where not.",
            plot_scene_coordinates(seen.points, image=seen.picture),
        ),
    )
    return CloseLook(title, Path(seen.name).name, figures)


def _matches(run: FinishedRun, row: int, seen: _Seen, threshold_px: float) -> list[tuple[str, Figure]]:
    """The image above its nearest neighbour, with lines between what the map takes to be the same places."""
    neighbour = _nearest(run, row)
    if neighbour is None:
        return []
    path = run.image_paths[neighbour]
    assert path is not None
    height, width = seen.picture.shape[:2]
    error_px = seen.error_px.flatten()
    good = (error_px < threshold_px).nonzero()[:, 0]
    figure = plot_map_matches(
        seen.picture,
        load_colours([path], (width, height))[0],
        seen.cell_px[good],
        seen.points.flatten(0, 1)[good],
        run.views.matrices[neighbour].float(),
        seen.camera,
        error_px=error_px[good],
        max_px=threshold_px,
        stacked=True,
    )
    name = Path(run.views.names[neighbour]).name
    text = f"Above {name}, its nearest neighbour. Lines join what the map takes to be the same place."
    return [(text, figure)]


def _nearest(run: FinishedRun, row: int) -> int | None:
    """The registered image whose camera stands nearest and looks the same way."""
    poses = run.views.matrices.double()
    centres = camera_centres(poses)
    allowed = torch.tensor(
        [
            registered and path is not None and other != row
            for other, (registered, path) in enumerate(zip(run.registered, run.image_paths, strict=True))
        ]
    )
    if not bool(allowed.any()):
        return None
    distance = (centres - centres[row]).norm(dim=-1)
    apart = distance / distance[allowed].median().clamp_min(1e-12) + (1 - poses[:, 2, :3] @ poses[row, 2, :3])
    return int(torch.where(allowed, apart, torch.inf).argmin())
