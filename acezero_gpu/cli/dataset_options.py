"""Arguments and options of the commands for published data sets and experiments."""

from pathlib import Path
from typing import Annotated, Literal

import typer

DatasetName = Annotated[
    Literal["7scenes", "12scenes", "mip360", "tanks-and-temples", "cambridge"],
    typer.Argument(metavar="NAME", help="7scenes, 12scenes, mip360, tanks-and-temples or cambridge."),
]
DatasetFolder = Annotated[
    Path, typer.Argument(metavar="DIR", help="Folder of its archives; scenes are written beside them.")
]
DatasetDownload = Annotated[
    bool, typer.Option("--download", help="Fetch archives that are not there; an interrupted one goes on.")
]
DatasetArchive = Annotated[
    list[str] | None,
    typer.Option("--archive", help="One of its archives; repeatable.", metavar="FILE", show_default="all"),
]

ExperimentFile = Annotated[Path, typer.Argument(metavar="FILE", help="An experiment: experiments/*.toml.")]
ExperimentData = Annotated[
    Path, typer.Option("--data", help="Folder of the scenes, as acezero dataset writes them.", metavar="DIR")
]
ExperimentOut = Annotated[
    Path, typer.Option("--out", help="Folder for runs, results.json and results.md.", metavar="DIR")
]
ExperimentScene = Annotated[
    list[str] | None,
    typer.Option(
        "--scene", help="One of the experiment's scenes; repeatable.", metavar="NAME", show_default="all"
    ),
]
ExperimentOverwrite = Annotated[
    bool, typer.Option("--overwrite", help="Run scenes again that have a result.")
]
