"""Rows of a table: everything of a Run but its seed, from a frame of records."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import stdtrit

from baselines.options import BALANCES, DECODERS
from bench.metric import Units
from bench.metrics import better, find, order
from bench.records.frame import Line, column_of, lines_of, missing
from bench.records.identity import IMPLIED, SOURCE, identify
from bench.records.store import Record
from bench.records.validity import COMPLETED, DIVERGED, FAILED
from bench.run import ELBO
from bench.significance import best_rows

CONFIDENCE = 0.95

PARTS = ("dataset", "model", "decoder", "balance")
"""What the summary of a search says of its runs."""


def tested(frame: pd.DataFrame) -> pd.DataFrame:
    """The records that belong in a table; tuning trials score the validation split."""
    return frame[column_of(frame, "run.evaluation.split") == "test"]


class Rows(NamedTuple):
    """Rows of a table, and under the same index the first record behind each of them."""

    table: pd.DataFrame
    first: pd.DataFrame


def rows(frame: pd.DataFrame, searches: Sequence[Record]) -> Rows:
    """One line for everything of a Run but its seed, from a frame of records.

    Columns: those of `identify` (settings in which rows of the frame differ are part of the
    decoder's label, so that unlike runs never share a line); `n` runs completed, `diverged`,
    `failed`; each metric's mean over completed seeds and `<metric>_half_width` of its 95 %
    Student-t interval (NaN below two seeds); `runs` and `seconds` with the search included,
    `tuning_runs` and `tuning_seconds` of it; `images_per_second`, `peak_memory_bytes`;
    `discrete`, whether -log p is a probability; `best`, the metrics in which no row of the same
    data set and model is better (see `best_rows`); `tested`, those in which it was compared with
    another row; `ids` of the records by seed. Units as in the records.
    """
    members = _members(tested(frame), searches)
    groups = members.groupby("row", sort=False)
    lines = groups.first()
    found = {search["id"]: search for search in searches}
    table = identify(lines, found)
    for name, status in (("n", COMPLETED), ("diverged", DIVERGED), ("failed", FAILED)):
        table[name] = (members["status"] == status).groupby(members["row"], sort=False).sum()
    table = table.join(_statistics(members))
    table = table.join(_cost(groups, lines, found))
    # Joined, since pandas warns of so many columns that are inserted one by one.
    table = table.join(_discrete(lines).rename("discrete"))
    best, compared = _best(table, lines, members)
    known = members.dropna(subset="id")
    ids = known["id"].groupby(known["row"], sort=False).agg(tuple)
    last = {"best": best, "tested": compared, "ids": [ids.get(row, ()) for row in table.index]}
    table = table.join(pd.DataFrame(last, index=table.index))
    places = list(map(_order, lines_of(table), lines_of(lines)))
    sequence = sorted(range(len(table)), key=places.__getitem__)
    return Rows(*(part.iloc[sequence].reset_index(drop=True) for part in (table, lines)))


def metrics_of(table: pd.DataFrame) -> list[str]:
    """The columns of a table of rows that are metrics, in its order."""
    return [column for column in table if f"{column}_half_width" in table]


def natural(text: str) -> list[tuple[float, str]]:
    """A key that sorts the numbers within texts by value: `beta=0.01` before `beta=1e+01`."""
    parts = re.split(r"(\d+(?:\.\d+)?(?:e[+-]\d+)?)", text)
    # Text and numbers alternate, so only like meets like.
    return [(float(part), "") if index % 2 else (0, part) for index, part in enumerate(parts)]


def _members(tests: pd.DataFrame, searches: Sequence[Record]) -> pd.DataFrame:
    """The test records with the `row` that each belongs to, by seed.

    A search's row is the runs that it lists, whatever made them; a search without any has a line
    with neither id nor status.
    """
    listed = pd.DataFrame(
        sorted({(search["id"], run) for search in searches for run in search["runs"]}),
        columns=["search", "id"],
    ).astype(object)
    rule = column_of(tests, "protocol.selection.rule")
    tuned = (rule == "tuned") | (rule.isna() & tests["id"].isin(listed["id"]))
    by_hand = tests[~tuned]
    found = listed.merge(tests, on="id")
    # A final run whose search's summary is missing is still a tuned run, of that search.
    orphans = tests[tuned & ~tests["id"].isin(listed["id"])]
    named = column_of(orphans, "protocol.selection.search")
    orphans = orphans.assign(search=named.astype(object).fillna("unknown"))
    bare = pd.json_normalize(
        [
            {"search": s["id"], "run": {key: s[key] for key in PARTS if key in s}}
            for s in {s["id"]: s for s in searches}.values()
            if s["id"] not in set(found["search"])
        ]
    )
    keys = sorted(
        column
        for column in tests
        if column.startswith("run.") and column not in ("run.seed", SOURCE)
    )
    numbers = by_hand[keys].astype(str).groupby(keys, sort=False, dropna=False).ngroup()
    parts = [
        by_hand.assign(search="", row=numbers.map("by hand {}".format)),
        *(part.assign(row="search " + part["search"].astype(str)) for part in (found, orphans)),
        *([bare.assign(row="search " + bare["search"])] if len(bare) else []),
    ]
    members = pd.concat([part.astype(object) for part in parts if len(part)], ignore_index=True)
    return members.infer_objects().sort_values("run.seed", kind="stable", ignore_index=True)


def _order(row: Line, line: Line) -> tuple[Any, ...]:
    balance = line.get("run.balance.name")
    return (
        natural(row["dataset"]),
        natural(row["model"]),
        _place(line["run.decoder.name"], DECODERS),
        _place(ELBO if missing(balance) else balance, BALANCES),
        bool(line["search"]),
        natural(row["decoder"]),
    )


def _place(name: Any, registry: Mapping[str, Any]) -> int:
    """The place of a name in a registry's order; one that is not in it comes last."""
    return list(registry).index(name) if name in registry else len(registry)


def _statistics(members: pd.DataFrame) -> pd.DataFrame:
    """Mean and half-width of every metric over the completed seeds of a row."""
    completed = members[members["status"] == COMPLETED]
    # A standard error over images is no measure of the spread over seeds.
    names = [
        column.removeprefix("metrics.")
        for column in members
        if column.startswith("metrics.") and not column.endswith("_se")
    ]
    names.sort(key=lambda name: (order(name), natural(name)))
    values = completed[[f"metrics.{name}" for name in names]].astype(float)
    values.columns = names
    groups = values.groupby(completed["row"], sort=False)
    mean, count = groups.mean(), groups.count()
    freedom = (count - 1).where(count > 1)
    quantile = stdtrit(freedom.to_numpy(), (1 + CONFIDENCE) / 2)
    half = groups.std(ddof=1) * quantile / np.sqrt(count)
    both = pd.concat([mean, half.add_suffix("_half_width")], axis=1)
    return both[[column for name in names for column in (name, f"{name}_half_width")]]


def _discrete(lines: pd.DataFrame) -> pd.Series[bool]:
    stated = column_of(lines, "protocol.likelihood.of")
    known = lines["run.decoder.name"].map(is_discrete)
    return known.where(stated.isna(), stated == "probability").astype(bool)


def is_discrete(decoder: str) -> bool:
    """Whether a decoder gives probabilities of the 8-bit image, for a record that does not say."""
    return decoder in DECODERS and DECODERS[decoder].is_discrete


def _best(
    table: pd.DataFrame, lines: pd.DataFrame, members: pd.DataFrame
) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """The metrics in which no other row is better than a row, and those in which it was compared.

    Rows are compared within a data set, a model and an evaluation protocol; a probability is
    never compared with a density, and where there are densities only they can be best.
    """
    directions = {name: better(name) for name in metrics_of(table)}
    completed = members[members["status"] == COMPLETED]
    # These are in the names of their metrics and move no other.
    named = ("iwae", "temperatures", "sampler", "ood")
    apart = IMPLIED | {f"run.evaluation.{name}" for name in named}
    protocol = [c for c in lines if c.startswith("run.evaluation.") and c not in apart]
    # What is scored: a density of dequantised data is another one.
    data = ("run.content", "run.split_seed", "run.training.dequantise")
    protocol = [c for c in (*protocol, *data) if c in lines]
    keys = (
        lines[protocol]
        .astype(str)
        .assign(dataset=table["dataset"], model=[key.model for key in table["key"]])
    )
    numbers = keys.groupby(list(keys), sort=False, dropna=False).ngroup().to_numpy()
    groups = [np.flatnonzero(numbers == number) for number in range(numbers.max() + 1)]
    discrete = table["discrete"].to_numpy(dtype=bool)
    best: list[list[str]] = [[] for _ in range(len(table))]
    tested: list[list[str]] = [[] for _ in range(len(table))]
    by_seed = _BySeed(completed, table.index)
    for name, direction in directions.items():
        if direction is None:
            continue
        values = by_seed.values(f"metrics.{name}")
        least = _counting_errors(name, table, completed)
        metric = find(name)
        for group in groups:
            own = group
            if metric is not None and metric.units is Units.OWN:
                densities = group[~discrete[group] & ~np.isnan(values[group]).all(axis=1)]
                own = densities if len(densities) else group
            if len(own) < 2:
                continue
            verdict = best_rows(values[own], direction, least[own])
            for row in own[verdict.best]:
                best[row].append(name)
            for row in own[verdict.compared]:
                tested[row].append(name)
    return list(map(tuple, best)), list(map(tuple, tested))


class _BySeed:
    """The columns of records as arrays (rows, seeds), NaN where a row has no number of a seed."""

    def __init__(self, records: pd.DataFrame, rows: pd.Index) -> None:
        seeds, self.seed = np.unique(records["run.seed"].to_numpy(), return_inverse=True)
        self.records, self.row = records, rows.get_indexer(records["row"])
        self.shape = len(rows), len(seeds)

    def values(self, column: str) -> NDArray[np.float64]:
        """Seeds of which no row has a number are left out; of twins the first number counts."""
        numbers = self.records[column].to_numpy(dtype=float)
        known = np.flatnonzero(~np.isnan(numbers))[::-1]  # the last that is written stays
        found = np.full(self.shape, np.nan)
        found[self.row[known], self.seed[known]] = numbers[known]
        return found[:, ~np.isnan(found).all(axis=0)]


def counts_images(name: str) -> bool:
    """Whether a metric is a share of counted images, in which seeds may agree by chance."""
    metric = find(name)
    return metric is not None and (metric.home, metric.units) == ("sample_quality", Units.SHARE)


def _counting_errors(
    name: str, table: pd.DataFrame, completed: pd.DataFrame
) -> NDArray[np.float64]:
    """The standard error of each row's mean by its binomial errors; 0 where nothing is counted."""
    column = f"metrics.{name}_se"
    if not counts_images(name) or column not in completed:
        return np.zeros(len(table))
    squares = (completed[column].astype(float) ** 2).groupby(completed["row"])
    least = np.sqrt(squares.mean() / squares.count())
    return np.asarray(least.reindex(table.index).fillna(0.0), dtype=np.float64)


def _cost(groups: Any, lines: pd.DataFrame, found: Mapping[str, Record]) -> pd.DataFrame:
    searches = [found.get(search) if search else None for search in lines["search"]]
    cost = pd.DataFrame(index=lines.index)
    cost["tuning_runs"] = [search["cost"]["runs"] if search else 0 for search in searches]
    cost["tuning_seconds"] = [search["cost"]["seconds"] if search else 0.0 for search in searches]
    cost["runs"] = groups["id"].count() + cost["tuning_runs"]
    for name in ("cost.seconds", "cost.images_per_second", "cost.peak_memory_bytes"):
        how = {"cost.seconds": "sum", "cost.images_per_second": "mean"}.get(name, "max")
        column = groups[name].agg(how) if name in lines else math.nan
        cost[name.removeprefix("cost.")] = column
    cost["seconds"] = cost["seconds"].fillna(0.0).astype(float) + cost["tuning_seconds"]
    return cost
