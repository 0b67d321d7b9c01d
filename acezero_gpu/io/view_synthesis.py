"""A run as data of the view synthesis benchmark: images to train on, and images held back to judge the poses by."""

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import torch
from PIL import Image

from acezero_gpu.data.file_matching import match_by_key
from acezero_gpu.data.loading import decode_image
from acezero_gpu.geometry import PinholeCamera, invert
from acezero_gpu.io.datasets.image_set_folder import every_eighth
from acezero_gpu.io.export_scene import ColouredPoints, ExportScene, export_scene, exported_names
from acezero_gpu.io.nerfstudio import IMAGE_FOLDER, POINTS, TRANSFORMS, transforms, write_transforms
from acezero_gpu.io.ply import read_points
from acezero_gpu.io.run_reader import FinishedRun
from acezero_gpu.runtime import InputError
from acezero_gpu.runtime.atomic import replaced_when_complete, write_atomically
from acezero_gpu.splatting.views import ColourViews, undistorted

MAX_SIDE_PX = 640
"""Images are reduced by the least whole number that brings their longest side to this, as in ACE0's benchmark."""
FIRST_TEST = 4
"""Position of the first test image in alphabetical order; every eighth from there on is one."""
MAX_TEST_IMAGES = 1000
"""Of more test images than about this many, every n-th is taken, as in ACE0's benchmark."""
MIN_TRAIN_SHARE = 1000 / 4800
"""An image trains only if at least this share of its cells are inliers (ACE0: 1000 of 4800 cells)."""
_KEYS = ("train_filenames", "test_filenames")


@dataclass(frozen=True, slots=True)
class ViewSplit:
    """Which images of a run train, and which are held back: positions in the run, no position twice."""

    train: tuple[int, ...]
    test: tuple[int, ...]


def usual_split(names: Sequence[str]) -> ViewSplit:
    """Every eighth image in alphabetical order is a test image."""
    row_of = {name: row for row, name in enumerate(names)}
    train, test = every_eighth(names, FIRST_TEST)
    return ViewSplit(tuple(row_of[name] for name in train), tuple(row_of[name] for name in test))


