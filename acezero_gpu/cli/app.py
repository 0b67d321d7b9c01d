"""The commands, and how their failures reach the person at the keyboard."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from acezero_gpu.cli.benchmark import benchmark
from acezero_gpu.cli.dataset import dataset
from acezero_gpu.cli.demo import demo
from acezero_gpu.cli.evaluate import evaluate
from acezero_gpu.cli.experiment import experiment
from acezero_gpu.cli.export import export
from acezero_gpu.cli.failure import sentence_and_code
from acezero_gpu.cli.frames import frames
from acezero_gpu.cli.import_poses import import_poses
from acezero_gpu.cli.map import map_
from acezero_gpu.cli.output import say
from acezero_gpu.cli.ranks import refuse_ranks, speaks
from acezero_gpu.cli.reconstruct import reconstruct
from acezero_gpu.cli.register import register
from acezero_gpu.cli.report import report
from acezero_gpu.cli.train_encoder import train_encoder
from acezero_gpu.cli.versions import package_version
from acezero_gpu.cli.video import video
from acezero_gpu.cli.view import view

app = typer.Typer(
    name="acezero",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Camera poses, focal length and a map from photographs of one place.",
)
app.command("reconstruct")(reconstruct)
app.command("map")(map_)
app.command("register")(register)
app.command("evaluate")(evaluate)
app.command("report")(report)
app.command("frames")(frames)
app.command("export")(export)
app.command("import")(import_poses)
app.command("dataset")(dataset)
app.add_typer(experiment, name="experiment")
app.add_typer(benchmark, name="benchmark")
app.command("demo")(demo)
app.command("video")(video)
app.command("view")(view)
app.command("train-encoder")(train_encoder)


def _print_version(wanted: bool) -> bool:
    if wanted:
        say(f"acezero {package_version()}")
        raise typer.Exit
    return wanted


@app.callback()
def _about(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0 for success, 1 for a failed run, 2 for wrong input, 130 when interrupted.

    What the user can put right is one sentence on stderr; anything else is a defect and keeps its traceback.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        refuse_ranks(given[0] if given else "")
        code = app(args=given, standalone_mode=False)
    except Exception as error:
        told = sentence_and_code(error)
        if told is None:
            raise
        sentence, code = told
        if sentence and (code == 1 or speaks()):
            sys.stderr.write(f"acezero: {sentence}\n")
    return code if isinstance(code, int) else 0
