"""The table: one line for everything of a Run but its seed; every format renders this frame."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from bench.errors import RequestError, nearest
from bench.records.frame import Line, lines_of, missing
from bench.records.labels import TUNED
from bench.records.rows import OWN_UNITS, SHOWN, place_of, rows, tested
from bench.records.store import Record
from bench.report.captions import caption
from bench.report.paper import lookup

if TYPE_CHECKING:
    import pandas as pd

TEXT_COLUMNS = ("dataset", "model", "decoder")
DISTANCE = re.compile(r"(?:fid|fd_\w+?)(?:_sampled|_reconstruction)?")

FIGURES = (
    "runs",
    "seconds",
    "tuning_runs",
    "tuning_seconds",
    "images_per_second",
    "peak_memory_bytes",
    "published_neg_log_p",
    "published_fid",
)
"""Columns beside the metrics that can be asked for."""

STILL_MOVING = 0.1
"""|ln(σ / fitted σ)| above which a learned σ has not converged."""


class Note(NamedTuple):
    """A footnote: the column whose cell it hangs on, and what the reader must know."""

    column: str
    text: str
    mark: str = ""
    """A sign of its own; a note without one is numbered."""


@dataclass(frozen=True)
class Table:
    """A grid's table: its rows (see `rows`), the caption's sentences, and the records behind it."""

    grid: str
    frame: pd.DataFrame
    caption: tuple[str, ...]
    records: pd.DataFrame
    columns: tuple[str, ...] = ()
    """The columns asked for; none means the default ones."""

    @property
    def partial(self) -> str | None:
        """The caption's first sentence where that says that runs are missing."""
        return self.caption[0] if self.caption[0].startswith("Partial") else None

    @cached_property
    def lines(self) -> list[Line]:
        """The frame's rows, each with its values by column."""
        return lines_of(self.frame)

    @cached_property
    def places(self) -> int:
        """How many pairs of data set and model there are."""
        return len(self.frame[["dataset", "model"]].drop_duplicates())

    @property
    def available(self) -> tuple[str, ...]:
        """Every metric that at least one row has."""
        return tuple(
            column
            for column in self.frame
            if f"{column}_half_width" in self.frame and self.frame[column].notna().any()
        )

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that are shown by default: those of `METRICS` that at least one row has."""
        return tuple(column for column in self.available if place_of(column) < len(SHOWN))


def build(
    frame: pd.DataFrame,
    searches: Sequence[Record],
    grid: str,
    expected: int | None = None,
    columns: Sequence[str] = (),
) -> Table:
    """The table of a grid from `records.frame` and the search summaries.

    Arguments:
        expected: how many runs the grid has, where that is known; fewer make the table partial.
        columns: the metrics to show, and any of `FIGURES`; none means the default ones.

    Raises:
        RequestError: there is no record of a run on the test split, or no such column.
    """
    tests = tested(frame)
    if tests.empty:
        tuning = " (tuning trials only)" if len(frame) else ""
        raise RequestError(
            f"grid '{grid}' has no finished run to report{tuning}; run `sigma-bench run {grid}`"
        )
    lines, first = rows(frame, searches)
    lines = lines.join(_published(lines, first, grid))
    lines["notes"] = _notes(lines, first)
    table = Table(grid, lines, caption(tests, searches, lines, expected), tests, tuple(columns))
    possible = [*table.available, *FIGURES]
    for column in columns:
        if column not in possible:
            raise RequestError(f"--columns {column}: {nearest(column, possible)}")
    return table


def _published(table: pd.DataFrame, lines: pd.DataFrame, grid: str) -> pd.DataFrame:
    """The paper's numbers; its FID only beside a distance that is FID too."""
    import pandas as pd

    has_fid = table["fid"].notna() if "fid" in table else pd.Series(False, index=table.index)
    values = []
    for line, fid in zip(lines_of(lines), has_fid, strict=True):
        name = line["run.decoder.name"]
        beta = (TUNED if line["search"] else line["run.decoder.beta"]) if name == "beta" else None
        numbers = lookup(grid, line["run.dataset"], line["run.model.name"], name, beta)
        values.append(
            (numbers.neg_log_p, numbers.fid if fid else math.nan, numbers.table)
            if numbers
            else (math.nan, math.nan, None)
        )
    columns = ["published_neg_log_p", "published_fid", "published_table"]
    frame = pd.DataFrame(values, columns=columns, index=table.index)
    for metric in ("neg_log_p", "fid"):
        ours = table.get(metric, math.nan)
        frame[f"published_{metric}_difference"] = ours - frame[f"published_{metric}"]
    return frame.astype({"published_table": "Int64"})


def _notes(table: pd.DataFrame, lines: pd.DataFrame) -> list[tuple[Note, ...]]:
    distances = [
        column for column in table if DISTANCE.fullmatch(column) and f"{column}_half_width" in table
    ]
    return [
        tuple(_row_notes(row, line, distances))
        for row, line in zip(lines_of(table), lines_of(lines), strict=True)
    ]


def _row_notes(row: Line, line: Line, distances: Sequence[str]) -> Iterable[Note]:
    if row["n"] and missing(row.get("neg_log_p")):
        yield Note("neg_log_p", "not a likelihood, so there is no -log p")
    if row["discrete"]:
        for name in row:
            if OWN_UNITS.fullmatch(name) and not missing(row[name]):
                yield Note(
                    name,
                    "a probability of the 8-bit image, which does not compare with a density; "
                    "bits/dim does",
                    "†",
                )
    samples, features = (line.get(f"protocol.distance.{key}") for key in ("samples", "dimension"))
    if samples and features and samples <= features:  # neither where nothing was sampled
        for name in distances:
            if not missing(row[name]):
                yield Note(
                    name,
                    f"{samples:.0f} samples ≤ {features:.0f} features: the covariance is singular; "
                    "compare within this table only",
                )
    learned, fitted = row.get("sigma"), row.get("sigma_fitted")
    if (
        line["run.decoder.name"] == "shared"
        and learned
        and fitted
        and abs(math.log(learned / fitted)) > STILL_MOVING
    ):
        yield Note(
            "sigma",
            f"σ still moving: learned {learned:.2g}, the data ask for {fitted:.2g}; "
            "train longer or raise sigma_lr",
        )
    if not missing(row["published_table"]) and row["model"] != line["run.model.name"]:
        yield Note(
            "published_neg_log_p",
            f"the paper's {line['run.model.name']} has the default options; ours is {row['model']}",
        )
