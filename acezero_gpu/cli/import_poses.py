"""``acezero import``: poses of other programs as a pose file."""

import math

import pypose as pp
import torch

from acezero_gpu.cli import exchange_options as exchange
from acezero_gpu.cli.output import say
from acezero_gpu.data import PosedViews
from acezero_gpu.io import write_pose_file
from acezero_gpu.io.colmap_model import ColmapCamera
from acezero_gpu.io.colmap_reader import PosedCameras, read_colmap_cameras
from acezero_gpu.runtime import InputError

CENTRE_TOLERANCE = 0.01
"""A principal point further from the image's centre than this share of its width or height deserves a word."""
FOCAL_TOLERANCE = 0.002
"""And so do focal lengths of both axes that differ by a larger share than this."""


def import_poses(
    format_: exchange.ImportFormat,
    model: exchange.ImportDir,
    out: exchange.ImportOut,
    overwrite: exchange.FileOverwrite = False,
) -> None:
    """Poses and focal lengths of a COLMAP model, as a pose file for map and evaluate."""
    if out.is_dir():
        raise InputError(f"{out}: is a folder; give the name of the pose file to write.")
    if out.exists() and not overwrite:
        raise InputError(f"{out}: is there already; give another name, or --overwrite to replace it.")
    found = read_colmap_cameras(model)
    for camera in found.cameras.values():
        for line in _lost_of(camera):
            say(f"camera {camera.camera_id} ({camera.model}): {line}")
    views = _views(found)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_pose_file(out, views)
    low, high = float(views.focal_px.min()), float(views.focal_px.max())
    focal = f"focal {low:.1f} px" if low == high else f"focal {low:.1f} to {high:.1f} px"
    say(f"{len(views.names)} poses of {found.folder}, {focal} → {out}")


def _views(found: PosedCameras) -> PosedViews:
    """Given poses have confidence inf."""
    pose = torch.tensor([image.pose for image in found.images], dtype=torch.float64)
    quaternion = torch.nn.functional.normalize(pose[:, [1, 2, 3, 0]], dim=-1)
    focal = torch.tensor(
        [_focal_px(found.cameras[image.camera_id]) for image in found.images], dtype=torch.float64
    )
    names = tuple(image.name for image in found.images)
    if len(set(names)) < len(names):
        raise InputError(f"{found.folder}: two images have the same name; a pose file needs each name once.")
    return PosedViews(
        names,
        pp.SE3(torch.cat([pose[:, 4:], quaternion], dim=-1)),
        focal,
        torch.full((len(names),), math.inf, dtype=torch.float64),
    )


def _focal_px(camera: ColmapCamera) -> float:
    values = camera.named()
    return (values["fx"] + values["fy"]) / 2


def _lost_of(camera: ColmapCamera) -> list[str]:
    """What a pose file cannot keep of a camera, one sentence each."""
    values = camera.named()
    lost = []
    if abs(values["fx"] / values["fy"] - 1) > FOCAL_TOLERANCE:
        lost.append(f"focal lengths {values['fx']:.2f} and {values['fy']:.2f} px become their mean.")
    off_x = abs(values["cx"] / camera.width - 0.5)
    off_y = abs(values["cy"] / camera.height - 0.5)
    if max(off_x, off_y) > CENTRE_TOLERANCE:
        lost.append(
            f"its principal point ({values['cx']:.1f}, {values['cy']:.1f}) px is left out; the image's centre "
            f"({camera.width / 2:g}, {camera.height / 2:g}) is assumed everywhere."
        )
    distortion = {
        name: value for name, value in values.items() if name not in ("fx", "fy", "cx", "cy") and value != 0
    }
    if distortion:
        shown = ", ".join(f"{name} {value:.4g}" for name, value in distortion.items())
        lost.append(f"its lens distortion ({shown}) is left out; undistort the images first if it matters.")
    return lost
