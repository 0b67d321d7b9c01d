"""Arguments and options of the commands that exchange files with other programs: frames, export, import."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from acezero_gpu.cli.options import SHOWN

FRAMES = "Frames of a video"
"""Heading in the help."""

ImagesOrVideo = Annotated[
    str,
    typer.Argument(
        metavar="IMAGES", help="A folder, a quoted glob, a text file with one path per line, or a video."
    ),
]
Videos = Annotated[
    list[Path], typer.Argument(metavar="VIDEO...", help="Videos, or folders of videos, in the order of time.")
]
FramesOut = Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the frames; made if absent.")]
Fps = Annotated[
    float | None,
    typer.Option(
        "--fps",
        min=0.001,
        help="Frames to take per second of a video: the sharpest of each such interval.",
        show_default="every frame",
        rich_help_panel=FRAMES,
    ),
]
Every = Annotated[
    int | None,
    typer.Option(
        "--every",
        min=1,
        help="Frames of a video to take one of: the sharpest of so many.",
        show_default="1",
        rich_help_panel=FRAMES,
    ),
]
MinSharpness = Annotated[
    float,
    typer.Option(
        "--min-sharpness",
        min=0.0,
        help="Leave out frames of a video whose variance of the Laplacian is less (grey values 0 to 255).",
        rich_help_panel=FRAMES,
    ),
]
MaxFrames = Annotated[
    int | None,
    typer.Option(
        "--max-frames",
        min=1,
        help="At most so many frames of each video, evenly spread, the sharpest around.",
        show_default="no limit",
        rich_help_panel=FRAMES,
    ),
]
VIDEO_FRAMES = 300
"""So many frames of a video are reconstructed unless ``--max-frames`` says otherwise."""
ReconstructMaxFrames = Annotated[
    int | None,
    typer.Option(
        "--max-frames",
        min=2,
        help="At most so many frames of a video, evenly spread, the sharpest around.",
        show_default=str(VIDEO_FRAMES),
        rich_help_panel=FRAMES,
    ),
]
MinSide = Annotated[
    int,
    typer.Option(
        "--min-side",
        min=0,
        help="Reduce frames to this shortest side; 0 keeps their size.",
        rich_help_panel=FRAMES,
    ),
]
FramesOverwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace the frames of an earlier call in OUT.", rich_help_panel=SHOWN),
]

RunDir = Annotated[
    Path, typer.Argument(metavar="RUN", help="The OUT folder of a finished acezero reconstruct.")
]
ExportOut = Annotated[
    Path | None, typer.Argument(metavar="[OUT]", help="Folder for the files.", show_default="RUN/export")
]
ExportTo = Annotated[
    list[str],
    typer.Option(
        "--to",
        metavar="FORMAT",
        help="colmap, nerfstudio, ply, txt, tum or kitti; repeatable, or several with commas between.",
    ),
]
MovedImages = Annotated[
    str | None,
    typer.Option(
        "--images",
        help="Folder or glob where the images lie now, if they have been moved.",
        show_default="where the run found them",
    ),
]
ExportMinConfidence = Annotated[
    float | None,
    typer.Option(
        "--min-confidence",
        min=0.0,
        help="Export images from this confidence on; 0 takes all, also those that failed.",
        show_default="what the run calls registered",
    ),
]
Dense = Annotated[
    bool, typer.Option("--dense", help="Keep all points of the map's cloud that are not plainly wrong.")
]
OpenGl = Annotated[
    bool,
    typer.Option(
        "--opengl/--opencv",
        help="World axes in ply and txt: as they are (opencv), or with y and z turned round.",
    ),
]
CopyImages = Annotated[
    bool,
    typer.Option("--copy-images/--link-images", help="How the images of colmap and nerfstudio come there."),
]
CameraSize = Annotated[
    float | None,
    typer.Option(
        "--camera-size",
        min=0.0,
        help="Depth of the drawn camera pyramids, in units of the world.",
        show_default="a twentieth of the cameras' extent",
    ),
]
ImportFormat = Annotated[Literal["colmap"], typer.Argument(metavar="FORMAT", help="What DIR holds: colmap.")]
ImportDir = Annotated[
    Path, typer.Argument(metavar="DIR", help="Folder of the model, or one that has it in sparse/0.")
]
ImportOut = Annotated[Path, typer.Argument(metavar="OUT", help="The pose file to write.")]
FileOverwrite = Annotated[bool, typer.Option("--overwrite", help="Replace OUT if it is there.")]
