"""Image files beside an export: linked where they are fit for it, else copied."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageOps

from acezero_gpu.data.image_set import EXIF_ORIENTATION
from acezero_gpu.io.export_scene import ExportScene
from acezero_gpu.runtime import InputError

JPEG_QUALITY = 95


def place_images(
    folder: Path,
    scene: ExportScene,
    *,
    copy: bool,
    progress: Callable[[int, int], None] = lambda _n, _of: None,
) -> int:
    """The scene's images as ``folder / name``; how many were written anew because of their EXIF orientation.

    Poses and sizes are those of upright images, and few readers of exports turn them by themselves: an image with an
    orientation other than the normal one is written upright. ``InputError`` if an image is gone or cannot be placed.
    """
    turned = 0
    sources = scene.images()
    for row, (source, name) in enumerate(zip(sources, scene.file_names, strict=True)):
        target = folder / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            turned += _place(source, target, copy)
        except OSError as error:
            hint = "" if copy else ", or give --copy-images"
            raise InputError(
                f"{target}: cannot be made from {source} ({error.strerror or error}); give another folder{hint}."
            ) from error
        progress(row + 1, len(sources))
    return turned


def _place(source: Path, target: Path, copy: bool) -> bool:
    """Whether the image had to be turned."""
    if target.exists() and not target.is_symlink() and target.samefile(source):
        return False  # the image lies there already: nothing may replace it
    temporary = target.with_name(f".{os.getpid()}.{target.name}")
    try:
        with Image.open(source) as image:
            turned = image.getexif().get(EXIF_ORIENTATION, 1) not in (0, 1)
            if turned:
                kind = "JPEG" if image.format == "MPO" else image.format
                ImageOps.exif_transpose(image).save(temporary, kind, quality=JPEG_QUALITY)
        if copy and not turned:
            shutil.copyfile(source, temporary)
        elif not turned:
            temporary.symlink_to(source.resolve())
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    return turned
