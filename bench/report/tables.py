"""The table: one line for everything of a Run but its seed; every format renders this frame."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, NamedTuple

import pandas as pd

from bench.errors import RequestError, nearest
from bench.metric import Units
from bench.metrics import draws, find, heading, is_distance, is_loose, is_shown, is_sliced
from bench.records.frame import Line, column_of, lines_of, missing
from bench.records.labels import TUNED
from bench.records.rows import metrics_of, rows, tested
from bench.records.store import Record
from bench.records.validity import COMPLETED, FAILED
from bench.report.captions import caption, edges_of
from bench.report.items import FRAMES
from bench.report.paper import STANDS_IN, lookup, unlike

TEXT_COLUMNS = ("dataset", "model", "decoder")
FIGURES = (
    "runs",
    "seconds",
    "tuning_runs",
    "tuning_seconds",
    "images_per_second",
    "peak_memory_bytes",
    "published_neg_log_p",
    "published_neg_log_p_per_frame",
    "published_fid",
)
"""Columns other than metrics that `--columns` accepts."""

STILL_MOVING = 0.1
"""ln(σ / fitted σ) above which a learned σ has not converged. One that is too small may be right
for the training images: the fitted one is for images that the model has not seen."""


class NoteKind(StrEnum):
    """What a footnote is about."""

    NO_LIKELIHOOD = "no likelihood"
    PROBABILITY = "probability"
    LOOSE_BOUND = "loose bound"
    SINGULAR_COVARIANCE = "singular covariance"
    SIGMA_MOVING = "sigma moving"
    OTHER_SETTING = "other setting than published"
    STAND_IN = "stands in for an unpublished model"
    IMPOSSIBLE = "published number that cannot be"
    VIDEO = "published number of videos"
    AT_EDGE = "chosen at the edge"


class Note(NamedTuple):
    """A footnote: the column whose cell it hangs on, its kind, and what the reader must know."""

    column: str
    kind: NoteKind
    text: str

    @property
    def mark(self) -> str:
        """A sign of its own; a note without one is numbered."""
        return "†" if self.kind is NoteKind.PROBABILITY else ""


class Partial(NamedTuple):
    """How many runs a report has of how many that its grid has."""

    done: int
    expected: int


@dataclass(frozen=True)
class Table:
    """A grid's table: its rows (see `rows`), the caption's sentences, and the records behind it.

    columns: those asked for; none means the default ones.
    partial: the count of runs where some are missing; then the caption's first sentence says it.
    trials: the completed trials of its searches, records as `records` has them.
    """

    grid: str
    frame: pd.DataFrame
    caption: tuple[str, ...]
    records: pd.DataFrame
    columns: tuple[str, ...] = ()
    partial: Partial | None = None
    trials: pd.DataFrame = field(default_factory=pd.DataFrame)

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
        return tuple(name for name in metrics_of(self.frame) if self.frame[name].notna().any())

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics that are shown by default and that at least one row has."""
        weighed = "balance_weight" in self.available
        return tuple(
            name
            for name in self.available
            if is_shown(name) or (weighed and is_shown(name, "balanced"))
        )


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
    notes = pd.Series(_notes(lines, first, searches), index=lines.index, name="notes")
    lines = lines.join(notes)
    settled = int((tests["status"] != FAILED).sum())
    partial = None if expected is None or settled >= expected else Partial(settled, expected)
    sentences = caption(tests, searches, lines, partial)
    scored = column_of(frame, "run.evaluation.split")
    tried = frame[(scored == "validation") & (frame["status"] == COMPLETED)]
    table = Table(grid, lines, sentences, tests, tuple(columns), partial, tried)
    possible = [*table.available, *FIGURES]
    for column in columns:
        if column not in possible:
            raise RequestError(f"--columns {column}: {nearest(column, possible)}")
    return table


def _published(table: pd.DataFrame, lines: pd.DataFrame, grid: str) -> pd.DataFrame:
    """The paper's numbers for each row; its FID only where ours is FID too.

    A column of -log p per frame is there where a row has that number.
    """
    has_fid = table["fid"].notna() if "fid" in table else pd.Series(False, index=table.index)
    values = []
    for line, key, fid in zip(lines_of(lines), table["key"], has_fid, strict=True):
        name = line["run.decoder.name"]
        beta = None
        if name == "beta":
            beta = TUNED if "beta" in key.tuned else line["run.decoder.beta"]
        numbers = None
        if not key.balance:  # the paper has none
            numbers = lookup(grid, line["run.dataset"], line["run.model.name"], name, beta)
        row: dict[str, Any] = dict.fromkeys(("neg_log_p", "fid"), math.nan) | {"table": None}
        if numbers:
            own = {numbers.nats: numbers.neg_log_p, "table": numbers.table}
            row |= own | ({"fid": numbers.fid} if fid else {})
        values.append(row)
    frame = pd.DataFrame(values, index=table.index).add_prefix("published_")
    for metric in published_metrics(frame):
        ours = table.get(metric, math.nan)
        frame[f"published_{metric}_difference"] = ours - frame[f"published_{metric}"]
    return frame.astype({"published_table": "Int64"})


