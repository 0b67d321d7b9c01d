"""The film: what is nearer hides what is farther, chapters differ, and Chromium plays it."""

import time
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from chromium import Chromium, find_chromium

from acezero_gpu.runtime import atomic
from acezero_gpu.viz import film
from acezero_gpu.viz.film import Chapter, FilmConfig, write_film
from acezero_gpu.viz.splatting import BACKGROUND, Dots, Eye, draw

RED, GREEN, BLUE = (200, 20, 20), (20, 200, 20), (20, 20, 200)
SHORT = FilmConfig(frames_per_s=8, chapter_s=1.0, sweep_s=1.0)


def eye(cut: float = -10.0) -> Eye:
    """Looks along z from in front of a small picture of 40x30 pixels."""
    return Eye(np.eye(3, dtype=np.float32), 10.0, (20.0, 15.0), cut)


def dots(*rows: tuple[tuple[float, float, float], tuple[int, int, int]], size_px: int = 3) -> Dots:
    positions, colours = zip(*rows, strict=True)
    return Dots(np.array(positions, np.float32), np.array(colours, np.uint8), size_px)


def reddest(pixel: np.ndarray) -> int:
    return int(np.argmax(pixel[:3].astype(int)))


@pytest.mark.parametrize("order", [1, -1])
def test_the_nearer_dot_wins_whatever_the_order(order: int) -> None:
    rows = [((0.0, 0.0, 0.5), RED), ((0.0, 0.0, -0.5), GREEN), ((0.0, 0.0, 0.0), BLUE)][::order]
    together = draw(eye(), [dots(*rows)], 40, 30)
    apart = draw(eye(), [dots(row) for row in rows], 40, 30)
    assert reddest(together[15, 20]) == 1
    assert np.array_equal(together, apart)
    assert tuple(together[0, 0, :3]) == BACKGROUND


def test_dots_are_where_the_pinhole_puts_them() -> None:
    picture = draw(eye(), [dots(((0.5, -0.3, 1.0), RED), size_px=1)], 40, 30)
    rows, columns = np.nonzero((picture[..., :3] != BACKGROUND).any(-1))
    nearer = 2.6 / 3.6
    assert abs(columns[0] + 0.5 - (20 + 5 * nearer)) <= 1
    assert abs(rows[0] + 0.5 - (15 - 3 * nearer)) <= 1
    assert len(rows) == 1


def test_what_is_out_of_sight_is_left_out() -> None:
    scene = dots(((9.0, 0, 0), RED), ((0, -9.0, 0), RED), ((0, 0, -0.5), RED), ((0, 0, -5.0), RED))
    picture = draw(eye(cut=-0.4), [scene], 40, 30)
    assert (picture[..., :3] == BACKGROUND).all()
    assert (draw(eye(), [], 40, 30)[..., :3] == BACKGROUND).all()


def chapters() -> list[Chapter]:
    """A wall that is first small and red, then large and green; cameras join."""
    generator = torch.Generator().manual_seed(0)
    wall = (torch.rand(3000, 3, generator=generator) - 0.5) * torch.tensor([4.0, 2.0, 0.2])
    wall += torch.tensor([0.6, 0.0, 4.0])
    poses = torch.eye(3, 4).repeat(5, 1, 1)
    poses[:, 0, 3] = -0.3 * torch.arange(5)
    made = []
    for name, colour, count, posed in (("start", RED, 800, 2), ("final", GREEN, 3000, 4)):
        confidence = torch.where(torch.arange(5) < posed, 1500.0, 0.0)
        colours = torch.tensor(colour, dtype=torch.uint8).repeat(count, 1)
        made.append(Chapter(f"{name}: {posed} of 5", wall[:count], colours, poses, confidence))
    return made


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("film") / "film.mp4"
    assert write_film(made, chapters(), title="A wall", config=SHORT) == 24
    assert [file.name for file in made.parent.iterdir()] == ["film.mp4"]
    return made


def test_the_chapters_follow_each_other(path: Path) -> None:
    frames = np.stack(list(iio.imiter(path, plugin="FFMPEG"))).astype(int)
    assert frames.shape == (24, 720, 1280, 3)

    def count(frame: np.ndarray, channel: int) -> int:
        others = frame.sum(-1) - frame[..., channel]
        return int((frame[60:-44, ..., channel] > 1.2 * others[60:-44]).sum())

    red, green = ([count(frame, channel) for frame in frames] for channel in (0, 1))
    assert min(red[:8]) > 500
    assert max(red[8:]) == 0
    assert min(green[8:]) > 2000
    assert np.abs(frames[17] - frames[20]).mean() > 1.0  # the eye moves
    facts = iio.immeta(path, plugin="FFMPEG")
    assert facts["codec"] == "h264"
    assert facts["pix_fmt"].startswith("yuv420p")


def test_the_index_comes_first(path: Path) -> None:
    """So that a browser can begin to play before it has everything."""
    content = path.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_it_plays_in_chromium(path: Path, tmp_path: Path) -> None:
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium here")
    page = tmp_path / "page.html"
    page.write_text(f'<video id="v" src="{path.as_uri()}" width="640" height="360" muted></video>')
    with Chromium(program, tmp_path / "profile") as browser:
        browser.open(page, 660, 400)
        end = time.monotonic() + 60
        while browser.evaluate("document.getElementById('v').readyState") < 2:
            assert time.monotonic() < end, browser.evaluate(
                "String(document.getElementById('v').error?.message)"
            )
        seek = "new Promise(done => { const v = document.getElementById('v'); v.onseeked = () => done(true); "
        browser.evaluate(seek + "v.currentTime = 2.5; })")
        browser.settle()
        assert browser.evaluate("document.getElementById('v').videoWidth") == 1280
        shot = iio.imread(browser.screenshot()).astype(int)[..., :3]
    assert int((shot[..., 1] > 1.2 * (shot[..., 0] + shot[..., 2])).sum()) > 800


def test_a_failed_film_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "film.mp4"
    old.write_bytes(b"old")

    def broken(*_arguments: object) -> None:
        raise RuntimeError("no picture")

    monkeypatch.setattr(film._Scene, "picture", broken)
    with pytest.raises(RuntimeError, match="no picture"):
        write_film(old, chapters(), title="", config=SHORT)
    assert old.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["film.mp4"]


def test_a_file_takes_its_place_when_it_is_complete(tmp_path: Path) -> None:
    with atomic.replaced_when_complete(tmp_path / "a.bin") as temporary:
        temporary.write_bytes(b"new")
        assert temporary.suffix == ".bin"
        assert not (tmp_path / "a.bin").exists()
    assert (tmp_path / "a.bin").read_bytes() == b"new"
