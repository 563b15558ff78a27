"""A grid's report on disk: the table in four formats, figures, one page without a network."""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import RequestError
from bench.files import write_bytes
from bench.progress import duration
from bench.records import COMPLETED, DIVERGED, Record, Store, done, frame
from bench.report import figures, formats, tables
from bench.report.captions import plain
from bench.report.formats import TEXT_COLUMNS
from bench.report.tables import Table

if TYPE_CHECKING:
    import pandas as pd

FORMATS = ("html", "markdown", "latex", "csv")
FILES = {"markdown": "table.md", "latex": "table.tex", "csv": "table.csv"}
PICTURED = 60
"""Rows of which the page holds images and curves; each costs about 100 kB and half a second."""


@dataclass(frozen=True)
class Picture:
    """An image inside the page: what it shows, and its content as a data URI."""

    caption: str
    uri: str


def write(
    grid_name: str,
    store_folders: Sequence[Path],
    out: Path,
    formats_: Sequence[str] = FORMATS,
    expected: int | None = None,
) -> list[Path]:
    """Write `out/<grid>/` from the records of one or several folders; returns the files.

    Arguments:
        store_folders: each a `results/<grid>`.
        formats_: of `FORMATS`; figures are written for html and latex.
        expected: how many runs the grid has, so that a partial report can say so.

    Raises:
        RequestError: an unknown format, no record, or a folder that cannot be written.
    """
    for name in formats_:
        if name not in FORMATS:
            raise RequestError(f"--format {name}: possible: {', '.join(FORMATS)}")
    records, searches = load(store_folders)
    table = tables.build(records, searches, grid_name, expected)
    folder = out / grid_name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return list(_write(table, searches, folder, formats_))
    except OSError as error:
        raise RequestError(
            f"--out {out}: cannot be written ({error.strerror}); choose another folder"
        ) from None


def load(store_folders: Sequence[Path]) -> tuple[pd.DataFrame, list[Record]]:
    """All records as one frame, with the `folder` of each, and all search summaries.

    A run that several folders hold counts once, and finished rather than failed.
    """
    chosen: dict[str, tuple[Record, Path]] = {}
    searches: dict[str, Record] = {}
    for store in map(Store, store_folders):
        for record in store.records():
            other = chosen.get(record["id"])
            if other is None or (done(record) and not done(other[0])):
                chosen[record["id"]] = (record, store.runs / record["id"])
        for search in store.searches():
            twin = searches.get(search["id"], search)
            runs = sorted({*search["runs"], *twin["runs"]})
            searches[search["id"]] = {**search, "runs": runs}
    records = frame(record for record, _ in chosen.values())
    return records.assign(folder=[folder for _, folder in chosen.values()]), list(searches.values())


def _write(
    table: Table, searches: Sequence[Record], folder: Path, names: Sequence[str]
) -> Iterator[Path]:
    writers = {"markdown": formats.markdown, "latex": formats.latex, "csv": formats.csv}
    for name in names:
        if name in writers:
            path = folder / FILES[name]
            write_bytes(path, writers[name](table).encode())
            yield path
    curves: list[Picture] = []
    if {"html", "latex"} & set(names):
        for number, (name, history) in enumerate(_histories(table), start=1):
            # Names that differ in punctuation alone must not share a file.
            stem = f"learning curves {number} {name}" if name else "learning curves"
            slug = re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-")
            paths = figures.save(figures.learning_curves(history), folder / "figures" / slug)
            yield from paths
            curves.append(Picture(name, _data_uri(paths[0])))
    if "html" in names:
        path = folder / "index.html"
        write_bytes(path, page(table, curves).encode())
        yield path


def page(table: Table, curves: Sequence[Picture]) -> str:
    """The report as one HTML text with everything in it; images as data URIs."""
    return (
        formats.templates()
        .get_template("index.html")
        .render(
            table=table,
            title=formats.title(table),
            layout=formats.layout(table),
            partial=table.partial,
            caption=table.caption[bool(table.partial) :],
            text_columns=TEXT_COLUMNS,
            summary=_summary(table),
            curves=curves,
            pictures=list(_pictures(table)),
            pictured=PICTURED,
            lost=list(_lost(table)),
            cost=list(_cost(table)),
            environment=_environment(table.records),
        )
    )


# -- what the page says ------------------------------------------------------------------------


def _place(row: Mapping[str, Any]) -> str:
    return f"{row['dataset']} · {row['model']}"


def _name(table: Table, row: Mapping[str, Any]) -> str:
    """A row's name; a single data set and model stand in the page's title."""
    single = len(table.frame[["dataset", "model"]].drop_duplicates()) == 1
    return str(row["decoder"]) if single else f"{row['decoder']} · {_place(row)}"


