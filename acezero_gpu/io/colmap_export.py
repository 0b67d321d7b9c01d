"""A run as a COLMAP model: one camera, the posed images, and points with the images that see them."""

import numpy as np
import torch

from acezero_gpu.io.colmap_model import ColmapCamera, ColmapImage, ColmapModel, ColmapPoints
from acezero_gpu.io.export_scene import ColouredPoints, ExportScene
from acezero_gpu.io.track_file import SavedTracks


def colmap_model(scene: ExportScene, points: SavedTracks | ColouredPoints) -> ColmapModel:
    """The model with tracked points, by rows of the scene, or with plain ones, whose tracks are empty.

    A lens without distortion is a SIMPLE_PINHOLE camera, any other a RADIAL one. COLMAP distorts ``p = (x/z, y/z)``
    to ``(1 + k1 r² + k2 r⁴) p`` and counts pixels as this program does, so nothing is converted. Images have the
    ids 1, 2, … in the order of the scene, points likewise.
    """
    centre = (scene.width / 2, scene.height / 2)
    parameters = (scene.focal_px, *centre)
    camera = ColmapCamera(1, "SIMPLE_PINHOLE", scene.width, scene.height, parameters)
    if any(scene.radial):
        camera = ColmapCamera(1, "RADIAL", scene.width, scene.height, (*parameters, *scene.radial))
    if isinstance(points, SavedTracks):
        seen, table = _observations(points, len(scene.file_names)), _tracked_points(points)
    else:
        seen, table = [_NOTHING] * len(scene.file_names), _plain_points(points)
    poses = torch.as_tensor(scene.views.cam_from_world).double()[:, [6, 3, 4, 5, 0, 1, 2]].tolist()
    images = tuple(
        ColmapImage(row + 1, tuple(poses[row]), 1, name, *seen[row])
        for row, name in enumerate(scene.file_names)
    )
    return ColmapModel((camera,), images, table)


_NOTHING = (np.zeros((0, 2)), np.zeros(0, np.int64))


def _observations(saved: SavedTracks, images: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pixels and point ids of each image, in the order of the observations."""
    tracks = saved.tracks
    order = tracks.view_index.argsort(stable=True)
    counts = torch.bincount(tracks.view_index, minlength=images).tolist()
    pixels = tracks.pixels_px[order].double().split(counts)
    points = (tracks.point_index[order] + 1).split(counts)
    return [(pixel.numpy(), point.numpy()) for pixel, point in zip(pixels, points, strict=True)]


def _tracked_points(saved: SavedTracks) -> ColmapPoints:
    tracks = saved.tracks
    counts = torch.bincount(tracks.view_index)
    first = counts.cumsum(0) - counts
    order = tracks.view_index.argsort(stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    # Image id, and which of that image's observations it is.
    entries = torch.stack([tracks.view_index + 1, place - first[tracks.view_index]], dim=-1)
    by_point = tracks.point_index.argsort(stable=True)
    lengths = torch.bincount(tracks.point_index, minlength=len(tracks.points)).tolist()
    return ColmapPoints(
        np.arange(1, len(tracks.points) + 1),
        tracks.points.double().numpy(),
        saved.colours.numpy(),
        tracks.mean_error_px().double().numpy(),
        tuple(part.numpy() for part in entries[by_point].split(lengths)) if lengths else (),
    )


def _plain_points(cloud: ColouredPoints) -> ColmapPoints:
    """Points of a map: COLMAP's own mark for an error that was not measured is -1."""
    count = len(cloud.points)
    return ColmapPoints(
        np.arange(1, count + 1),
        cloud.points.double().numpy(),
        cloud.colours.numpy(),
        np.full(count, -1.0),
        (np.zeros((0, 2), np.int64),) * count,
    )
