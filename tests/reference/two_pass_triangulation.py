"""Tracks triangulated twice, all of them: the slow twin of placing again only what has lost an observation."""

import torch

from acezero_gpu.adjustment.joint import ANGLE_SHARE_OF_MANY, MANY_VIEWS
from acezero_gpu.geometry import reproject, triangulate_tracks


def triangulated_twice(tracks, keypoint_pixels, start, error_px: float, min_angle_deg: float):
    """Points ``(p, 3)``, and the view, keypoint, point and error of each observation that is left."""
    view, keypoint, point = tracks.view_index, tracks.keypoint_index, tracks.point_index
    pixels, count = keypoint_pixels[view, keypoint], tracks.num_points
    for _ in range(2):
        normalised = start.camera.normalised(pixels).double()
        share = torch.where(torch.bincount(point, minlength=count) >= MANY_VIEWS, ANGLE_SHARE_OF_MANY, 1.0)
        found = triangulate_tracks(view, point, normalised, start.cam_from_world.double(), count)
        seen = reproject(found.points[point][:, None].float(), start.cam_from_world[view], start.camera)
        error = (seen.pixels[:, 0] - pixels).norm(dim=-1)
        keep = (seen.depth[:, 0] > 0) & (error < 2 * error_px)
        view, keypoint, point, pixels, error = (x[keep] for x in (view, keypoint, point, pixels, error))
    good = found.valid & (found.angle_deg >= share * min_angle_deg)
    keep = good[point] & (torch.bincount(point, minlength=count) >= 2)[point]
    used, point = point[keep].unique(return_inverse=True)
    places = found.points[used].to(start.cam_from_world.dtype)
    return places, view[keep], keypoint[keep], point, error[keep]
