"""The table for a terminal: plain text that fits its width."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Grid

from bench.catalogue import METRICS
from bench.metrics import find
from bench.report.layout import Cell, Layout, default_columns, header, layout, title
from bench.report.tables import Table

GAP, FOLD = 3, 36
"""Characters between a terminal's columns, and of a name before it folds."""
EXPENDABLE = (
    "published_fid",
    "tuning_seconds",
    "tuning_runs",
    "runs",
    *(m for m in reversed(METRICS) if m.expendable),
    "seconds",
)
"""What a narrow terminal leaves out, first to last: columns, and lines of the catalogue.

The model is no such column: where it is one, rows differ in it.
"""


def console(table: Table, width: int = 160) -> str:
    """The table with footnotes and caption for a terminal of `width` columns, plain text.

    The best numbers have a star. Where not all columns fit, the least important ones are left out
    and named below.
    """
    shown, left_out = _fitting(table, width)
    widths = _widths(shown)
    grid = Grid(title=title(table), title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    for is_text, head, needed in zip(shown.text_columns, shown.headers, widths, strict=True):
        # Headings break at spaces and long names fold; a number stays whole.
        if is_text:
            grid.add_column(escape(str(head)), overflow="fold", max_width=needed)
        else:
            heading = "\n".join(textwrap.wrap(str(head), needed))
            grid.add_column(escape(heading), justify="right", no_wrap=True)
    for line in shown.lines:
        grid.add_row(*(escape(_text(cell)) for cell in line))
    # What cannot be left out is printed, however narrow the terminal.
    width = max(width, _total(widths))
    written = io.StringIO()
    output = Console(file=written, width=width, color_system=None, highlight=False)
    output.print(grid)
    below = [f"[{note.mark}] {note.text}" for note in shown.footnotes]
    if left_out:
        below.append(f"In the report, not here: {'; '.join(left_out)}.")
    for text in ["", *below, "", " ".join(table.caption)]:
        output.print(text, markup=False)
    return "\n".join(line.rstrip() for line in written.getvalue().splitlines())


def _text(cell: Cell) -> str:
    return f"{cell} *" if cell.best else str(cell)


def _fitting(table: Table, width: int) -> tuple[Layout, list[str]]:
    columns = list(default_columns(table))
    left_out: list[str] = []
    shown = layout(table, columns)
    for least in EXPENDABLE:
        for column in [c for c in columns if least in (c, find(c)) and c not in table.columns]:
            if _total(_widths(shown)) <= width:
                return shown, left_out
            columns.remove(column)
            left_out.append(header(column, table))
            shown = layout(table, columns)
    return shown, left_out


def _widths(shown: Layout) -> list[int]:
    return [
        min(longest, FOLD) if is_text else longest
        for is_text, heading, *cells in zip(
            shown.text_columns, shown.headers, *shown.lines, strict=True
        )
        for longest in [max(map(cell_len, [*str(heading).split(), *map(_text, cells)]))]
    ]


def _total(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * len(widths)
