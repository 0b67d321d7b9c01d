"""Which image files take part: found, ordered, and probed for one common size."""

import glob
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from acezero_gpu.data.file_matching import frame_key, is_depth_map
from acezero_gpu.data.video import VIDEO_SUFFIXES
from acezero_gpu.runtime import InputError

LOG = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jfif", ".avif", ".png", ".tif", ".tiff", ".bmp", ".webp", ".ppm", ".pgm", ".pnm"}
)
"""What counts as an image in a folder; a glob or a list may name any file that Pillow reads."""
UNREAD_SUFFIXES = frozenset({".heic", ".heif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf"})
"""Photographs that are not read here: a folder of them must not be passed over in silence."""
SHOWN = 5
"""So many files of one kind are named in a message."""

EXIF_ORIENTATION = 0x0112
SIDEWAYS = frozenset({5, 6, 7, 8})
"""EXIF orientations that swap width and height."""

Skipped = tuple[str, str]
"""A file that was left out, and why."""


@dataclass(frozen=True, slots=True)
class ImageSet:
    """Image files of one common size, in the order that every other table of a run follows."""

    names: tuple[str, ...]
    """The image paths as they were given; unique."""
    paths: tuple[Path, ...]
    """Where each file lies, seen from the working directory."""
    width: int
    """Columns of every image, after EXIF rotation."""
    height: int
    """Rows of every image, after EXIF rotation."""
    skipped: tuple[Skipped, ...] = ()
    """``(path, reason)`` of each file that was named but could not be read."""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def root(self) -> Path:
        """The absolute folder from which the names are paths: that of the list, or the working directory."""
        if not self.names:
            return Path.cwd()
        depth = len(Path(self.names[0]).parts)
        path = self.paths[0].absolute()
        return path.parents[depth - 1] if depth <= len(path.parents) else Path(path.anchor)

    def subset(self, indices: Iterable[int]) -> "ImageSet":
        """The images at these positions, in this order."""
        rows = [int(index) for index in indices]
        return replace(
            self, names=tuple(self.names[i] for i in rows), paths=tuple(self.paths[i] for i in rows)
        )

    def without(self, failed: dict[int, str], minimum: int) -> "ImageSet":
        """The set less the images that turned out unreadable (position -> reason), with a warning."""
        if not failed:
            return self
        skipped = tuple((self.names[i], reason) for i, reason in sorted(failed.items()))
        warn_skipped(skipped)
        kept = self.subset(i for i in range(len(self)) if i not in failed)
        kept = replace(kept, skipped=self.skipped + skipped)
        require_minimum(len(kept), minimum, kept.skipped)
        return kept


def resolve_images(spec: str | Path, *, limit: int | None = None, minimum: int = 2) -> ImageSet:
    """The images that ``spec`` names: a glob, a folder, a text file with one path per line, or one image.

    A folder gives its image files, not those of folders below it. Globs and folders are ordered
    alphabetically; a list keeps its order, its paths are relative to the list's own folder, and blank lines
    and lines that start with ``#`` are skipped. ``limit`` keeps the first so many. Files that cannot be read
    are left out with a warning and stand in ``ImageSet.skipped``; only headers are read here, so damage
    further on is found by ``load_grey``.

    Raises ``InputError`` when nothing matches, when fewer than ``minimum`` images remain, when a listed file
    does not exist, and when the images differ in size.
    """
    named = _named_files(spec)
    unread = [path for path in files_of(spec, UNREAD_SUFFIXES) if path.suffix.lower() in UNREAD_SUFFIXES]
    if unread and not named:
        raise InputError(f"{unread[0]}: {_CONVERT}")
    if unread:
        LOG.warning("%d photographs are left out, the first is %s: %s", len(unread), unread[0], _CONVERT)
    if not named:
        raise InputError(
            f"{spec}: no image matches; give a folder, a glob such as 'photos/*.jpg', or a list."
        )
    if limit is not None:
        named = named[:limit]
    with ThreadPoolExecutor() as pool:
        probes = list(pool.map(probe_size, [path for _, path in named]))
    readable = [(pair, size) for pair, size in zip(named, probes, strict=True) if not isinstance(size, str)]
    skipped = tuple(
        (pair[0], size) for pair, size in zip(named, probes, strict=True) if isinstance(size, str)
    )
    warn_skipped(skipped)
    require_minimum(len(readable), minimum, skipped, spec)
    width, height = _common_size([pair[0] for pair, _ in readable], [size for _, size in readable])
    names = tuple(pair[0] for pair, _ in readable)
    return ImageSet(names, tuple(pair[1] for pair, _ in readable), width, height, skipped)


def files_of(spec: str | Path, suffixes: frozenset[str]) -> list[Path]:
    """Files of a folder that carry one of the suffixes, or those that a glob matches, alphabetically."""
    folder = Path(spec)
    if folder.is_dir():
        return sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes and path.is_file())
    if folder.is_file():
        return [folder]
    found = sorted(glob.glob(str(spec), recursive=True))  # noqa: PTH207 (Path.glob takes no absolute pattern)
    return [path for path in map(Path, found) if path.is_file()]


