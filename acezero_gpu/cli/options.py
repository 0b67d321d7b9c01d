"""Each argument and option of the command line, declared once."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from acezero_gpu.mapping.pose_refinement import RefinementName

RUN, PICTURES, SHOWN = "Run", "Camera and poses", "Output"
"""Headings in the help."""

PresetChoice = Literal["auto", "fast", "default", "quality"]
RefineJoint = Literal["off", "final", "every"]
BufferDevice = Literal["same", "cpu"]

Images = Annotated[
    str,
    typer.Argument(metavar="IMAGES", help="A folder, a quoted glob, or a text file with one path per line."),
]
Out = Annotated[Path, typer.Argument(metavar="OUT", help="Folder for the results; made if absent.")]
MapFile = Annotated[
    Path,
    typer.Argument(metavar="MAP", help="A map*.safetensors of an earlier run, or its folder: the last map."),
]
Estimate = Annotated[str, typer.Argument(metavar="POSES", help="The pose file to judge.")]
Truth = Annotated[
    str,
    typer.Argument(metavar="TRUTH", help="Folder or glob of 4x4 camera-to-world matrices, or a pose file."),
]
DemoOut = Annotated[Path, typer.Argument(metavar="[OUT]", help="Folder for pictures and results.")]

FocalPx = Annotated[
    float | None,
    typer.Option(
        "--focal-px",
        min=1.0,
        help="Focal length in pixels of the image files.",
        show_default="that of the pose file or map, else 0.7 of the diagonal",
        rich_help_panel=PICTURES,
    ),
]
RegisterFocalPx = Annotated[
    float | None,
    typer.Option(
        "--focal-px",
        min=1.0,
        help="Focal length in pixels of the image files.",
        show_default="that of the map, scaled to these images",
        rich_help_panel=PICTURES,
    ),
]
TruthFocalPx = Annotated[
    float | None,
    typer.Option(
        "--truth-focal-px", min=1.0, help="True focal length, where the true poses do not bring it."
    ),
]
FixFocal = Annotated[
    bool,
    typer.Option("--fix-focal", help="Keep the focal length as given.", rich_help_panel=PICTURES),
]
Depth = Annotated[
    str | None,
    typer.Option(
        "--depth",
        help="Folder or glob of depth maps to start from (16-bit millimetres, or .npy in metres).",
        rich_help_panel=PICTURES,
    ),
]
Poses = Annotated[
    str,
    typer.Option(
        "--poses",
        help="Known poses: folder or glob of 4x4 camera-to-world matrices, or a pose file.",
        rich_help_panel=PICTURES,
    ),
]
StartPoses = Annotated[
    str | None,
    typer.Option(
        "--poses",
        help="Known poses of some images, to start from: folder or glob of 4x4 camera-to-world matrices, or a "
        "pose file.",
        rich_help_panel=PICTURES,
    ),
]
FixPoses = Annotated[
    bool,
    typer.Option(
        "--fix-poses",
        help="Keep the known poses exactly as given; otherwise they are refined.",
        rich_help_panel=PICTURES,
    ),
]
SeedMap = Annotated[
    Path | None,
    typer.Option(
        "--seed-map",
        help="Start from what this map registers: a map*.safetensors of an earlier run, or its folder.",
        metavar="MAP",
        rich_help_panel=PICTURES,
    ),
]
AllowMissing = Annotated[
    bool,
    typer.Option("--allow-missing", help="Leave out images that have no pose.", rich_help_panel=PICTURES),
]
PoseRefinementName = Annotated[
    RefinementName | None,
    typer.Option(
        "--pose-refinement",
        help="How the given poses may move while the map is trained.",
        show_default="none",
        rich_help_panel=PICTURES,
    ),
]
PoseRefinementWait = Annotated[
    int | None,
    typer.Option(
        "--pose-refinement-wait",
        min=0,
        help="Steps before the poses may move.",
        show_default="0",
        rich_help_panel=PICTURES,
    ),
]
MapRefineJoint = Annotated[
    RefineJoint | None,
    typer.Option(
        "--refine-joint",
        help="Whether poses, points and focal length are adjusted together before the map is trained (final, every).",
        show_default="off",
        rich_help_panel=PICTURES,
    ),
]
Heads = Annotated[
    int | None,
    typer.Option(
        "--heads",
        min=1,
        help="Heads of the map, each for a part of a scene that is too large for one; 16 images each at least.",
        show_default="fast: up to 16 narrow ones, else 1",
        rich_help_panel=PICTURES,
    ),
]
RefineJointWhen = Annotated[
    RefineJoint | None,
    typer.Option(
        "--refine-joint",
        help="When poses, points and focal length are adjusted together.",
        show_default="by the preset",
        rich_help_panel=PICTURES,
    ),
]

Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda (cuda:1 …).", rich_help_panel=RUN)]
Preset = Annotated[
    PresetChoice,
    typer.Option("--preset", help="auto takes default on a GPU, fast on a CPU.", rich_help_panel=RUN),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", help="TOML settings over those of the preset.", metavar="FILE.toml", rich_help_panel=RUN
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="SECTION.KEY=VALUE",
        help="One setting over everything else; repeatable.",
        rich_help_panel=RUN,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed", help="The same seed gives the same result.", show_default="1305", rich_help_panel=RUN
    ),
]
EncoderChoice = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        help="acezero (learned, in this package), dense-sift, or a file: weights of train-encoder, or of ACE.",
        show_default="dense-sift",
        rich_help_panel=RUN,
    ),
]
BufferDeviceChoice = Annotated[
    BufferDevice | None,
    typer.Option(
        "--buffer-device",
        help="Where training patches are kept; cpu saves GPU memory.",
        show_default="same",
        rich_help_panel=RUN,
    ),
]
MemoryBudget = Annotated[
    str | None,
    typer.Option(
        "--memory-budget",
        metavar="SIZE",
        help="What features, training patches and working memory may take together on the device, as 6GB or 512MiB.",
        show_default="no bound on all together",
        rich_help_panel=RUN,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace earlier results in OUT.", rich_help_panel=SHOWN),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Show warnings and the last line only.", rich_help_panel=SHOWN),
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Show every line of log.txt.", rich_help_panel=SHOWN)
]
Video = Annotated[
    bool,
    typer.Option(
        "--video", help="Also write reconstruction.mp4, a film of how it grew.", rich_help_panel=SHOWN
    ),
]
LogJson = Annotated[
    Path | None,
    typer.Option(
        "--log-json",
        metavar="FILE",
        help="Write what happens as one JSON object per line, while it happens.",
        rich_help_panel=SHOWN,
    ),
]
Host = Annotated[
    str, typer.Option("--host", help="Address to listen at; 0.0.0.0 lets other machines look too.")
]
Port = Annotated[
    int, typer.Option("--port", min=1, max=65535, help="Port to listen at; the next free one if it is taken.")
]
MaxPoints = Annotated[
    int, typer.Option("--max-points", min=1, help="Show at most so many points, chosen at random.")
]
NoBrowser = Annotated[bool, typer.Option("--no-browser", help="Only print the address.")]

ReportFile = Annotated[
    Path | None,
    typer.Option("--out", metavar="FILE", help="The page to write.", show_default="RUN/report.html"),
]
NoReport = Annotated[
    bool,
    typer.Option("--no-report", help="Leave out report.html.", rich_help_panel=SHOWN),
]

NoAlign = Annotated[
    bool, typer.Option("--no-align", help="Compare as they stand: both are in the same world already.")
]
AlignOn = Annotated[
    Path | None,
    typer.Option(
        "--align-on",
        help="Fit the alignment to this pose file of the same world, as that of the mapping images, and not to POSES.",
        metavar="POSES",
    ),
]
NoScale = Annotated[bool, typer.Option("--no-scale", help="Align by rotation and translation alone.")]
Threshold = Annotated[
    list[str] | None,
    typer.Option(
        "--threshold",
        metavar="DISTANCE/DEGREES",
        help="Share of images below both is reported; repeatable. 0.05/5 and 5cm/5deg take the truth to be "
        "in metres, 2%/5 is a share of its extent.",
        show_default="2%/5",
    ),
]
MinConfidence = Annotated[
    float | None,
    typer.Option(
        "--min-confidence",
        min=0.0,
        help="An image with less confidence counts as failed.",
        show_default="what summary.json beside POSES calls registered, else 1",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print all figures as JSON, and nothing else.")]

TrainingPictures = Annotated[
    list[Path], typer.Option("--pictures", help="Folder of photographs; repeatable.", metavar="FOLDER")
]
TrainingSteps = Annotated[
    int | None, typer.Option("--steps", min=1, help="Steps of the whole training.", show_default="12000")
]
TrainingStart = Annotated[
    Path | None,
    typer.Option("--start-from", help="Weights to go on from with other settings.", metavar="FILE"),
]
TrainingOverwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Start anew, also where OUT has a checkpoint to go on from."),
]
