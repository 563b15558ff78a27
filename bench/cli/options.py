"""The application and what its commands share: options, exit codes, printing."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

app = typer.Typer(
    name="sigma-bench",
    help="Which decoder should a VAE use, and does anybody still need to tune β?",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

DONE, SOME_FAILED, WRONG_REQUEST, INTERRUPTED = 0, 1, 2, 130
GridName = Annotated[str, typer.Argument(metavar="GRID", help="A bundled grid's name, or a path.")]
Results = Annotated[Path, typer.Option("--results", help="Folder of records.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:INDEX.")]

Set = Annotated[
    list[str], typer.Option("--set", metavar="KEY.PATH=VALUE", help="Change a key of the grid.")
]

Only = Annotated[
    list[str],
    typer.Option("--only", metavar="KEY=VALUE", help="Keep dataset=, model=, decoder=, seed=."),
]

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def fail(message: str, code: int) -> NoReturn:
    print(f"sigma-bench: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


def print_columns(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for head in heads:
        table.add_column(head, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    Console(width=None if sys.stdout.isatty() else 160, highlight=False).print(table)
