"""Each option of the benchmarks, declared once; those that the program itself has are in its own."""

from pathlib import Path
from typing import Annotated

import typer

Data = Annotated[Path, typer.Option("--data", help="Folder of the image sets.")]
Sets = Annotated[str, typer.Option("--sets", help="Names of sets, with commas between.")]
Systems = Annotated[
    str,
    typer.Option("--systems", help="ours, ours[KEY=VALUE;...] for other settings, pycolmap; commas between."),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", help="Result file; the table lies beside it as .md.", show_default="in benchmarks/results"
    ),
]
SetName = Annotated[str, typer.Option("--set-name", help="A set with mapping.txt and query.txt.")]
Repeat = Annotated[int, typer.Option("--repeat", min=1, help="Runs of each, with seeds that count up.")]
Keep = Annotated[Path | None, typer.Option("--keep", help="Folder for the files of all runs.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads of every system.")]
Commit = Annotated[str | None, typer.Option("--commit", help="For copies that are no git checkout.")]
SelfSupervised = Annotated[
    str | None,
    typer.Option(
        "--self-supervised",
        metavar="RUN|none",
        help="Also with a map from pictures alone: that of a run folder of acezero reconstruct on the "
        "mapping images, or of a new run (none).",
    ),
]

OptionalData = Annotated[Path | None, typer.Option("--data", help="Folder of the image sets.")]
MapFile = Annotated[
    Path | None, typer.Option("--map", help="Map of the set, from its true poses: acezero map.")
]
Solvers = Annotated[
    str, typer.Option("--solvers", help="all, or names with semicolons between.", show_default="all")
]
Parts = Annotated[str, typer.Option("--parts", help="Of cases, p3p, batching, throughput, memory.")]
Frames = Annotated[int, typer.Option("--frames", min=1, help="Frames of each synthetic case.")]
MapSteps = Annotated[int, typer.Option("--map-steps", min=20, help="Steps of the map to start from.")]
Steps = Annotated[int, typer.Option("--steps", min=20, help="Training steps.")]
MostImages = Annotated[
    int, typer.Option("--images", min=3, help="Images of a larger set, evenly spread, that are taken.")
]
ImageCounts = Annotated[str, typer.Option("--images", help="Numbers of images, with commas between.")]
Starts = Annotated[str, typer.Option("--starts", help="all, independent or drift.", show_default="all")]
Variants = Annotated[
    str, typer.Option("--variants", help="all, or names with semicolons between.", show_default="all")
]
Encoders = Annotated[
    str, typer.Option("--encoders", help="acezero, dense-sift, or weights files; commas between.")
]
Angles = Annotated[
    tuple[float, float], typer.Option("--angles-deg", help="Least and most between viewing directions.")
]
FramePairs = Annotated[int, typer.Option("--pairs", min=1, help="Pairs of frames.")]
GrowthSeeds = Annotated[
    int,
    typer.Option("--growth-seeds", min=0, help="Frames that a map is grown from; 0 leaves that part out."),
]
