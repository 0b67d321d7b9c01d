"""Arguments and options of the view synthesis benchmark."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from acezero_gpu.splatting import SplatConfig

NvsMethod = Literal["nerfacto", "splatfacto", "gsplat"]

NvsOut = Annotated[
    Path | None,
    typer.Argument(metavar="[OUT]", help="Folder for data, logs and nvs.json.", show_default="RUN/nvs"),
]
NvsMethodChoice = Annotated[
    NvsMethod,
    typer.Option("--method", help="What is trained: a method of Nerfstudio, or splats on gsplat alone."),
]
NvsSplit = Annotated[
    Path | None,
    typer.Option(
        "--split",
        metavar="FILE.json",
        help="Which images train and test: the lists train_filenames and test_filenames.",
        show_default="every eighth image is a test image",
    ),
]
ConvertOnly = Annotated[
    bool, typer.Option("--convert-only", help="Write the data for Nerfstudio, and train nothing.")
]
NvsSteps = Annotated[
    int | None,
    typer.Option(
        "--steps",
        min=1,
        help="Training steps of --method gsplat.",
        show_default=str(SplatConfig().steps),
    ),
]
NvsFolders = Annotated[
    list[Path], typer.Argument(metavar="DIR...", help="Folders with results anywhere below them.")
]
