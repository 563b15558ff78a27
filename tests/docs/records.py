"""The committed records, asked for what documents say of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from bench.records.frame import load
from bench.records.store import Record
from bench.report.layout import cell_text, with_interval
from bench.report.tables import Table, build
from tests.docs.claims import slot, told

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "results" / "reference"

FD = "fd_efficientnet_lite0"


def number(value: float, decimals: int = 0, comma: bool = False) -> str:
    """A value of the records at so many decimals; `comma` groups its thousands."""
    text = f"{value:,.{decimals}f}" if comma else f"{value:.{decimals}f}"
    return told("0" + text[2:] if text.startswith("-0") and not float(text) else text)


def rounded(value: float, digits: int) -> str:
    """A value at so many significant digits, its thousands grouped."""
    size = math.floor(math.log10(abs(value)))
    return number(round(value, digits - 1 - size), max(0, digits - 1 - size), comma=True)


def interval(values: Sequence[float] | pd.Series[float], decimals: int, comma: bool = False) -> str:
    """Mean ± half the width of its 95 % Student-t interval; -1 decimals are tens."""
    mean, half = (round(float(value), decimals) for value in (np.mean(values), half_width(values)))
    places = max(decimals, 0)
    return f"{number(mean, places, comma)} ± {number(half, places, comma)}"


def paired(values: pd.Series[float]) -> str:
    """The same with the digits of a report's cell."""
    return told(with_interval(float(values.mean()), half_width(values)))


def half_width(values: Sequence[float] | pd.Series[float]) -> float:
    """Half the width of the 95 % Student-t interval of the mean."""
    data = np.asarray(values, dtype=float)
    return float(data.std(ddof=1) / math.sqrt(len(data)) * stdtrit(len(data) - 1, 0.975))


def scaled(values: pd.Series[float]) -> str:
    """`(3.1 ± 1.1)·10⁸`, for numbers that are too long for a cell."""
    power = math.floor(math.log10(abs(values.mean())))
    exponent = str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"({interval(values / 10**power, 1)})·10{exponent}"


WORDS = [
    "none",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
]


def word(count: int) -> str:
    """A count as a word."""
    return slot(WORDS[count])


def seeds_of(count: int) -> str:
    """`one seed`, `three seeds`."""
    return slot(f"{WORDS[count]} seed{'' if count == 1 else 's'}")


def spread(values: Sequence[float], decimals: int = 0, comma: bool = False) -> str:
    """`low to high`, or the one number that both are at these decimals."""
    ends = [number(end, decimals, comma) for end in (min(values), max(values))]
    return " to ".join(dict.fromkeys(ends))


class Row:
    """A row of a report's table, and the records behind it."""

    def __init__(self, line: Mapping[str, Any], records: pd.DataFrame) -> None:
        self.line = line
        self.records = records

    def __getitem__(self, column: str) -> float:
        return float(self.line[column])

    @property
    def name(self) -> str:
        return f"`{self.line['decoder'].split(' [')[0]}`"

    def text(self, column: str) -> str:
        """The cell of the report: `-509 ± 55`, or `-` where it is empty."""
        return told(cell_text(self.line, column)) or "-"

    def at(self, column: str, decimals: int, comma: bool = False) -> str:
        """The mean at so many decimals."""
        return number(self[column], decimals, comma)

    def pm(self, metric: str, decimals: int) -> str:
        """Mean ± half width at so many decimals."""
        return interval(self.seeds(metric), decimals)

    def seeds(self, metric: str) -> pd.Series[float]:
        """A metric by seed."""
        return self.column(f"metrics.{metric}").astype(float)

    def column(self, name: str) -> pd.Series[Any]:
        """A column of the records, by seed."""
        return self.records.set_index("run.seed")[name].sort_index()

    def minus(self, other: Row, metric: str) -> pd.Series[float]:
        """The difference by seed."""
        return (self.seeds(metric) - other.seeds(metric)).dropna()


class Grid:
    """A grid's committed records, or those on one of its data sets."""

    def __init__(self, name: str, dataset: str | None = None) -> None:
        self.name = name
        self.dataset = dataset

    @cached_property
    def _loaded(self) -> tuple[pd.DataFrame, list[Record]]:
        frame, searches = load([REFERENCE / self.name])
        if self.dataset is None:
            return frame, searches
        searches = [search for search in searches if search["dataset"] == self.dataset]
        return frame[frame["run.dataset"] == self.dataset], searches

    @property
    def everything(self) -> pd.DataFrame:
        """Every record, trials included."""
        return self._loaded[0]

    @property
    def searches(self) -> list[Record]:
        return self._loaded[1]

    @cached_property
    def table(self) -> Table:
        return build(*self._loaded, self.name)

    def rows(self, **wanted: str) -> list[Row]:
        """The rows with these values of columns."""
        records = self.table.records.set_index("id", drop=False)
        return [
            Row(line, records.loc[list(line["ids"])])
            for line in self.table.lines
            if all(line[column] == value for column, value in wanted.items())
        ]

    def row(self, entry: str, **wanted: str) -> Row:
        """The row of a decoder: its label without tuned values, or its name where one has it."""
        rows = self.rows(**wanted)
        labels = [row.line["entry"].split(" [")[0] for row in rows]
        found = [row for row, label in zip(rows, labels, strict=True) if label == entry]
        found = found or [row for row, label in zip(rows, labels, strict=True)
                          if label.split(" (")[0] == entry]  # fmt: skip
        assert len(found) == 1, f"{self.name}: {entry} is {len(found)} of {labels}"
        return found[0]

    def setting(self, name: str) -> str:
        """A setting of the runs that all of them share."""
        (value,) = self.table.records[f"run.{name}"].dropna().unique()
        return number(value, 0, comma=True) if float(value).is_integer() else told(f"{value:g}")

    @property
    def seeds(self) -> str:
        """`three seeds`: the most that a row has."""
        return seeds_of(int(self.table.frame["n"].max()))

    @property
    def precision(self) -> str:
        """What all runs were trained in."""
        return slot(" or ".join(sorted(self.everything["environment.precision"].unique())))

    @property
    def minutes(self) -> str:
        """The computing that all runs took, in minutes."""
        return number(self.everything["cost.seconds"].sum() / 60)

    @property
    def runs(self) -> str:
        return number(len(self.everything))
