"""Archives from elsewhere: fetched with resume, unpacked only where every member stays in the folder."""

import shutil
import stat
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from acezero_gpu.runtime import InputError

Progress = Callable[[int, int | None], None]
"""Hears how many bytes are there and how many there will be, if that is known."""
CHUNK_BYTES = 1 << 20
TIMEOUT_S = 60
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")


def download(url: str, target: Path, progress: Progress = lambda _done, _total: None) -> None:
    """Fetch a file; what an interrupted call got is kept beside it as ``NAME.part`` and gone on from.

    ``InputError`` if the server cannot be reached, or ends before the size that it announced.
    """
    part = target.with_name(f"{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            resumed = have > 0 and answer.status == 206
            have = have if resumed else 0
            length = answer.headers.get("Content-Length")
            total = None if length is None else have + int(length)
            with part.open("ab" if resumed else "wb") as file:
                while chunk := answer.read(CHUNK_BYTES):
                    file.write(chunk)
                    have += len(chunk)
                    progress(have, total)
    except urllib.error.HTTPError as error:
        if error.code != 416 or have == 0:  # 416: nothing is left to fetch
            raise InputError(
                f"{url}: the server answers {error.code}; download it by hand to {target}."
            ) from error
        total = have
    except (OSError, ValueError) as error:
        raise InputError(f"{url}: cannot be fetched ({error}); try again, it goes on from {part}.") from error
    if total is not None and have < total:
        raise InputError(f"{url}: ended after {have} of {total} bytes; try again, it goes on from {part}.")
    part.replace(target)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar archive into a folder, which appears complete or not at all.

    ``InputError`` for an archive that is damaged or cut off, and for one with a member that would land outside the
    folder, or is neither file nor folder; nothing is written then.
    """
    unfinished = folder.with_name(f".{folder.name}.unpacking")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    try:
        if zipfile.is_zipfile(archive):
            _unpack_zip(archive, unfinished)
        elif tarfile.is_tarfile(archive):
            _unpack_tar(archive, unfinished)
        else:
            raise InputError(f"{archive}: no whole zip or tar archive; it may be cut off, fetch it again.")
        shutil.rmtree(folder, ignore_errors=True)
        unfinished.rename(folder)
    except (zipfile.BadZipFile, tarfile.ReadError, EOFError, zlib.error) as error:
        raise InputError(f"{archive}: damaged or cut off ({error}); fetch it again.") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _unpack_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as content:
        members = content.infolist()
        for member in members:
            kind = stat.S_IFMT(member.external_attr >> 16)
            if _escapes(member.filename) or kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refusal(archive, member.filename)
        for member in members:
            content.extract(member, folder)


def _unpack_tar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as content:
        members = content.getmembers()
        for member in members:
            if _escapes(member.name) or not (member.isfile() or member.isdir()):
                raise _refusal(archive, member.name)
        content.extractall(folder, members, filter="data")


def _escapes(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or ":" in name


def _refusal(archive: Path, member: str) -> InputError:
    return InputError(
        f"{archive}: its member {member} would land outside the folder, or is a link or a device; it is not unpacked."
    )
