"""What a reader sees of a table, all of it text: headings, cells and footnotes for every format."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.metrics import better, heading, is_shown
from bench.records.frame import Line, missing
from bench.records.labels import JOINT
from bench.report.tables import TEXT_COLUMNS, Note, Table, published_metrics
from bench.text import duration

ARROWS = {"lower": " ↓", "higher": " ↑", None: ""}
TINY = 1e-4
"""Below it a number is written with an exponent."""
DIGITS = 4
"""Significant digits of a number without an interval; with one, its second digit is the last."""
SIDE_BY_SIDE = 8
"""Data sets (times models) that a table has room for across."""


@dataclass(frozen=True)
class Cell:
    """A cell's text, the marks of its footnotes, whether it is best, and what it sorts by."""

    text: str
    marks: tuple[str, ...] = ()
    best: bool = False
    value: float | str | None = None

    def __str__(self) -> str:
        return " ".join([self.text, *(f"[{mark}]" for mark in self.marks)]).strip()


@dataclass(frozen=True)
class Footnote:
    mark: str
    text: str


@dataclass(frozen=True)
class Layout:
    """The cells of a table by line; `spans` are headings above several columns, if any.

    `columns` are the frame's, as far as the texts come from one.
    """

    columns: tuple[str, ...]
    headers: tuple[Cell, ...]
    lines: tuple[tuple[Cell, ...], ...]
    footnotes: tuple[Footnote, ...]
    spans: tuple[tuple[str, int], ...] = ()

    @property
    def text_columns(self) -> tuple[bool, ...]:
        """Whether each column is text, which is aligned left."""
        return tuple(column in TEXT_COLUMNS for column in self.columns)


def layout(table: Table, columns: Sequence[str] | None = None) -> Layout:
    """The table as text; `columns` are the frame's, by default those that say something."""
    chosen = tuple(columns or default_columns(table))
    footnotes = _Footnotes(table, chosen)
    headers = tuple(Cell(header(c, table), footnotes.of_column(c)) for c in chosen)
    lines = tuple(tuple(_cell(row, column, footnotes) for column in chosen) for row in table.lines)
    return Layout(chosen, headers, lines, footnotes.all)


def default_columns(table: Table) -> tuple[str, ...]:
    """The columns asked for, else all with something to tell, behind those that name the row.

    A single data set or model is in the title.
    """
    frame = table.frame
    varying = [column for column in ("dataset", "model") if frame[column].nunique() > 1]
    paper = [f"published_{name}" for name in published_metrics(frame)]
    paper = [column for column in paper if frame[column].notna().any()]
    search = ("tuning_runs", "tuning_seconds") if frame["tuning_runs"].any() else ()
    chosen = table.columns or (*table.metrics, *paper, "runs", "seconds", *search)
    return (*varying, "decoder", "n", *chosen)


def overview(table: Table) -> Layout | None:
    """Decoders down and data sets across, as the paper has it; None for a single data set.

    It shows -log p and the distance, or the first two of the columns that were asked for.
    """
    frame = table.frame
    places = frame[["dataset", "model"]].drop_duplicates()
    if not 1 < len(places) <= SIDE_BY_SIDE:
        return None
    usual = [name for name in table.metrics if is_shown(name, "overview")]
    asked = [column for column in table.columns if column in table.available]
    metrics = tuple((asked or usual or table.metrics)[:2])
    single = [c for c in ("dataset", "model") if frame[c].nunique() > 1]
    names = [JOINT.join(line[c] for c in single) for line in places.to_dict("records")]
    decoders: dict[Any, dict[Any, Line]] = {}
    for row in table.lines:
        # A search chose another value on each data set: its key leaves that out.
        alike = (*row["key"][2:], row["settings"])
        decoders.setdefault(alike, {})[row["dataset"], row["model"]] = row
    footnotes = _Footnotes(table, ("decoder", *metrics))
    headers = [Cell(header(metric, table), footnotes.of_column(metric)) for metric in metrics]
    lines = []
    for found in decoders.values():
        cells = [Cell(next(iter(found.values()))["entry"])]
        for place in places.itertuples(index=False, name=None):
            own = found.get(place)
            cells += [_cell(own, metric, footnotes) if own else Cell("") for metric in metrics]
        lines.append(tuple(cells))
    return Layout(
        ("decoder", *(metrics * len(places))),
        (Cell("decoder"), *(headers * len(places))),
        tuple(lines),
        footnotes.all,
        (("", 1), *((name, len(metrics)) for name in names)),
    )


def title(table: Table) -> str:
    """The grid's name, and the data set and model where there is but one."""
    single = [c for c in ("dataset", "model") if table.frame[c].nunique() == 1]
    return JOINT.join([table.grid, *(table.frame[column].iloc[0] for column in single)])