def warn_skipped(skipped: Sequence[Skipped]) -> None:
    """One log line for all of them, so that a folder of broken files does not flood the terminal."""
    if skipped:
        shown = "; ".join(f"{path} ({reason})" for path, reason in skipped[:10])
        more = f"; and {len(skipped) - 10} more" if len(skipped) > 10 else ""
        LOG.warning("left out %d unreadable image file(s): %s%s", len(skipped), shown, more)


def require_minimum(
    count: int, minimum: int, skipped: Sequence[Skipped] = (), spec: str | Path | None = None
) -> None:
    if count < minimum:
        left_out = (
            f", {len(skipped)} could not be read (first: {skipped[0][0]}: {skipped[0][1]})" if skipped else ""
        )
        start = f"{spec}: " if spec is not None else ""
        raise InputError(
            f"{start}{count} usable image(s){left_out}; add some, at least {minimum} are needed."
        )


_CONVERT = "this format cannot be read here; convert such files to JPEG or PNG first."


def _named_files(spec: str | Path) -> list[tuple[str, Path]]:
    path = Path(spec)
    if path.is_file() and path.suffix.lower() in UNREAD_SUFFIXES:
        return []
    if path.is_file() and path.suffix.lower() not in IMAGE_SUFFIXES:
        return _listed_files(path)
    found = [file for file in files_of(spec, IMAGE_SUFFIXES) if file.suffix.lower() not in UNREAD_SUFFIXES]
    return [(str(file), file) for file in _photographs(found)]


def _photographs(files: list[Path]) -> list[Path]:
    """Without depth maps that lie beside their colour images, and without the pictures that a run makes of itself."""
    coloured = {
        file.parent / frame_key(file)
        for file in files
        if frame_key(file) != file.stem and not is_depth_map(file)
    }
    depth = {file for file in files if is_depth_map(file) and file.parent / frame_key(file) in coloured}
    if depth:
        LOG.warning("%d depth maps beside the images are no photographs: left out", len(depth))
    drawn = {
        file
        for file in files
        if file.name == "reconstruction.png" and file.with_name("config.toml").is_file()
    }
    return [file for file in files if file not in depth and file not in drawn]


def _listed_files(list_file: Path) -> list[tuple[str, Path]]:
    if list_file.suffix.lower() in VIDEO_SUFFIXES:
        raise InputError(
            f"{list_file}: is a video; take its frames first, with acezero frames {list_file} FOLDER."
        )
    try:
        lines = list_file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(
            f"{list_file}: neither image nor text; a list has one image path per line."
        ) from None
    named: dict[str, Path] = {}
    for number, line in enumerate(lines, start=1):
        name = line.strip()
        if not name or name.startswith("#"):
            continue
        path = list_file.parent / name
        if not path.is_file():
            raise InputError(
                f"{list_file}:{number}: no file {path}; give paths relative to the list, with their suffix."
            )
        if name in named:
            raise InputError(f"{list_file}:{number}: {name} is listed twice; remove one of the two lines.")
        named[name] = path
    return list(named.items())


def probe_size(path: Path) -> tuple[int, int] | str:
    """Width and height after EXIF rotation, or why the file cannot be read."""
    try:
        if path.stat().st_size == 0:
            return "empty file"
        with Image.open(path) as image:
            if image.format == "PNG" and not _png_has_orientation(path):
                return image.size
            sideways = image.getexif().get(EXIF_ORIENTATION) in SIDEWAYS
            if sideways and image.format == "TIFF":
                image.load()  # Pillow turns TIFF itself; only some versions say so in the size before
                return image.size
            return (image.height, image.width) if sideways else image.size
    except Exception as error:  # Pillow's format plugins raise almost any type for a damaged header
        return f"{type(error).__name__}: {error}"


def _png_has_orientation(path: Path) -> bool:
    """Whether a chunk may carry an orientation; asking Pillow would decode all pixels to see what follows."""
    with path.open("rb") as file:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = int.from_bytes(head[:4]), head[4:]
            keyword = file.read(min(length, 17))
            if kind == b"eXIf" or (
                kind.endswith(b"Xt") and keyword.startswith((b"Raw profile", b"XML:com.adobe"))
            ):
                return True
            file.seek(length - len(keyword) + 4, 1)
    return False


def _common_size(names: Sequence[str], sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    if not sizes:
        return 0, 0
    (width, height), count = Counter(sizes).most_common(1)[0]
    odd = [(name, size) for name, size in zip(names, sizes, strict=True) if size != (width, height)]
    if not odd:
        return width, height
    (first, (columns, rows)), *others = odd
    more = ""
    if others:
        shown = ", ".join(f"{name} ({size[0]}x{size[1]})" for name, size in others[:SHOWN])
        rest = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        more = f", and so differ {shown}{rest}"
    advice = "leave it out, since the centre of a cropped picture is not that of the lens"
    if (rows, columns) == (width, height):
        advice = "leave upright or lying ones out, or turn them by 90 degrees"
    elif abs(columns * height - rows * width) <= max(width, height):
        advice = "resize it or leave it out"
    raise InputError(
        f"{first} is {columns}x{rows} but {count} of {len(names)} images are {width}x{height}{more}; "
        f"all images of one run must have the same size: {advice}."
    )
