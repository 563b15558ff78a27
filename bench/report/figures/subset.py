"""What figures are drawn from: the rows of one data set and model, and the runs behind them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd
from matplotlib.figure import Figure

from bench.records.frame import lines_of
from bench.records.labels import JOINT
from bench.records.searches import knobs_of
from bench.records.store import Record
from bench.records.validity import COMPLETED
from bench.report.figures.style import Style, styles
from bench.report.items import item
from bench.report.tables import Table

DECODERS = 20
"""What one figure can tell apart."""


class Sketch(NamedTuple):
    """A figure before it has a file; `part` tells it from others of its kind, often empty."""

    figure: Figure
    caption: str
    part: str = ""


@dataclass(frozen=True)
class Subset:
    """The rows of one data set and model.

    name: what tells them from the table's other rows, empty where there are no others.
    rows: of the table's frame.
    runs: a line a row and run, rows in order and seeds within: the record's columns, and of
        its row `decoder` (the label), `settings` and `discrete`.
    styles: by label, the same for every part of a table.
    """

    name: str
    rows: pd.DataFrame
    runs: pd.DataFrame
    searches: Sequence[Record]
    styles: Mapping[str, Style]

    @property
    def completed(self) -> pd.DataFrame:
        return self.runs[self.runs["status"] == COMPLETED]

    @property
    def item(self) -> str:
        """What its nats are of: `image` or `sequence`."""
        return item(self.runs)


def subsets(table: Table, searches: Sequence[Record], rows: int | None = None) -> Iterator[Subset]:
    """The subsets of a table's first `rows` rows (all by default), in its order."""
    balances = [key.balance for key in table.frame["key"]]
    families = map("{} {}".format, table.frame["family"], balances)
    looks = styles(zip(table.frame["decoder"], families, strict=True))
    groups = table.frame.iloc[:rows].groupby(["dataset", "model"], sort=False)
    for (dataset, model), group in groups:
        runs = group[["decoder", "settings", "discrete", "ids"]].explode("ids")
        runs = runs.rename(columns={"ids": "id"})
        runs = runs.merge(table.records, on="id")
        yield Subset(
            name=JOINT.join([dataset, model]) if groups.ngroups > 1 else "",
            rows=group,
            runs=runs,
            searches=[search for search in searches if _same_place(search, runs)],
            styles=looks,
        )


def _same_place(search: Record, runs: pd.DataFrame) -> bool:
    if runs.empty:
        return False
    run = runs.iloc[0]
    options = {f"run.model.{key}": value for key, value in search["model"].items()}
    tuned = {knob.column for knob in knobs_of(search)}
    wanted = {"run.dataset": search["dataset"], **options}
    return all(run.get(key) == value for key, value in wanted.items() if key not in tuned)


def with_columns(runs: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The runs that have a value in every one of `columns`."""
    if not set(columns) <= set(runs):
        return runs.iloc[:0]
    return runs.dropna(subset=list(columns))


def points_of(runs: pd.DataFrame, curve: str) -> pd.DataFrame:
    """A column of lists as points, a line each: `decoder`, `x` counted from 1, and `y`."""
    return pd.DataFrame(
        [
            (run["decoder"], *place)
            for run in lines_of(with_columns(runs, curve))
            for place in enumerate(run[curve], start=1)
        ],
        columns=["decoder", "x", "y"],
    )


def chunks_of(labels: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """At most `DECODERS` labels at a time, with a name for each piece where there are several."""
    for first in range(0, len(labels), DECODERS):
        name = f"part {first // DECODERS + 1}" if len(labels) > DECODERS else ""
        yield name, labels[first : first + DECODERS]


def seeds(runs: pd.DataFrame) -> str:
    """How many seeds each mean is over, in words."""
    counts = sorted(runs.groupby("decoder")["id"].nunique().unique())
    if counts == [1]:
        return "one seed each"
    return " to ".join(map(str, dict.fromkeys((counts[0], counts[-1])))) + " seeds each"
