"""A grid's report on disk: tables, figures, one page without a network, a page for each run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from bench.errors import RequestError, nearest
from bench.files import write_bytes
from bench.grid.schema import Grid
from bench.records.frame import load, missing
from bench.records.labels import JOINT
from bench.records.store import Record
from bench.records.validity import COMPLETED
from bench.report import captions, figures, formats, tables
from bench.report import run_pages as pages_of_runs
from bench.report.figures import SavedFigure
from bench.report.findings import findings
from bench.report.images import Picture, data_uri
from bench.report.items import item
from bench.report.journal import journal
from bench.report.layout import default_columns, layout, overview, title
from bench.report.rollouts import STRIPS, Player, sheet_of
from bench.report.tables import Table
from bench.text import duration, plain

FORMATS = ("html", "markdown", "latex", "csv")
"""Those written if none is named."""

ALL_FORMATS = (*FORMATS, "optuna")
FILES = {
    "markdown": "table.md",
    "latex": "table.tex",
    "csv": "table.csv",
    "optuna": "searches.journal",
}

PICTURED = 60
"""Rows of which the page holds images and curves; each costs about 100 kB and half a second."""

CHOOSABLE = 400
"""Rows up to which the page holds the columns that it does not show at first."""

TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("bench.report"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)
"""The pages' templates; what they are given is escaped."""


@dataclass(frozen=True)
class Report:
    """A report that was written: its table, its figures in their order, and all of its files."""

    table: Table
    figures: tuple[SavedFigure, ...]
    paths: tuple[Path, ...]


def write(
    grid_name: str,
    store_folders: Sequence[Path],
    out: Path,
    formats_: Sequence[str] = FORMATS,
    expected: int | None = None,
    *,
    grid: Grid | None = None,
    columns: Sequence[str] = (),
    run_pages: str = "auto",
    caption: str = "full",
) -> Report:
    """Write `out/<grid>/` from the records of one or several folders.

    Arguments:
        store_folders: each a `results/<grid>`.
        formats_: of `ALL_FORMATS`; figures are drawn for html.
        expected: how many runs the grid has, so that a partial report can say so.
        grid: the grid itself, where it is known; commands that repeat a run are shorter then.
        columns: of the table, where not the default ones.
        run_pages: which runs get a page of their own (html); `pages_of_runs.rule` says it in words.
        caption: of the LaTeX tables, one of `captions.LENGTHS`.

    Raises:
        RequestError: an unknown format or column, no record, no search for the journal of optuna,
            or a folder that cannot be written.
    """
    check(formats_, run_pages, caption)
    records, searches = load(store_folders)
    if "optuna" in formats_ and not searches:
        raise RequestError(f"--format optuna: {grid_name} has no finished search to write")
    table = tables.build(records, searches, grid_name, expected, columns)
    folder = out / grid_name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = list(_texts(table, records, searches, folder, formats_, caption))
        drawn: list[SavedFigure] = []
        if "html" in formats_:
            drawn = figures.draw(table, searches, folder / "figures", PICTURED)
            written += [path for figure in drawn for path in figure.paths]
            written += _html(table, drawn, folder, grid, run_pages)
    except OSError as error:
        raise unwritable(out, error) from None
    return Report(table, tuple(drawn), tuple(written))


def unwritable(out: Path, error: OSError) -> RequestError:
    """What is said of a folder of reports that cannot be written."""
    return RequestError(f"--out {out}: cannot be written ({error.strerror}); choose another folder")


def check(formats_: Sequence[str], run_pages: str, caption: str) -> None:
    """Refuse an unknown format or choice.

    Raises:
        RequestError: with what is possible.
    """
    for name in formats_:
        if name not in ALL_FORMATS:
            raise RequestError(f"--format {name}: possible: {', '.join(ALL_FORMATS)}")
    if run_pages not in pages_of_runs.CHOICES:
        raise RequestError(f"--run-pages {run_pages}: {nearest(run_pages, pages_of_runs.CHOICES)}")
    if caption not in captions.LENGTHS:
        raise RequestError(f"--caption {caption}: possible: {', '.join(captions.LENGTHS)}")


def _texts(
    table: Table,
    records: pd.DataFrame,
    searches: Sequence[Record],
    folder: Path,
    names: Sequence[str],
    caption: str,
) -> Iterator[Path]:
    """Write each of the formats that is one file."""
    writers: dict[str, Callable[[Table], str | bytes]] = {
        "markdown": formats.markdown,
        "latex": partial(formats.latex, caption=caption),
        "csv": formats.csv,
        "optuna": lambda table: journal(searches, records),
    }
    for name in names:
        if name in writers:
            path = folder / FILES[name]
            content = writers[name](table)
            write_bytes(path, content if isinstance(content, bytes) else content.encode())
            yield path


def _html(
    table: Table, drawn: Sequence[SavedFigure], folder: Path, grid: Grid | None, run_pages: str
) -> Iterator[Path]:
    """Write the page, with the figures that were drawn, and the pages of runs."""
    written = list(_write_runs(table, folder, grid, run_pages))
    path = folder / "index.html"
    shown = [Picture(one.caption, data_uri(one.paths[0]), one.title) for one in drawn]
    write_bytes(path, page(table, shown, run_pages).encode())
    yield path
    yield from written


