"""Archives that are cut off, that would write elsewhere, and downloads that go on where they stopped."""

import io
import re
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from acezero_gpu.io.archives import download, unpack
from acezero_gpu.runtime import InputError

CONTENT = bytes(range(256)) * 40


def zip_of(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def tar_of(path: Path, member: tarfile.TarInfo, content: bytes = b"x") -> Path:
    member.size = len(content) if member.isfile() else 0
    with tarfile.open(path, "w:gz") as archive:
        archive.addfile(member, io.BytesIO(content))
    return path


def test_files_land_where_they_belong(tmp_path: Path) -> None:
    unpack(zip_of(tmp_path / "a.zip", {"scene/one.txt": b"1", "two.txt": b"2"}), tmp_path / "zip")
    assert (tmp_path / "zip/scene/one.txt").read_bytes() == b"1"
    unpack(tar_of(tmp_path / "a.tgz", tarfile.TarInfo("scene/three.txt"), b"3"), tmp_path / "tar")
    assert (tmp_path / "tar/scene/three.txt").read_bytes() == b"3"


@pytest.mark.parametrize("name", ["../out.txt", "/out.txt", "a/../../out.txt", "..\\out.txt", "C:/out.txt"])
def test_a_member_that_would_land_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    for archive in (
        zip_of(inner / "a.zip", {"good.txt": b"1", name: b"2"}),
        tar_of(inner / "a.tgz", tarfile.TarInfo(name)),
    ):
        with pytest.raises(InputError, match="outside the folder"):
            unpack(archive, inner / "unpacked")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.tgz", "a.zip", "inner"]


def test_links_are_refused(tmp_path: Path) -> None:
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc"
    as_zip = zipfile.ZipInfo("link")
    as_zip.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(as_zip, "/etc")
    for archive in (tar_of(tmp_path / "a.tgz", link), tmp_path / "a.zip"):
        with pytest.raises(InputError, match="a link"):
            unpack(archive, tmp_path / "unpacked")


def test_an_archive_that_is_cut_off_or_damaged_is_refused(tmp_path: Path) -> None:
    whole = zip_of(tmp_path / "a.zip", {"one.bin": CONTENT}).read_bytes()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    damaged = bytearray(whole)
    damaged[60] ^= 255
    (tmp_path / "damaged.zip").write_bytes(bytes(damaged))
    tar = tar_of(tmp_path / "a.tgz", tarfile.TarInfo("one.bin"), CONTENT).read_bytes()
    (tmp_path / "cut.tgz").write_bytes(tar[: len(tar) // 2])
    for name in ("cut.zip", "damaged.zip", "cut.tgz"):
        with pytest.raises(InputError, match="cut off"):
            unpack(tmp_path / name, tmp_path / "unpacked")
        assert not (tmp_path / "unpacked").exists()


class Server(BaseHTTPRequestHandler):
    ranges: list[int]
    limit = len(CONTENT)
    """The connection ends after so many bytes."""

    def do_GET(self) -> None:
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        first = int(match[1]) if match else 0
        type(self).ranges.append(first)
        self.send_response(206 if match else 200)
        self.send_header("Content-Length", str(len(CONTENT) - first))
        self.end_headers()
        self.wfile.write(CONTENT[first : type(self).limit])

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    Server.ranges, Server.limit = [], len(CONTENT)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/file.zip"
    server.shutdown()
    server.server_close()


def test_a_download_goes_on_where_it_stopped(tmp_path: Path, address: str) -> None:
    target = tmp_path / "new" / "file.zip"
    Server.limit = 3000
    with pytest.raises(InputError, match="goes on from"):
        download(address, target)
    assert not target.exists()
    Server.limit = len(CONTENT)
    heard: list[tuple[int, int | None]] = []
    download(address, target, lambda done, total: heard.append((done, total)))
    assert target.read_bytes() == CONTENT
    assert Server.ranges == [0, 3000]
    assert heard[-1] == (len(CONTENT), len(CONTENT))
    assert [path.name for path in target.parent.iterdir()] == ["file.zip"]


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be fetched"):
        download("http://127.0.0.1:9/file.zip", tmp_path / "file.zip")