def published_metrics(rows: pd.DataFrame) -> list[str]:
    """The metrics of which `rows` have a column of published numbers."""
    known = [name.removeprefix("published_") for name in FIGURES if name.startswith("published_")]
    return [name for name in known if f"published_{name}" in rows]


def _notes(
    table: pd.DataFrame, lines: pd.DataFrame, searches: Sequence[Record]
) -> list[tuple[Note, ...]]:
    names = metrics_of(table)
    edges = {search["id"]: edges_of(search) for search in searches}
    return [
        (
            *_row_notes(row, line, [name for name in names if not missing(row[name])]),
            *_published_notes(row, line),
            *(Note("decoder", NoteKind.AT_EDGE, text) for text in edges.get(line["search"], ())),
        )
        for row, line in zip(lines_of(table), lines_of(lines), strict=True)
    ]


def _row_notes(row: Line, line: Line, metrics: Sequence[str]) -> Iterable[Note]:
    """The notes of a row; `metrics` are those that it has."""
    if row["n"] and "neg_log_p" not in metrics:
        text = "not a likelihood, so there is no -log p"
        yield Note("neg_log_p", NoteKind.NO_LIKELIHOOD, text)
    if row["discrete"]:
        for name in metrics:
            known = find(name)
            if known is not None and known.units is Units.OWN:
                text = (
                    "a probability of the 8-bit image, which does not compare with a density; "
                    "bits/dim does"
                )
                yield Note(name, NoteKind.PROBABILITY, text)
    for name in metrics:
        if is_loose(name, row):
            text = (
                f"effective sample size near 1 of {draws(name)} draws: the bound is loose by an "
                "unknown amount"
            )
            yield Note(name, NoteKind.LOOSE_BOUND, text)
    samples, features = (line.get(f"protocol.distance.{key}") for key in ("samples", "dimension"))
    if samples and features and samples <= features:  # neither where nothing was sampled
        for name in filter(is_distance, metrics):
            text = (
                f"{samples:.0f} samples ≤ {features:.0f} features: the covariance is singular; "
                "compare within this table only"
            ) + "".join(f"; {heading(one)} needs none" for one in filter(is_sliced, metrics))
            yield Note(name, NoteKind.SINGULAR_COVARIANCE, text)
    learned, fitted = row.get("sigma"), row.get("sigma_fitted")
    if (
        row["family"] == "shared"
        and learned
        and fitted
        and math.log(learned / fitted) > STILL_MOVING
    ):
        text = (
            f"σ still moving: learned {learned:.2g}, the data ask for {fitted:.2g}; "
            "train longer or raise sigma_lr"
        )
        yield Note("sigma", NoteKind.SIGMA_MOVING, text)


def _published_notes(row: Line, line: Line) -> Iterable[Note]:
    if missing(row["published_table"]):
        return
    # `lookup` matched the value of β.
    differing = unlike(int(row["published_table"]), line, ("beta", *row["key"].tuned))
    told = []
    if line["run.model.name"] in STANDS_IN:
        text = "stands in for the paper's HVAE, whose size is unpublished"
        told.append((NoteKind.STAND_IN, text))
    if differing:
        told.append((NoteKind.OTHER_SETTING, f"not the paper's setting: {', '.join(differing)}"))
    per_frame = not missing(row.get("published_neg_log_p_per_frame"))
    column = "published_neg_log_p_per_frame" if per_frame else "published_neg_log_p"
    if per_frame:
        text = "the paper does not say so, but its -log p of videos makes sense per frame alone"
        yield Note(column, NoteKind.VIDEO, text)
        if not missing(row["published_fid"]):
            text = "the paper does not say which frames its FID compares"
            yield Note("published_fid", NoteKind.VIDEO, text)
    for kind, text in told:
        for own in (column, "published_fid"):
            if not missing(row[own]):
                yield Note(own, kind, text)
    constant, printed = row.get("unit_sigma_constant", math.nan), row[column]
    if row["family"] == "gaussian" and not missing(constant) and not missing(printed):
        frames = line[FRAMES] if per_frame else 1
        least = line["protocol.likelihood.dimensions"] / frames / 2 * math.log(2 * math.pi)
        most, what = constant / frames, "frame" if per_frame else "image"
        if not least <= printed <= most:
            text = (
                f"no Gaussian of σ = 1 on data in [0, 1]: that costs from {least:.0f} nats (no "
                f"error, no rate) to {most:.0f} (the mean {what} for every {what})"
            )
            yield Note(column, NoteKind.IMPOSSIBLE, text)