def header(column: str, table: Table) -> str:
    """A column's heading, with an arrow to where better is."""
    if column.startswith("published_"):
        tables = table.frame["published_table"].dropna().unique()
        what = heading(column.removeprefix("published_"))
        return f"{what}, paper" + (f" (Table {tables[0]})" if len(tables) == 1 else "")
    if column in ("seconds", "tuning_seconds", "tuning_runs"):
        return column.replace("seconds", "time").replace("_", " ")
    return heading(column) + ARROWS[better(column)]


class _Footnotes:
    """The notes of a table's rows with their marks, in the order that they are met.

    A note that every number of a column has hangs on the column's heading; on a cell that is best
    it stays, as no reader looks away from a bold number.
    """

    def __init__(self, table: Table, columns: Sequence[str]) -> None:
        self.columns = columns
        self.known: dict[str, Footnote] = {}
        self.common: set[Note] = set()
        for column in columns:
            noted = [row for row in table.lines if not missing(row[column])]
            shared = [{n for n in row["notes"] if n.column == column} for row in noted]
            if len(shared) > 1:
                self.common |= set.intersection(*shared)

    @property
    def all(self) -> tuple[Footnote, ...]:
        return tuple(self.known.values())

    def of_column(self, column: str) -> tuple[str, ...]:
        return tuple(self._mark(note) for note in sorted(self.common) if note.column == column)

    def of_cell(self, row: Line, column: str) -> tuple[str, ...]:
        best = column in row["best"]
        own = [n for n in row["notes"] if n.column == column and (best or n not in self.common)]
        if column == "decoder":
            # A note on a column that is not shown still has to reach the reader.
            shown = {note.text for note in row["notes"] if note.column in self.columns}
            own += [n for n in row["notes"] if n.column not in self.columns and n.text not in shown]
        return tuple(dict.fromkeys(map(self._mark, own)))

    def _mark(self, note: Note) -> str:
        if note.text not in self.known:
            numbered = sum(known.mark.isdigit() for known in self.known.values())
            self.known[note.text] = Footnote(note.mark or str(numbered + 1), note.text)
        return self.known[note.text].mark


def _cell(row: Line, column: str, footnotes: _Footnotes) -> Cell:
    value = row[column]
    return Cell(
        cell_text(row, column),
        footnotes.of_cell(row, column),
        column in row["best"],
        None if missing(value) else value,
    )


def cell_text(row: Line, column: str) -> str:
    """A row's value in a column as a reader sees it; empty where there is none."""
    value: Any = row[column]
    if column in TEXT_COLUMNS:
        return str(value)
    if column == "n":
        lost = [f"{row[status]} {status}" for status in ("diverged", "failed") if row[status]]
        return f"{value} ({', '.join(lost)})" if lost else str(value)
    if column in ("tuning_runs", "tuning_seconds") and not row["tuning_runs"]:
        return ""
    if column in ("seconds", "tuning_seconds"):
        return duration(value)
    if missing(value):
        return ""
    if column == "peak_memory_bytes":
        return f"{value / 2**30:.2f} GiB"
    if column.startswith("published_"):
        difference = row[f"{column}_difference"]
        return f"{value:g}" + ("" if missing(difference) else f" ({signed(difference)})")
    if f"{column}_half_width" in row:
        return with_interval(value, row[f"{column}_half_width"])
    return str(value) if isinstance(value, int) else significant(value)


def significant(value: float) -> str:
    """The value with four significant digits and every digit before the point."""
    if abs(value) < TINY and value:
        return f"{value:.{DIGITS - 1}e}"
    return f"{value:.{_decimals(value, DIGITS)}f}"


def signed(value: float) -> str:
    """A difference with its sign and at least two significant digits."""
    return f"{value:+.{_decimals(value, 2)}f}"


def with_interval(mean: float, half_width: float) -> str:
    """`-896.1 ± 3.2`: the decimals that the half-width's two digits need; `±?` if it is NaN.

    A half-width of zero (a σ that is fixed) is left out.
    """
    if math.isnan(half_width):
        return f"{significant(mean)} ±?"
    if half_width == 0:
        return significant(mean)
    if max(abs(mean), half_width) < TINY:
        return f"{mean:.1e} ± {half_width:.1e}"
    decimals = _decimals(half_width, 2)
    return f"{mean:z.{decimals}f} ± {half_width:.{decimals}f}"


def _decimals(value: float, digits: int) -> int:
    size = math.floor(math.log10(abs(value))) if value else 0
    return max(0, digits - 1 - size)
