"""Arguments and options of the view synthesis benchmark."""

from pathlib import Path
from typing import Annotated, Literal

import typer

NvsMethod = Literal["nerfacto", "splatfacto"]

NvsOut = Annotated[
    Path | None,
    typer.Argument(metavar="[OUT]", help="Folder for data, logs and nvs.json.", show_default="RUN/nvs"),
]
NvsMethodChoice = Annotated[
    NvsMethod, typer.Option("--method", help="The method of Nerfstudio that is trained.")
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
NvsFolders = Annotated[
    list[Path], typer.Argument(metavar="DIR...", help="Folders with results anywhere below them.")
]
