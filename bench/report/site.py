"""The reports of every grid that has records, and a page that joins them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pandas as pd

from bench.errors import RequestError
from bench.files import write_bytes
from bench.grid.read import bundled_grids, read_grid
from bench.grid.schema import Grid
from bench.report import pages
from bench.report.figures import SavedFigure, quality
from bench.report.findings import findings, leaders
from bench.report.formats import escaped
from bench.report.images import Picture, thumbnail
from bench.report.pages import FORMATS, TEMPLATES, Report
from bench.report.tables import Table
from bench.text import plain, words

NAMES = {"html": "index.html", "markdown": "index.md"}
"""Of the pages that join the reports, by format."""


@dataclass(frozen=True)
class Entry:
    """What the page says of a grid.

    link: to its report's page or table, relative to the joining page.
    description: the grid file's; of a grid without a bundled file, that it has none.
    facts: a name and its text each.
    leads: who leads, in sentences by data set and model.
    """

    grid: str
    link: str
    description: str
    partial: str | None
    facts: tuple[tuple[str, str], ...]
    leads: tuple[tuple[str, tuple[str, ...]], ...]
    picture: Picture | None


@dataclass(frozen=True)
class Site:
    """What was written, the folders that hold no grid, and the grids that have no report."""

    paths: tuple[Path, ...]
    left_out: tuple[str, ...]
    failed: tuple[str, ...]


def write(
    results: Sequence[Path],
    out: Path,
    formats_: Sequence[str] = FORMATS,
    run_pages: str = "auto",
    caption: str = "full",
) -> Site:
    """Write `out/<grid>/` for every grid under `results`, and the pages that join them.

    Arguments:
        results: folders that each hold a folder a grid; a grid in several of them is one.
        formats_, run_pages, caption: as for `pages.write`.

    Raises:
        RequestError: an unknown format or choice, no grid at all, or a folder that cannot be
            written.
    """
    pages.check(formats_, run_pages, caption)
    grids, left_out = _grids(results)
    if not grids:
        where = words([f"--results {folder}" for folder in results])
        raise RequestError(f"{where}: no folder of a grid with records; run `sigma-bench run GRID`")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise pages.unwritable(out, error) from None
    paths, entries, failed = list[Path](), list[Entry](), list[str]()
    for name in grids:
        folders = [folder / name for folder in results]
        try:
            grid = read_grid(name) if name in bundled_grids() else None
            expected = grid.finals if grid else None
            report = pages.write(
                name, folders, out, formats_, expected,
                grid=grid, run_pages=run_pages, caption=caption,
            )  # fmt: skip
        except RequestError as error:
            failed.append(f"{name}: no report: {error}")
            continue
        paths += report.paths
        entries.append(_entry(report, grid, out))
    try:
        paths += _joined(entries, out, formats_)
    except OSError as error:
        raise pages.unwritable(out, error) from None
    return Site(tuple(paths), tuple(left_out), tuple(failed))


def _grids(results: Sequence[Path]) -> tuple[list[str], list[str]]:
    """The names of the grids in folders of results; a sentence for each folder that is none."""
    grids, left_out = dict[str, None](), list[str]()
    for results_folder in results:
        inside = results_folder.iterdir() if results_folder.is_dir() else ()
        for folder in sorted(filter(_shown, inside)):
            if (folder / "runs").is_dir():
                grids[folder.name] = None
            else:
                left_out.append(f"{folder}: left out, no grid's folder (it has no runs/)")
    return sorted(grids), left_out


def _shown(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _entry(report: Report, grid: Grid | None, out: Path) -> Entry:
    table = report.table
    story = findings(table)
    preferred = [one for one in report.figures if one.title.startswith(quality.TITLE)]
    figure = next(iter([*preferred, *report.figures]), None)
    page = next((path for path in report.paths if path.name == "index.html"), report.paths[0])
    return Entry(
        table.grid,
        quote(page.relative_to(out).as_posix()),
        grid.description if grid else "No grid file of this name is bundled.",
        table.caption[0] if table.partial else None,
        (
            ("rows", story.run[0]),
            ("runs", " ".join(story.run[1:])),
            ("cost", " ".join(story.cost)),
            *_origin(table),
        ),
        leaders(table),
        _picture(figure),
    )


def _picture(figure: SavedFigure | None) -> Picture | None:
    if figure is None:
        return None
    return Picture(figure.caption, thumbnail(figure.paths[0]), figure.title)


def _origin(table: Table) -> Iterator[tuple[str, str]]:
    """When, by what code, in what precision and where the records were made."""
    records = table.records
    if days := sorted({str(when)[:10] for when in _values(records, "cost.finished")}):
        yield "date", " to ".join(dict.fromkeys((days[0], days[-1])))
    commits = [str(value)[:12] for value in _values(records, "environment.commit")]
    if commits:
        changed = True in _values(records, "environment.dirty")
        yield "commit", words(commits) + (", with changes" if changed else "")
    for column in ("precision", "device"):
        if values := _values(records, f"environment.{column}"):
            yield column, words([*map(plain, values)])


def _values(records: pd.DataFrame, column: str) -> list[object]:
    return sorted(records[column].dropna().unique(), key=str) if column in records else []


def _joined(entries: Sequence[Entry], out: Path, formats_: Sequence[str]) -> Iterator[Path]:
    """Write the joining page in each of the formats that have one."""
    writers = {"html": _html, "markdown": _markdown}
    for name in formats_ if entries else ():
        if name in NAMES:
            path = out / NAMES[name]
            write_bytes(path, writers[name](entries).encode())
            yield path


def _html(entries: Sequence[Entry]) -> str:
    return TEMPLATES.get_template("site.html").render(entries=entries, players=())


def _markdown(entries: Sequence[Entry]) -> str:
    parts = ["# Reports"]
    for entry in entries:
        parts += [f"## [{escaped(entry.grid)}]({entry.link})", escaped(entry.description)]
        told = [entry.partial] if entry.partial else []
        told += [f"{name}: {text}" for name, text in entry.facts]
        for place, sentences in entry.leads:
            before = f"{place}: " if len(entry.leads) > 1 else ""
            told += [before + sentence for sentence in sentences]
        parts.append("\n".join(f"- {escaped(text)}" for text in told))
    return "\n\n".join(parts) + "\n"
