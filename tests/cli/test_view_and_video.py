"""``acezero view`` and ``acezero video``: what they need, and what they say where it is missing."""

import json
import os
import signal
import socket
import threading
import time
from pathlib import Path

import imageio.v3 as iio
import pypose as pp
import pytest
import torch
from cli_calls import Call, picture

from acezero_gpu.cli import video as video_command
from acezero_gpu.cli import view as view_command
from acezero_gpu.data import PosedViews
from acezero_gpu.io import open_run, write_points, write_pose_file
from acezero_gpu.io.run_folder import IMAGE_ROOT, IMAGE_SIZE, REGISTERED_FROM
from acezero_gpu.viz.film import FilmConfig, write_film

REGISTERED = 48.0


@pytest.fixture
def run(tmp_path: Path, photos: Path) -> Path:
    """Two rounds of three images; the third image is never registered."""
    out = tmp_path / "run"
    out.mkdir()
    names = tuple(f"photos/photo_{index}.png" for index in range(3))
    pose = pp.identity_SE3(3).tensor()
    pose[:, 0] = -torch.arange(3.0)
    for name, confidence in (("0", (90.0, 5.0, 0.0)), ("1", (90.0, 60.0, 0.0)), ("final", (90.0, 60.0, 0.0))):
        views = PosedViews(names, pose, torch.full((3,), 60.0), torch.tensor(confidence))
        write_pose_file(out / f"poses_{name}.txt", views)
    summary = {REGISTERED_FROM: REGISTERED, IMAGE_ROOT: str(tmp_path), IMAGE_SIZE: [64, 48]}
    (out / "summary.json").write_text(json.dumps(summary))
    points = torch.rand(200, 3, generator=torch.Generator().manual_seed(0)) + torch.tensor([0.0, -0.5, 3.0])
    write_points(out / "point_cloud.ply", points, torch.full((200, 3), 90, dtype=torch.uint8))
    return out


def test_what_the_viewer_shows(run: Path) -> None:
    shown = view_command.viewed_run(open_run(run, points=True))
    assert [round_.label for round_ in shown.rounds] == ["start", "final"]
    assert [round_.registered for round_ in shown.rounds] == [(True, False, False), (True, True, False)]
    assert (shown.size_px, shown.focal_px) == ((64, 48), 60.0)
    assert shown.colour_scale * REGISTERED == 480
    assert all(path is not None for path in shown.image_paths)


@pytest.mark.parametrize("command", ["view", "video"])
def test_a_run_without_points_or_images(call: Call, run: Path, command: str) -> None:
    if command == "view":
        pytest.importorskip("viser")
    lost = run.parent / "lost.txt"
    write = (run / "poses_final.txt").read_text().replace(" 90\n", " 3\n").replace(" 60\n", " 3\n")
    (run / "poses_final.txt").write_text(write)
    said = call(command, run)
    assert (said.code, "no image is registered" in said.sentence) == (1, True)
    (run / "point_cloud.ply").rename(lost)
    said = call(command, run)
    assert (said.code, "point_cloud.ply is missing" in said.sentence) == (2, True)
    said = call(command, run.parent / "nothing")
    assert (said.code, "no such folder" in said.sentence) == (2, True)


def test_without_viser_the_sentence_names_the_extra(
    call: Call, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view_command.importlib.util, "find_spec", lambda _name: None)
    said = call("view", run)
    assert said.code == 2
    assert "pip install 'acezero-gpu[view]'" in said.sentence


def test_a_port_in_use_gives_the_next(call: Call, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command serves the page until it is interrupted, and then ends with 0."""
    pytest.importorskip("viser")
    opened: list[str] = []
    monkeypatch.setattr(view_command.webbrowser, "open", opened.append)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        def interrupt() -> None:
            end = time.monotonic() + 60
            while not opened and time.monotonic() < end:
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt).start()
        said = call("view", run, "--port", port)
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    free = int(opened[0].rsplit(":", 1)[1])
    assert free > port
    assert lines[0] == f"port {port} is in use, taking {free}"
    assert lines[1].startswith(f"http://localhost:{free} shows {run}")


def test_an_address_of_another_machine(call: Call, run: Path) -> None:
    pytest.importorskip("viser")
    said = call("view", run, "--host", "192.0.2.1")
    assert (said.code, "--host 192.0.2.1" in said.sentence) == (2, True)


def short_film(path, chapters, *, title, aspect):
    config = FilmConfig(frames_per_s=4, chapter_s=0.5, sweep_s=0.5)
    assert [chapter.caption for chapter in chapters] == [
        "start: 1 of 3 images registered",
        "final: 2 of 3 images registered",
    ]
    return write_film(path, chapters, title=title, aspect=aspect, config=config)


def test_a_film_of_a_run_whose_images_are_gone(
    call: Call, run: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(video_command, "write_film", short_film)
    photos.rename(run.parent / "elsewhere")
    said = call("video", run)
    assert said.code == 0, said.err
    assert "give --images" in said.err
    assert said.out.splitlines()[-1].endswith(f"→ {run / 'reconstruction.mp4'}")
    assert iio.improps(run / "reconstruction.mp4", plugin="FFMPEG").shape[1:] == (720, 1280, 3)
    wrong = run.parent / "wrong"
    wrong.mkdir()
    picture().save(wrong / "other.png")
    said = call("video", run, "--images", wrong)
    assert (said.code, "no image of the run there" in said.sentence) == (2, True)


def test_an_encoder_that_fails_is_one_sentence(
    call: Call, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_arguments: object, **_others: object) -> int:
        raise OSError("a broken pipe\nno space left on device")

    monkeypatch.setattr(video_command, "write_film", broken)
    said = call("video", run, "--quiet")
    assert (said.code, "no space left on device" in said.sentence) == (1, True)