def read_split(path: Path, names: Sequence[str]) -> ViewSplit:
    """The split of a JSON file with the lists ``train_filenames`` and ``test_filenames``.

    Its names are found among those of the run by path, else file name, else stem. Images of the run that it does
    not name take no part. ``InputError`` for a file that is none, and for names that are of no image of the run.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        lists = [content[key] for key in _KEYS]
    except OSError as error:
        raise InputError(f"--split {path}: cannot be read ({error.strerror}).") from error
    except (ValueError, TypeError, KeyError):
        lists = []
    if not lists or not all(
        isinstance(part, list) and all(isinstance(n, str) for n in part) for part in lists
    ):
        raise InputError(
            f"--split {path}: not a split; it needs the lists {' and '.join(_KEYS)} of image names."
        )
    train, test = lists
    listed = [*train, *test]
    often, count = Counter(listed).most_common(1)[0] if listed else ("", 0)
    if count > 1:
        raise InputError(f"--split {path}: names {often} {count} times.")
    rows = match_by_key(listed, names)
    if None in rows:
        unknown = listed[rows.index(None)]
        raise InputError(
            f"--split {path}: names {unknown}, which is no image of the run, and {rows.count(None) - 1} more; "
            "reconstruct all images that it names, or give another split."
        )
    found = [row for row in rows if row is not None]
    return ViewSplit(tuple(found[: len(train)]), tuple(found[len(train) :]))


def trusted_split(run: FinishedRun, split: ViewSplit, min_train_confidence: float) -> ViewSplit:
    """The split less training images of too little confidence, and less test images that are too many.

    Test images stay whatever their confidence. One that is not registered keeps the pose that the pose file has for
    it, the identity where none was found, and spoils the figures as it should.
    """
    sure = (run.views.confidence >= min_train_confidence).tolist()
    test = sorted(split.test, key=lambda row: run.views.names[row])
    if len(test) > MAX_TEST_IMAGES:
        test = test[:: len(test) // MAX_TEST_IMAGES]
    return ViewSplit(tuple(row for row in split.train if sure[row]), tuple(test))


def reduced_size(width: int, height: int) -> tuple[int, int]:
    """Width and height in the benchmark."""
    factor = 1
    while max(width, height) // factor > MAX_SIDE_PX:
        factor += 1
    return max(1, width // factor), max(1, height // factor)


def write_view_synthesis(
    folder: Path, run: FinishedRun, split: ViewSplit, progress: Callable[[int, int], None]
) -> tuple[int, int]:
    """Reduced images as PNG, and ``transforms.json`` with the split, for Nerfstudio; the images' width and height.

    The point cloud of the run is in it if the run has one. The validation images are the test images: Nerfstudio
    wants some while it trains, and chooses nothing by them.
    """
    rows = sorted({*split.train, *split.test})
    whole = export_scene(run, 0.0)
    png = exported_names(tuple(str(PurePath(name).with_suffix(".png")) for name in run.views.names))
    scene = replace(whole, file_names=png).subset(rows)
    size = reduced_size(scene.width, scene.height)
    _write_images(folder / IMAGE_FOLDER, scene, size, progress)
    content = transforms(scene, size)

    def files(rows: Sequence[int]) -> list[str]:
        return [f"{IMAGE_FOLDER}/{png[row]}" for row in rows]

    content["train_filenames"] = files(split.train)
    content["val_filenames"] = content["test_filenames"] = files(split.test)
    if run.point_cloud is not None:
        write_atomically(folder / POINTS, run.point_cloud.read_bytes())
        content["ply_file_path"] = POINTS
    write_transforms(folder, content)
    return size


def read_view_synthesis(folder: Path) -> tuple[ColourViews, ColourViews, ColouredPoints]:
    """What ``write_view_synthesis`` wrote: views to train on and to test, without distortion, and the point cloud.

    ``InputError`` where the run had no point cloud.
    """
    content = json.loads((folder / TRANSFORMS).read_text(encoding="utf-8"))
    if "ply_file_path" not in content:
        raise InputError(f"{folder}: the run has no point_cloud.ply to start from; reconstruct it anew.")
    points, colours = read_points(folder / content["ply_file_path"])
    focal = torch.tensor([content["fl_x"], content["fl_y"]], dtype=torch.float64)
    camera = PinholeCamera(focal, torch.tensor([content["cx"], content["cy"]], dtype=torch.float64))
    poses = {frame["file_path"]: frame["transform_matrix"] for frame in content["frames"]}
    size = (content["w"], content["h"])

    def views(names: Sequence[str]) -> ColourViews:
        pixels = torch.stack([torch.from_numpy(decode_image(folder / n, "RGB", size)) for n in names])
        world_from_cam = torch.tensor([poses[name] for name in names], dtype=torch.float64)[:, :3]
        world_from_cam[..., 1:3] *= -1  # from OpenGL's camera axes
        straight, seen = undistorted(pixels, camera, (content["k1"], content["k2"]))
        return ColourViews(straight, invert(world_from_cam), camera, seen)

    train, test = (views(content[key]) for key in _KEYS)
    return train, test, ColouredPoints(points, colours)


def _write_images(
    folder: Path, scene: ExportScene, size_px: tuple[int, int], progress: Callable[[int, int], None]
) -> None:
    sources = scene.images()
    for row, (source, name) in enumerate(zip(sources, scene.file_names, strict=True)):
        try:
            pixels = decode_image(source, "RGB", size_px)
        except Exception as error:  # decoders raise almost any type for damaged data
            raise InputError(f"{source}: cannot be read ({type(error).__name__}: {error}).") from error
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with replaced_when_complete(target) as temporary:
            Image.fromarray(pixels).save(temporary, "PNG")
        progress(row + 1, len(sources))
