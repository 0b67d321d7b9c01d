"""A page in the browser: the cameras and points of a reconstruction, round by round, to turn and to click on.

Stands on viser, which is an optional extra; this module can be imported without it.
"""

import math
import threading
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from acezero_gpu.data.camera_frusta import confidence_colours
from acezero_gpu.geometry import camera_centres, invert, se3_from_matrix
from acezero_gpu.viz.framing import frustum_size, middle_and_radius, up_and_ahead

THUMBNAIL_PX, PICTURE_PX = 96, 640
"""Longest side of the pictures in the scene, and of the one beside it."""
NO_PICTURE = np.full((48, 64, 3), 225, np.uint8)
EYE_DISTANCE = 2.2
"""Of the first view from the middle, in radii of the scene."""


@dataclass(frozen=True, slots=True)
class ViewedRound:
    """Poses of all images after one round."""

    label: str
    cam_from_world: Float[Tensor, "n 3 4"]
    confidence: Float[Tensor, " n"]
    """As in the pose file."""
    registered: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class ViewedRun:
    """All that the page shows."""

    title: str
    names: tuple[str, ...]
    image_paths: tuple[Path | None, ...]
    """None where the file is gone: the camera has no picture then."""
    rounds: Sequence[ViewedRound]
    """At least one."""
    points: Float[Tensor, "p 3"]
    colours: UInt8[Tensor, "p 3"]
    focal_px: float
    """In pixels of the image files."""
    size_px: tuple[int, int]
    """Width and height of the image files."""
    colour_scale: float
    """Factor that brings a confidence to the scale of ``confidence_colours``."""


class RunViewer:
    """Serves the page until it is stopped."""

    def __init__(self, run: ViewedRun, host: str, port: int, max_points: int) -> None:
        import viser  # an optional extra

        self.run = run
        self.selected: int | None = None
        with redirect_stdout(None):  # it announces itself, also when told to be quiet
            self._server: Any = viser.ViserServer(host=host, port=port, verbose=False)
        self._over = threading.Event()
        last = run.rounds[-1]
        poses = last.cam_from_world[torch.tensor(last.registered)].float()
        points = run.points[run.points.isfinite().all(-1)]
        self._middle, self._radius = middle_and_radius(points, camera_centres(poses))
        self._up, self._ahead = up_and_ahead(points - self._middle, poses)
        self._size = frustum_size(poses, self._radius)
        self._server.gui.configure_theme(show_share_button=False, control_width="large")
        self._server.scene.set_up_direction(tuple(self._up.tolist()))
        self._server.on_client_connect(self._welcome)
        self._add_points(max_points)
        self._frusta = [self._add_camera(row) for row in range(len(run.names))]
        self._add_controls()
        self.show_round(len(run.rounds) - 1)
        self._thumbnails = threading.Thread(target=self._load_thumbnails, daemon=True)
        self._thumbnails.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.get_port())

    def stop(self) -> None:
        """The page is gone after this."""
        self._over.set()
        self._thumbnails.join()
        with redirect_stdout(None):
            self._server.stop()

    def show_round(self, index: int) -> None:
        """Cameras as they stood after this round."""
        shown = self.run.rounds[index]
        placed = _places(shown.cam_from_world)
        colours = confidence_colours(shown.confidence * self.run.colour_scale).tolist()
        with self._server.atomic():
            for row, frustum in enumerate(self._frusta):
                frustum.visible = shown.registered[row]
                if shown.registered[row]:
                    frustum.wxyz, frustum.position = placed[row]
                    frustum.color = tuple(colours[row])
        self._round = index
        if self.selected is not None:
            self.select(self.selected)

    def select(self, row: int) -> None:
        """Show the picture and the numbers of one image."""
        self.selected = row
        path = self.run.image_paths[row]
        self._picture.image = NO_PICTURE if path is None else _decoded(path, PICTURE_PX)
        self._numbers.content = description(self.run, self.run.rounds[self._round], row)
        self._choice.value = self.run.names[row]

    def _welcome(self, client: Any) -> None:
        """A new page looks at the scene from behind the cameras and above them."""
        eye = self._middle + EYE_DISTANCE * self._radius * (0.5 * self._up - 0.85 * self._ahead)
        client.camera.up_direction = tuple(self._up.tolist())
        client.camera.position = tuple(eye.tolist())
        client.camera.look_at = tuple(self._middle.tolist())

    def _add_points(self, most: int) -> None:
        points, colours = self.run.points, self.run.colours
        keep = points.isfinite().all(-1)
        points, colours = points[keep], colours[keep]
        self._points_note = f"{len(points):,} points"
        if len(points) > most:
            some = torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:most]
            self._points_note = f"{most:,} of {len(points):,} points (--max-points)"
            points, colours = points[some], colours[some]
        if len(points):
            self._cloud = self._server.scene.add_point_cloud(
                "/points", points.numpy(), colours.numpy(), point_size=0.004 * self._radius
            )

    def _add_camera(self, row: int) -> Any:
        width, height = self.run.size_px
        frustum = self._server.scene.add_camera_frustum(
            f"/cameras/{row}",
            fov=2 * math.atan(0.5 * height / self.run.focal_px),
            aspect=width / height,
            thickness=2.0,
            thickness_units="screen",
            visible=False,
        )
        # Its scale is no length: the picture is to stand at the depth that frusta have elsewhere.
        frustum.scale = self._size / frustum.compute_canonical_frustum_size()[2]
        frustum.on_click(lambda _event: self.select(row))
        return frustum

    def _add_controls(self) -> None:
        gui, run = self._server.gui, self.run
        self._round = len(run.rounds) - 1
        gui.add_markdown(f"**{run.title}** · {self._points_note}")
        steps = gui.add_slider("Round", 0, max(1, len(run.rounds) - 1), 1, self._round)
        steps.disabled = len(run.rounds) == 1
        label = gui.add_markdown(_round_words(run.rounds[-1]))

        def moved(_event: Any) -> None:
            self.show_round(int(steps.value))
            label.content = _round_words(run.rounds[self._round])

        steps.on_update(moved)
        gui.add_markdown(_legend())
        missing = sum(path is None for path in run.image_paths)
        if missing:
            gui.add_markdown(
                f"{missing} of {len(run.names)} image files are not where they were; give `--images`."
            )
        self._choice = gui.add_dropdown("Image", run.names)
        self._choice.on_update(self._on_choice)
        self._numbers = gui.add_markdown("Click on a camera, or choose an image.")
        self._picture = gui.add_image(NO_PICTURE, format="jpeg")

    def _on_choice(self, _event: Any) -> None:
        row = self.run.names.index(self._choice.value)
        if row != self.selected:
            self.select(row)

    def _load_thumbnails(self) -> None:
        """Pictures appear in the cameras one after another; the page does not wait for them."""
        for row, path in enumerate(self.run.image_paths):
            if self._over.is_set():
                return
            if path is not None and any(shown.registered[row] for shown in self.run.rounds):
                self._frusta[row].image = _decoded(path, THUMBNAIL_PX)


