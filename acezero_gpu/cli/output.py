"""What goes to stdout: the result, and nothing else."""

import typer
from rich.console import Console
from rich.table import Table


def say(text: str) -> None:
    """One line."""
    typer.echo(text)


def show(table: Table) -> None:
    """A table, as wide as the terminal."""
    Console().print(table)
