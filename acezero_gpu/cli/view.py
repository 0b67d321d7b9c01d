"""``acezero view``: a reconstruction to turn and to click on, in the browser."""

import importlib.util
import signal
import socket
import threading
import webbrowser
from types import FrameType

import torch

from acezero_gpu.cli import exchange_options as exchange
from acezero_gpu.cli import options as opt
from acezero_gpu.cli.failure import RunFailedError
from acezero_gpu.cli.output import say
from acezero_gpu.cli.video import USUAL_THRESHOLD
from acezero_gpu.data import PosedViews
from acezero_gpu.io import FinishedRun, open_run, read_points
from acezero_gpu.io.run_folder import IMAGE_SIZE
from acezero_gpu.runtime import InputError
from acezero_gpu.viz.viewer import RunViewer, ViewedRound, ViewedRun

PORT, PORTS_TRIED = 8080, 100


def view(
    run: exchange.RunDir,
    images: exchange.MovedImages = None,
    host: opt.Host = "127.0.0.1",
    port: opt.Port = PORT,
    max_points: opt.MaxPoints = 1_000_000,
    no_browser: opt.NoBrowser = False,
) -> None:
    """A finished reconstruction in the browser: cameras and points, round by round. Ctrl-C ends it."""
    if importlib.util.find_spec("viser") is None:
        raise InputError("acezero view needs viser; install it with: pip install 'acezero-gpu[view]'")
    found = open_run(run, images=images, points=True)
    shown = viewed_run(found)
    if not any(shown.rounds[-1].registered):
        raise RunFailedError(f"{run}: no image is registered, so there is nothing to show.")
    if found.missing_images:
        say(
            f"{found.missing_images} of {len(shown.names)} images are not where the run found them, so they have no "
            "picture; say with --images where they are now."
        )
    free = free_port(host, port)
    if free != port:
        say(f"port {port} is in use, taking {free}")
    over = threading.Event()

    def end(_signal: int, _frame: FrameType | None) -> None:
        over.set()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        viewer = RunViewer(shown, host, free, max_points)
        address = f"http://{'localhost' if host in ('127.0.0.1', '0.0.0.0') else host}:{viewer.port}"
        say(f"{address} shows {run}; Ctrl-C ends it")
        if not no_browser:
            webbrowser.open(address)
        over.wait()
        viewer.stop()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def viewed_run(run: FinishedRun) -> ViewedRun:
    """What the page shows of a run."""
    assert run.point_cloud is not None, "open_run was told to demand it"
    points, colours = read_points(run.point_cloud)
    rounds = [
        _round("start" if round_.index == 0 else f"round {round_.index}", round_.views(), run.min_confidence)
        for round_ in run.rounds[:-1]
    ]
    rounds.append(_round("final", run.views, run.min_confidence))
    focal_px = float(run.views.focal_px[0])
    # Runs of earlier versions do not say it: their cameras are drawn in a usual shape.
    width, height = run.summary.get(IMAGE_SIZE, (focal_px, 0.75 * focal_px))
    return ViewedRun(
        run.path.resolve().name,
        run.views.names,
        run.image_paths,
        rounds,
        points,
        colours,
        focal_px,
        (int(width), int(height)),
        USUAL_THRESHOLD / run.min_confidence,
    )


def free_port(host: str, first: int) -> int:
    """The first port from ``first`` on that nobody listens at; ``InputError`` if there is none, or no such host."""
    for port in range(first, min(first + PORTS_TRIED, 65536)):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
            except PermissionError:
                continue
            except socket.gaierror as error:
                raise InputError(f"--host {host}: no such address ({error.strerror}).") from error
            except OSError as error:
                if port == first and error.errno not in (98, 48, 10048):  # in use: Linux, macOS, Windows
                    raise InputError(f"--host {host}: cannot listen there ({error.strerror}).") from error
                continue
            return port
    raise InputError(
        f"--port {first}: it and the {PORTS_TRIED - 1} after it are all taken; give another one."
    )


def _round(label: str, views: PosedViews, min_confidence: float) -> ViewedRound:
    registered = tuple(views.registered(min_confidence).tolist())
    return ViewedRound(label, torch.as_tensor(views.matrices), views.confidence, registered)
