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


def show_plain(table: Table) -> None:
    """A table on a terminal; bare columns, however wide, where a file or a program reads them."""
    console = Console()
    if not console.is_terminal:
        table.box = None
        console = Console(width=console.measure(table, options=console.options.update(width=10_000)).maximum)
    console.print(table)