def _rows(table: Table) -> list[Mapping[str, Any]]:
    return table.frame.to_dict("records")  # type: ignore[no-any-return]


def _summary(table: Table) -> str:
    rows = table.frame
    parts = [
        f"{len(names)} {noun}{'s' if len(names) != 1 else ''} ({', '.join(names)})"
        for noun, column in (("data set", "dataset"), ("model", "model"))
        for names in [list(rows[column].unique())]
    ]
    lost = [f"{rows[s].sum()} {s}" for s in ("diverged", "failed") if rows[s].sum()]
    completed, tuning = rows["n"].sum(), rows["tuning_runs"].sum()
    return (
        f"{rows['decoder'].nunique()} decoders on {' and '.join(parts)}: "
        f"{', '.join([f'{completed} runs completed', *lost])}"
        + (f", after {tuning} runs of tuning" if tuning else "")
        + f"; {duration(rows['seconds'].sum())} in all."
    )


def _histories(table: Table) -> Iterator[tuple[str, pd.DataFrame]]:
    """The histories that share a figure: what tells it from the others, one line an epoch and run.

    A decoder without a likelihood stays out: its loss is no negative ELBO.
    """
    import pandas as pd

    folders = dict(zip(table.records["id"], table.records["folder"], strict=True))
    drawn = [
        row
        for row in _rows(table)[:PICTURED]
        if not row["n"] or not tables.missing(row.get("neg_log_p"))
    ]
    parts: dict[tuple[str, int], list[dict[str, Any]]] = {}
    count = Counter[str]()
    for row in drawn:
        place = _place(row)
        lines = [
            {"decoder": row["decoder"], **line}
            for run in row["ids"]
            for line in _history(folders[run])
        ]
        if lines:
            parts.setdefault((place, count[place] // figures.DECODERS), []).extend(lines)
            count[place] += 1
    for (place, part), lines in parts.items():
        name = [place] if len(count) > 1 else []
        name += [f"part {part + 1}"] if count[place] > figures.DECODERS else []
        yield ", ".join(name), pd.DataFrame(lines)


def _history(folder: Path) -> list[dict[str, Any]]:
    try:
        text = (folder / "history.jsonl").read_text()
    except OSError:  # a run that ended in its first epoch has none
        return []
    return [json.loads(line) for line in text.splitlines()]


def _pictures(table: Table) -> Iterator[tuple[str, list[Picture]]]:
    """Samples and reconstructions of each row's first completed seed."""
    records = table.records.set_index("id", drop=False)
    completed = records[records["status"] == COMPLETED]
    for row in _rows(table)[:PICTURED]:
        run = next((run for run in row["ids"] if run in completed.index), None)
        if run is None:
            continue
        record = completed.loc[run]
        found = []
        for what, caption in (
            ("samples", "samples from the prior"),
            ("reconstructions", "test images, each followed by its reconstruction"),
        ):
            name = record.get(f"artifacts.{what}")
            path = record["folder"] / name if isinstance(name, str) else None
            if path is not None and path.is_file():
                found.append(Picture(caption, _data_uri(path)))
        if found:
            yield f"{_name(table, row)}, seed {record['run.seed']:.0f}", found


def _lost(table: Table) -> Iterator[tuple[str, str, str]]:
    """Runs that gave no numbers: the row, the run, what happened."""
    records = table.records.set_index("id", drop=False)
    lost = records[records["status"] != COMPLETED]
    for row in _rows(table):
        for run in row["ids"]:
            if run in lost.index:
                record = lost.loc[run]
                what = (
                    f"diverged at step {record['divergence.step']:.0f}: "
                    f"{record['divergence.what']} was not finite"
                    if record["status"] == DIVERGED
                    else f"failed: {record['failure.type']}: {record['failure.message']}"
                )
                yield f"{_name(table, row)}, seed {record['run.seed']:.0f}", run, what


def _cost(table: Table) -> Iterator[tuple[str, ...]]:
    """A line of text for each row: runs, time, the search's share, speed, memory."""
    for row in _rows(table):
        memory, speed = row["peak_memory_bytes"], row["images_per_second"]
        yield (
            _name(table, row),
            str(row["runs"]),
            duration(row["seconds"]),
            duration(row["tuning_seconds"]) if row["tuning_runs"] else "",
            "" if tables.missing(speed) else f"{speed:.0f}",
            "" if tables.missing(memory) else f"{memory / 2**30:.2f} GiB",
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


def _data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
