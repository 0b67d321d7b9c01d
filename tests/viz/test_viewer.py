"""The viewer's page in a real browser: what a click shows, how the rounds differ, what is shown of many points."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import chromium
import numpy as np
import pytest
import torch
from chromium import Chromium, find_chromium
from PIL import Image

from acezero_gpu.geometry import camera_centres
from acezero_gpu.viz.viewer import NO_PICTURE, RunViewer, ViewedRound, ViewedRun, description

WIDTH, HEIGHT = 900, 600
COLOURS = ((230, 30, 30), (30, 200, 30), (30, 30, 230))
GONE = 3
"""An image whose file is missing."""
WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")


def wait(condition: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> ViewedRun:
    """Four cameras in a row that look at a wall; the second one joins in the last round."""
    folder = tmp_path_factory.mktemp("photos")
    paths: list[Path | None] = []
    for index, colour in enumerate(COLOURS):
        paths.append(folder / f"{index}.png")
        Image.new("RGB", (64, 48), colour).save(folder / f"{index}.png")
    poses = torch.eye(3, 4).repeat(4, 1, 1)
    poses[:, 0, 3] = -torch.arange(4.0)
    confidence = torch.tensor([600.0, 900.0, 2000.0, 700.0])
    first = ViewedRound("start", poses, torch.tensor([600.0, 20.0, 2000.0, 700.0]), (True, False, True, True))
    points = torch.rand(300, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([4.0, 2.0, 0.1])
    return ViewedRun(
        "four cameras",
        ("0.png", "1.png", "2.png", "gone.png"),
        (*paths, None),
        [first, ViewedRound("final", poses, confidence, (True,) * 4)],
        points + torch.tensor([-0.5, -1.0, 4.0]),
        torch.full((300, 3), 120, dtype=torch.uint8),
        focal_px=60.0,
        size_px=(64, 48),
        colour_scale=1.0,
    )


def test_the_numbers_of_an_image(run: ViewedRun) -> None:
    assert "not registered · confidence 20" in description(run, run.rounds[0], 1)
    text = description(run, run.rounds[1], 1)
    for part in ("1.png", "registered · confidence 900", "1.000, 0.000, 0.000", "60.0 px", "64 x 48"):
        assert part in text


@pytest.fixture
def viewer(run: ViewedRun) -> Iterator[RunViewer]:
    pytest.importorskip("viser")
    made = RunViewer(run, "127.0.0.1", 18_080, max_points=100)
    yield made
    made.stop()


@pytest.fixture
def browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Chromium]:
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium here")
    monkeypatch.setattr(chromium, "FLAGS", (*chromium.FLAGS, *WEBGL))
    with Chromium(program, tmp_path / "profile") as page:
        page.resize(WIDTH, HEIGHT, "light")
        yield page


def position_of(viewer: RunViewer, row: int) -> tuple[float, float]:
    """Where the middle of a camera's picture appears in the window."""
    (client,) = viewer._server.get_clients().values()
    camera = client.camera
    w, x, y, z = camera.wxyz
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
    pose = viewer.run.rounds[-1].cam_from_world[row]
    middle = (camera_centres(pose) + viewer._size * pose[2, :3]).numpy()
    seen = rotation.T @ (middle - camera.position)
    focal = 0.5 * HEIGHT / math.tan(0.5 * camera.fov)
    return WIDTH / 2 + focal * seen[0] / seen[2], HEIGHT / 2 + focal * seen[1] / seen[2]


def test_a_click_on_a_camera_shows_its_picture_and_numbers(viewer: RunViewer, browser: Chromium) -> None:
    browser.call("Page.navigate", url=f"http://127.0.0.1:{viewer.port}")
    text = "document.body?.innerText ?? ''"
    wait(lambda: "four cameras" in browser.evaluate(text))
    wait(lambda: len(viewer._server.get_clients()) == 1)
    wait(lambda: not viewer._thumbnails.is_alive())
    assert "100 of 300 points" in browser.evaluate(text)
    time.sleep(1.0)  # the first pictures of the scene
    browser.click(*position_of(viewer, 0))
    wait(lambda: viewer.selected == 0)
    wait(lambda: "confidence 600" in browser.evaluate(text))
    assert "0.png" in browser.evaluate(text)
    picture = "[...document.images].some(i => i.naturalWidth == 64 && i.offsetWidth > 50)"
    wait(lambda: browser.evaluate(picture))
    assert [said for said in browser.complaints if "exception" in said] == []


def test_rounds_and_choices(run: ViewedRun) -> None:
    pytest.importorskip("viser")
    viewer = RunViewer(run, "127.0.0.1", 18_090, max_points=1000)
    try:
        assert [frustum.visible for frustum in viewer._frusta] == [True] * 4
        viewer.select(1)
        assert "confidence 900" in viewer._numbers.content
        viewer.show_round(0)
        assert [frustum.visible for frustum in viewer._frusta] == [True, False, True, True]
        assert "not registered" in viewer._numbers.content
        viewer.select(GONE)
        assert np.array_equal(viewer._picture.image, NO_PICTURE)
        assert tuple(viewer._frusta[2].position) == (2.0, 0.0, 0.0)
        wait(lambda: not viewer._thumbnails.is_alive())
        assert [frustum.image is not None for frustum in viewer._frusta] == [True, True, True, False]
        assert len(viewer._cloud.points) == 300
    finally:
        viewer.stop()
    empty = replace(run, points=run.points[:0], colours=run.colours[:0])
    RunViewer(empty, "127.0.0.1", 18_091, max_points=10).stop()