def _write_runs(table: Table, folder: Path, grid: Grid | None, run_pages: str) -> Iterator[Path]:
    folders = dict(zip(table.records["id"], table.records["folder"], strict=True))
    names = {run: _name(table, row) for row in table.lines for run in row["ids"]}
    template = TEMPLATES.get_template("run.html")
    for run in pages_of_runs.chosen(table, run_pages):
        content = pages_of_runs.content(folders[run], table.grid, grid)
        path = folder / "runs" / f"{run}.html"
        write_bytes(path, template.render(name=names[run], grid=table.grid, **content).encode())
        yield path


def page(table: Table, drawn: Sequence[Picture], run_pages: str = "none") -> str:
    """The report as one HTML text with everything in it; images as data URIs."""
    usual = default_columns(table)
    more = [c for c in (*table.available, "images_per_second") if c not in usual]
    all_columns = (*usual, *(more if len(table.frame) <= CHOOSABLE else ()))
    return TEMPLATES.get_template("index.html").render(
        table=table,
        title=title(table),
        shown=layout(table, all_columns),
        across=overview(table),
        hidden=all_columns[len(usual) :],
        partial=table.caption[0] if table.partial else None,
        caption=table.caption[bool(table.partial) :],
        findings=findings(table),
        drawn=drawn,
        pictures=list(_pictures(table)),
        pictures_are=pages_of_runs.pictures_are(item(table.records)),
        players=list(_players(table)),
        strips=STRIPS,
        pictured=PICTURED,
        lost=list(_lost(table)),
        run_links=list(_run_links(table, set(pages_of_runs.chosen(table, run_pages)))),
        run_rule=pages_of_runs.rule(table, run_pages),
        cost=list(_cost(table)),
        environment=_environment(table.records),
    )


def _place(row: Mapping[str, Any]) -> str:
    return JOINT.join([row["dataset"], row["model"]])


def _name(table: Table, row: Mapping[str, Any]) -> str:
    """A row's name; a single data set and model are in the page's title."""
    return str(row["decoder"]) if table.places == 1 else JOINT.join([row["decoder"], _place(row)])


def _pictures(table: Table) -> Iterator[tuple[str, list[Picture]]]:
    """Samples and reconstructions of each row's first completed seed."""
    for name, record in _first_runs(table):
        artifacts = _nested(record, "artifacts").get("artifacts", {})
        found = list(pages_of_runs.pictures(record["folder"], artifacts, item(table.records)))
        if found:
            yield name, found


def _players(table: Table) -> Iterator[Player]:
    """The predictions of the same runs, where they are of videos."""
    for name, record in _first_runs(table):
        if (sheet := sheet_of(record["folder"], record)) is not None:
            yield Player(name, sheet)


def _first_runs(table: Table) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each row's first completed run of those that are pictured, with its name."""
    records = table.records.set_index("id", drop=False)
    completed = records[records["status"] == COMPLETED]
    for row in table.lines[:PICTURED]:
        run = next((run for run in row["ids"] if run in completed.index), None)
        if run is not None:
            record = completed.loc[run]
            yield f"{_name(table, row)}, seed {record['run.seed']:.0f}", record


def _lost(table: Table) -> Iterator[tuple[str, str, str]]:
    """Runs that gave no numbers: the row, the run, what happened."""
    records = table.records.set_index("id", drop=False)
    lost = records[records["status"] != COMPLETED]
    for row in table.lines:
        for run in row["ids"]:
            if run in lost.index:
                record = lost.loc[run]
                outcome = pages_of_runs.outcome(_nested(record, "divergence", "failure"))
                yield f"{_name(table, row)}, seed {record['run.seed']:.0f}", run, outcome


def _nested(record: Mapping[str, Any], *parts: str) -> dict[str, Any]:
    """The status and some parts of a record, back from the frame's dotted columns."""
    nested: dict[str, Any] = {"status": record["status"]}
    for part in parts:
        inner = {
            key.removeprefix(f"{part}."): value
            for key, value in record.items()
            if key.startswith(f"{part}.") and not missing(value)
        }
        if inner:
            nested[part] = inner
    return nested


def _run_links(table: Table, paged: set[str]) -> Iterator[tuple[str, list[tuple[str, str, str]]]]:
    """For each row that has run pages: of each run its id, its seed and, if lost, its status."""
    records = table.records.set_index("id")
    seeds, statuses = records["run.seed"].to_dict(), records["status"].to_dict()
    for row in table.lines:
        links = [
            (run, f"{seeds[run]:.0f}", "" if statuses[run] == COMPLETED else statuses[run])
            for run in row["ids"]
            if run in paged
        ]
        if links:
            yield _name(table, row), links


def _cost(table: Table) -> Iterator[tuple[str, ...]]:
    """A line of text for each row: runs, time, the search's share, speed, memory."""
    for row in table.lines:
        memory, speed = row["peak_memory_bytes"], row["images_per_second"]
        yield (
            _name(table, row),
            str(row["runs"]),
            duration(row["seconds"]),
            duration(row["tuning_seconds"]) if row["tuning_runs"] else "",
            "" if missing(speed) else f"{speed:.0f}",
            "" if missing(memory) else f"{memory / 2**30:.2f} GiB",
        )


def _environment(records: pd.DataFrame) -> list[tuple[str, str]]:
    """Each property of where the runs were made, with every value it had."""
    columns = sorted(column for column in records if column.startswith("environment."))
    lines = []
    for column in columns:
        values = records[column].dropna().astype(str).unique()
        if len(values):
            name = column.removeprefix("environment.").removeprefix("versions.").replace("_", " ")
            lines.append((name, ", ".join(sorted(map(plain, values)))))
    return lines
