"""``python -m benchmarks COMMAND``."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from acezero_gpu.cli.failure import sentence_and_code
from benchmarks import image_commands, part_commands
from benchmarks.plan import TABLES
from benchmarks.records import read_record

app = typer.Typer(
    name="benchmarks",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help=__doc__,
)
app.command()(image_commands.reconstruction)
app.command()(image_commands.pipeline)
app.command()(image_commands.demo)
app.command()(image_commands.relocalisation)
app.command()(image_commands.pose_refinement)
app.command()(part_commands.solver)
app.command()(part_commands.adjustment)
app.command()(part_commands.encoder)
app.command()(part_commands.throughput)


@app.command()
def table(files: Annotated[list[Path], typer.Argument(metavar="FILE.json…")]) -> None:
    """Print the tables of result files."""
    for path in files:
        content = read_record(path)
        print(TABLES[content["kind"]](content))


def main(arguments: list[str] | None = None) -> int:
    """Run one command: 0 for success, 1 if a run has no result, 2 for wrong input."""
    try:
        code = app(args=arguments, standalone_mode=False)
    except Exception as error:
        told = sentence_and_code(error)
        if told is None:
            raise
        sentence, code = told
        if sentence:
            sys.stderr.write(f"benchmarks: {sentence}\n")
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    sys.exit(main())
