"""Poses in text: ACE0's pose file, and folders of 4x4 camera-to-world matrices as 7-Scenes has them.

A pose file has one line per image, ``name qw qx qy qz tx ty tz focal_length confidence``: world to camera,
OpenCV axes, the focal length in pixels of the original image. This module alone knows that quaternions are
``w x y z`` in files and ``x y z w`` in memory. A name that holds white space, a quote, a backslash or ``#``
is written between double quotes, inside which ``\\"``, ``\\\\``, ``\\n``, ``\\r`` and ``\\t`` stand for the
characters themselves; an unquoted name is read as it stands. Lines that start with ``#`` are comments.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pypose as pp
import torch
from torch import Tensor

from acezero_gpu.data.file_matching import match_by_key, match_files
from acezero_gpu.data.image_set import files_of
from acezero_gpu.data.posed_views import PosedViews
from acezero_gpu.geometry import invert, orthonormalise, se3_from_matrix
from acezero_gpu.runtime import InputError
from acezero_gpu.runtime.atomic import write_atomically

QUATERNION_NORM_TOLERANCE = 1e-2
"""A quaternion whose norm is further from 1 than this is taken for an error in the file, not for rounding."""
NORM_ROUNDING = 1e-14
"""A norm this near to 1 is rounding of double precision; to divide by it would change the last digits, and a file that
is read and written again would not stay as it is."""
RIGID_TOLERANCE = 1e-2
"""The largest entry of ``R Rᵀ - I`` that passes for rounding in a matrix file."""

POSE_SUFFIXES = frozenset({".txt"})
_NEEDS_QUOTES = re.compile(r'[\s"\'\\#]')
_QUOTED_LINE = re.compile(r'"((?:[^"\\]|\\.)*)"\s+(.*)')
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_UNESCAPES = {escaped[1]: plain for plain, escaped in _ESCAPES.items()}
_FIELDS = "qw qx qy qz tx ty tz focal_length confidence"


def write_pose_file(path: str | Path, views: PosedViews) -> None:
    """Write the views so that reading them gives the same numbers; the file appears complete or not at all.

    A view without a finite pose is written as the identity with confidence 0.
    """
    digits = 17 if views.cam_from_world.dtype == torch.float64 else 9
    lines = []
    for name, row in zip(views.names, _file_rows(views).tolist(), strict=True):
        lines.append(" ".join([quote_name(name), *(f"{value:.{digits}g}" for value in row)]) + "\n")
    write_atomically(path, "".join(lines))


def read_pose_file(path: str | Path, *, dtype: torch.dtype = torch.float32) -> PosedViews:
    """Read a pose file of this program or of ACE0; quaternions are normalised.

    ``InputError``, naming file and line, for a line that is not ``name`` and nine numbers, for a pose that is
    not finite, a quaternion that is not of unit norm, a focal length that is not positive, a confidence that
    is negative or not a number, and a name that occurred before.
    """
    rows: dict[str, list[float]] = {}
    for number, line in enumerate(_read_text(Path(path)).split("\n"), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            name, values = _parse_line(line.strip())
        except ValueError as error:
            raise InputError(f"{path}:{number}: {error}; the line must be: name {_FIELDS}.") from None
        if name in rows:
            raise InputError(f"{path}:{number}: {name} has a pose already; remove one of the two lines.")
        rows[name] = values
    table = torch.tensor(list(rows.values()), dtype=torch.float64).reshape(-1, 9)
    quaternion = table[:, [1, 2, 3, 0]]
    norm = quaternion.norm(dim=-1, keepdim=True)
    quaternion = torch.where((norm - 1).abs() > NORM_ROUNDING, quaternion / norm, quaternion)
    pose = pp.SE3(torch.cat([table[:, 4:7], quaternion], dim=-1).to(dtype))
    return PosedViews(tuple(rows), pose, table[:, 7].to(dtype), table[:, 8].to(dtype))


def read_pose_folder(
    spec: str | Path,
    names: Sequence[str],
    focal_px: float,
    *,
    allow_missing: bool = False,
    dtype: torch.dtype = torch.float32,
) -> PosedViews:
    """Camera-to-world matrices, one text file per image, for these images in their order.

    A file belongs to the image of the same stem (``frame-000000.pose.txt`` to ``frame-000000.color.png``);
    where no name fits, both are paired in order, if there are as many. Found poses have
    confidence inf. A matrix that is not finite marks a lost frame: identity with confidence 0, and so does
    an absent file if ``allow_missing``. ``InputError`` for an image without a file otherwise, and for a file
    that does not hold a rigid 4x4 matrix.
    """
    files = files_of(spec, POSE_SUFFIXES)
    if not files:
        raise InputError(f"{spec}: nothing there; give a pose file, or a folder or glob of 4x4 text files.")
    matches = match_files(names, files, spec=spec, kind="pose files")
    cam_from_world = torch.eye(4, dtype=torch.float64)[:3].repeat(len(names), 1, 1)
    confidence = torch.zeros(len(names), dtype=dtype)
    for row, match in enumerate(matches):
        if match is None and not allow_missing:
            raise InputError(f"{spec}: no pose for image {names[row]}; add its file or leave the image out.")
        world_from_cam = None if match is None else _read_matrix(match)
        if world_from_cam is not None:
            cam_from_world[row] = invert(world_from_cam)
            confidence[row] = math.inf
    focal = torch.full((len(names),), focal_px, dtype=dtype)
    return PosedViews(tuple(names), se3_from_matrix(cam_from_world).to(dtype), focal, confidence)


def read_poses(
    spec: str | Path,
    names: Sequence[str],
    focal_px: float | None = None,
    *,
    allow_missing: bool = False,
    dtype: torch.dtype = torch.float32,
) -> PosedViews:
    """Poses for these images, from a pose file or from a folder or glob of matrices, whichever ``spec`` is.

    ``focal_px`` replaces the focal lengths of a pose file; matrices have none, so there it must be given.
    """
    path = Path(spec)
    if path.is_file():
        views = read_pose_file(path, dtype=dtype)
        if focal_px is not None:
            views = replace(views, focal_px=torch.full_like(views.focal_px, focal_px))
        return match_to_images(views, names, allow_missing=allow_missing, source=spec)
    if focal_px is None:
        raise InputError(f"{spec}: these poses carry no focal length; give it, in pixels of the image files.")
    return read_pose_folder(spec, names, focal_px, allow_missing=allow_missing, dtype=dtype)


def match_to_images(
    views: PosedViews,
    names: Sequence[str],
    *,
    allow_missing: bool = False,
    source: str | Path = "the pose file",
) -> PosedViews:
    """The views in the order of ``names``, under these names: matched by path, else file name, else stem.

    ``InputError`` for an image without a pose; with ``allow_missing`` it becomes the identity with
    confidence 0 and the focal length of the first view.
    """
    matches = match_by_key(names, views.names)
    absent = [name for name, match in zip(names, matches, strict=True) if match is None]
    if absent and (not allow_missing or len(absent) == len(names)):
        raise InputError(f"{source}: no pose for image {absent[0]}; add it or leave the image out.")
    found = torch.tensor([match is not None for match in matches], dtype=torch.bool)
    rows = torch.tensor([0 if match is None else match for match in matches], dtype=torch.int64)
    pose = _plain(views.cam_from_world)[rows]
    pose[~found] = pose.new_tensor([0, 0, 0, 0, 0, 0, 1])
    confidence = torch.where(found, views.confidence[rows], 0.0)
    return PosedViews(tuple(names), pp.SE3(pose), views.focal_px[rows], confidence)


def quote_name(name: str) -> str:
    """The name as a pose file has it: in double quotes if it could be misread without them."""
    if name and not _NEEDS_QUOTES.search(name):
        return name
    return '"' + "".join(_ESCAPES.get(letter, letter) for letter in name) + '"'


def _plain(pose: Tensor) -> Tensor:
    """The seven numbers of a pypose tensor, or of a tensor that holds them already."""
    return pose.tensor() if isinstance(pose, pp.LieTensor) else pose


def _file_rows(views: PosedViews) -> Tensor:
    pose = _plain(views.cam_from_world).detach().cpu()
    finite = pose.isfinite().all(-1)
    pose = torch.where(finite[:, None], pose, pose.new_tensor([0, 0, 0, 0, 0, 0, 1]))
    confidence = torch.where(finite, views.confidence.detach().cpu(), 0.0)
    columns = [
        pose[:, [6, 3, 4, 5]],
        pose[:, :3],
        views.focal_px.detach().cpu()[:, None],
        confidence[:, None],
    ]
    return torch.cat([column.double() for column in columns], dim=-1)


def _parse_line(line: str) -> tuple[str, list[float]]:
    quoted = _QUOTED_LINE.fullmatch(line)
    if line.startswith('"') and quoted is None:
        raise ValueError("the quoted name does not end")
    if quoted is not None:
        name = re.sub(r"\\(.)", lambda match: _UNESCAPES.get(match[1], match[1]), quoted[1])
        fields = quoted[2].split()
    else:
        name, *fields = line.split()
    if len(fields) != 9:
        raise ValueError(f"{len(fields)} numbers instead of 9 (names with spaces need double quotes)")
    values = []
    for label, text in zip(_FIELDS.split(), fields, strict=True):
        try:
            values.append(float(text))
        except ValueError:
            raise ValueError(f"{label} is {text!r}, not a number") from None
    _check_values(values)
    return name, values


def _check_values(values: list[float]) -> None:
    if not all(map(math.isfinite, values[:7])):
        raise ValueError("the pose is not finite")
    norm = math.hypot(*values[:4])
    if abs(norm - 1.0) > QUATERNION_NORM_TOLERANCE:
        raise ValueError(f"the quaternion has norm {norm:.4g} instead of 1")
    if not (math.isfinite(values[7]) and values[7] > 0):
        raise ValueError(f"the focal length {values[7]} is not a positive number")
    if not values[8] >= 0:
        raise ValueError(f"the confidence {values[8]} is not zero or more")


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path.") from error


def _read_matrix(path: Path) -> Tensor | None:
    """Camera to world, 3x4; None for a lost frame."""
    try:
        matrix = np.array(
            [row.split() for row in _read_text(path).split("\n") if row.strip()], dtype=np.float64
        )
    except ValueError:
        raise InputError(f"{path}: not a table of numbers; a pose is a 4x4 camera-to-world matrix.") from None
    if matrix.shape not in ((4, 4), (3, 4)):
        raise InputError(f"{path}: a pose is a 4x4 camera-to-world matrix, not one of shape {matrix.shape}.")
    if not np.isfinite(matrix).all():
        return None
    rotation = matrix[:3, :3]
    error = np.abs(rotation @ rotation.T - np.eye(3)).max()
    last_row_fits = len(matrix) == 3 or np.allclose(matrix[3], [0, 0, 0, 1], atol=1e-6)
    if error > RIGID_TOLERANCE or np.linalg.det(rotation) < 0 or not last_row_fits:
        raise InputError(f"{path}: not a rigid camera-to-world matrix; correct or remove it.")
    world_from_cam = torch.from_numpy(matrix[:3])
    return torch.cat([orthonormalise(world_from_cam[:, :3]), world_from_cam[:, 3:]], dim=-1)