def description(run: ViewedRun, shown: ViewedRound, row: int) -> str:
    """The numbers of one image after one round, as Markdown."""
    lines = [f"**{run.names[row]}**"]
    if not shown.registered[row]:
        lines.append(f"not registered · confidence {shown.confidence[row]:.0f}")
        return "  \n".join(lines)
    x, y, z = camera_centres(shown.cam_from_world[row]).tolist()
    lines.append(f"registered · confidence {shown.confidence[row]:.0f}")
    lines.append(f"position {x:.3f}, {y:.3f}, {z:.3f} (units of the reconstruction)")
    lines.append(f"focal length {run.focal_px:.1f} px · {run.size_px[0]} x {run.size_px[1]} px")
    return "  \n".join(lines)


def _round_words(shown: ViewedRound) -> str:
    return f"{shown.label}: {sum(shown.registered)} of {len(shown.registered)} images registered"


def _legend() -> str:
    """The colours of the cameras in words and blocks of colour."""
    scale = confidence_colours(torch.linspace(480, 2000, 5)).tolist()
    blocks = "".join(f'<span style="color:rgb({r},{g},{b})">■</span>' for r, g, b in scale)
    return f"confidence: just registered {blocks} four times that and more"


def _places(
    cam_from_world: Float[Tensor, "n 3 4"],
) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
    """Orientation ``w x y z`` and position of each camera in the world."""
    world_from_cam = se3_from_matrix(invert(cam_from_world.double())).tensor()
    return [(tuple(row[[6, 3, 4, 5]].tolist()), tuple(row[:3].tolist())) for row in world_from_cam]


def _decoded(path: Path, longest_px: int) -> UInt8[np.ndarray, "h w 3"]:
    """Upright, at most so large; grey if the file cannot be read."""
    try:
        with Image.open(path) as image:
            image.draft("RGB", (longest_px, longest_px))
            picture = ImageOps.exif_transpose(image).convert("RGB")
            picture.thumbnail((longest_px, longest_px))
            return np.asarray(picture)
    except Exception:  # Pillow's plugins raise almost any type for damaged data
        return NO_PICTURE
