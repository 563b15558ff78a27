"""The application and what its commands share: options, exit codes, printing."""

import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.grid.read import bundled_grids

DONE, SOME_FAILED, INTERRUPTED = 0, 1, 130

app = typer.Typer(
    name="sigma-bench",
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

GridName = Annotated[
    str,
    typer.Argument(
        metavar="GRID",
        help="A bundled grid's name, or a path.",
        autocompletion=lambda: list(bundled_grids()),
    ),
]
Results = Annotated[Path, typer.Option("--results", help="Folder of records.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:INDEX.")]
Engine = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="NAME[:ADDRESS]",
        help="What starts the workers: local, ray, slurm, or a package's own.",
    ),
]
Set = Annotated[
    list[str], typer.Option("--set", metavar="KEY.PATH=VALUE", help="Change a key of the grid.")
]
Only = Annotated[
    list[str],
    typer.Option("--only", metavar="KEY=VALUE", help="Keep dataset=, model=, decoder=, seed=."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback(invoke_without_command=True, epilog="Example: sigma-bench run quick")
def sigma_bench(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Which decoder should a VAE use, and does anybody still need to tune β?"""
    if version:
        print(f"sigma-vae-bench {metadata.version('sigma-vae-bench')}")
    elif context.invoked_subcommand is None:
        print(context.get_help())


def fail(message: str, code: int) -> NoReturn:
    """End with one line on standard error."""
    warn(message)
    sys.exit(code)


def warn(message: str) -> None:
    """One line on standard error."""
    print(f"sigma-bench: {' '.join(message.split())}", file=sys.stderr)


MANY = 1000
"""Rows above which a table is only aligned, as rich takes a minute for a hundred thousand."""


def print_columns(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a plain table; long cells fold where there are at most `MANY` rows."""
    if len(rows) > MANY:
        widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
        for row in (heads, *rows):
            print("  ".join(map(str.ljust, row, widths)).rstrip())
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    with console.capture() as printed:
        console.print(table)
    print(printed.get(), end="")
