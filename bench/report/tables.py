"""The table: one line for everything of a Run but its seed; every format renders this frame."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic import ValidationError

from baselines.specs import DECODERS, MODELS, Spec
from bench.errors import RequestError
from bench.grid import describe_spec, nearest
from bench.records import COMPLETED, DIVERGED, FAILED, Record
from bench.report.captions import better, caption, plain
from bench.report.published import TUNED, lookup
from bench.report.ties import best_rows

if TYPE_CHECKING:
    import pandas as pd

CONFIDENCE = 0.95
TEXT_COLUMNS = ("dataset", "model", "decoder")
DISTANCE = re.compile(r"(?:fid|fd_\w+?)(?:_sampled|_reconstruction)?")
METRICS = (
    r"neg_log_p",
    r"bits_per_dim",
    r"iwae_\d+",
    r"fid|fd_\w+(?<!_sampled)(?<!_reconstruction)",
    r"mse",
    r"calibration_error",
    r"sigma",
)
"""The metrics that a table shows by default, in this order; the frame and the CSV hold them all."""
OWN_UNITS = re.compile(r"neg_log_p|distortion|iwae_\d+")
"""Metrics of p(x|z) as the decoder has it: of a density, or of a probability of the 8-bit image."""
DISCRETE = frozenset({"categorical", "bitwise_categorical", "logistic_mixture"})
"""Decoders that give a probability, for records whose protocol does not tell."""
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

# What a row's settings are compared within: another data set has another content anyway.
_WITHIN = {
    "run.content": "run.dataset",
    "run.evaluation.features.sha256": "run.evaluation.features.name",
}
_IMPLIED = {"run.evaluation.split", "run.evaluation.features", "run.evaluation.features.metric"}
_SOURCE = "run.evaluation.features.source"

Line = Mapping[str, Any]


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
        return _lines(self.frame)

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
        return tuple(column for column in self.available if _place(column) < len(METRICS))


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
    lines = rows(frame, searches, grid)
    table = Table(grid, lines, caption(tests, searches, lines, expected), tests, tuple(columns))
    possible = [*table.available, *FIGURES]
    for column in columns:
        if column not in possible:
            raise RequestError(f"--columns {column}: {nearest(column, possible)}")
    return table


def tested(frame: pd.DataFrame) -> pd.DataFrame:
    """The records that belong in a table; tuning trials score the validation split."""
    return frame[_column(frame, "run.evaluation.split") == "test"]


def rows(frame: pd.DataFrame, searches: Sequence[Record], grid: str = "") -> pd.DataFrame:
    """One line for everything of a Run but its seed, from a frame of records.

    Columns: `dataset`, `model`, `decoder` (labels; settings that differ within the frame stand in
    the decoder's, so that unlike runs never share a line), `n` runs completed, `diverged`,
    `failed`; each metric's mean over completed seeds and `<metric>_half_width` of its 95 %
    Student-t interval (NaN below two seeds); `published_neg_log_p`, `published_fid`, the
    `_difference` of each (ours less the paper's), `published_table`; `runs` and `seconds` with the
    search included, `tuning_runs` and `tuning_seconds` of it; `images_per_second`,
    `peak_memory_bytes`; `entry`, the decoder without the value that a search chose; `discrete`,
    whether -log p is a probability; `best`, the metrics in which no row of the same data set and
    model is better; `tested`, those in which a test over seeds had a say; `ids` of the records by
    seed; `notes`. Units as in the records.
    """
    import pandas as pd

    members = _members(tested(frame), searches)
    groups = members.groupby("row", sort=False)
    lines = groups.first()
    found = {search["id"]: search for search in searches}
    table = pd.DataFrame(index=lines.index)
    table["dataset"] = lines["run.dataset"]
    table["model"] = [_label(MODELS, "run.model", line) for line in _lines(lines)]
    table["decoder"] = _decoder_labels(table, lines, found)
    for name, status in (("n", COMPLETED), ("diverged", DIVERGED), ("failed", FAILED)):
        table[name] = (members["status"] == status).groupby(members["row"], sort=False).sum()
    table = table.join(_statistics(members))
    table = table.join(_published(table, lines, grid))
    table = table.join(_cost(groups, lines, found))
    table["entry"] = _entries(table, lines)
    table["discrete"] = _discrete(lines)
    table["best"], table["tested"] = _best(table, lines, members)
    known = members.dropna(subset="id")
    ids = known["id"].groupby(known["row"], sort=False).agg(tuple)
    table["ids"] = [ids.get(row, ()) for row in table.index]
    table["notes"] = _notes(table, lines)
    places = list(map(_order, _lines(table), _lines(lines)))
    order = sorted(range(len(table)), key=places.__getitem__)
    return table.iloc[order].reset_index(drop=True)


def natural(text: str) -> list[tuple[float, str]]:
    """A key that sorts the numbers within texts by value: `beta=0.01` before `beta=1e+01`."""
    parts = re.split(r"(\d+(?:\.\d+)?(?:e[+-]\d+)?)", text)
    # Text and numbers alternate, so only like meets like.
    return [(float(part), "") if index % 2 else (0, part) for index, part in enumerate(parts)]


# -- which records make a line -----------------------------------------------------------------


def _members(tests: pd.DataFrame, searches: Sequence[Record]) -> pd.DataFrame:
    """The test records with the `row` that each belongs to, by seed.

    A search's row is the runs that it lists, whatever made them; a search without any has a line
    with neither id nor status.
    """
    import pandas as pd

    listed = pd.DataFrame(
        sorted({(search["id"], run) for search in searches for run in search["runs"]}),
        columns=["search", "id"],
    ).astype(object)
    rule = _column(tests, "protocol.selection.rule")
    tuned = (rule == "tuned") | (rule.isna() & tests["id"].isin(listed["id"]))
    by_hand = tests[~tuned]
    found = listed.merge(tests, on="id")
    # A final run whose search's summary is missing is still a tuned run, of that search.
    orphans = tests[tuned & ~tests["id"].isin(listed["id"])]
    named = _column(orphans, "protocol.selection.search")
    orphans = orphans.assign(search=named.astype(object).fillna("unknown"))
    bare = pd.json_normalize(
        [
            {"search": s["id"], "run": {key: s[key] for key in ("dataset", "model", "decoder")}}
            for s in {s["id"]: s for s in searches}.values()
            if s["id"] not in set(found["search"])
        ]
    )
    keys = sorted(
        column
        for column in tests
        if column.startswith("run.") and column not in ("run.seed", _SOURCE)
    )
    numbers = by_hand[keys].astype(str).groupby(keys, sort=False, dropna=False).ngroup()
    parts = [
        by_hand.assign(search="", row=numbers.map("by hand {}".format)),
        *(part.assign(row="search " + part["search"].astype(str)) for part in (found, orphans)),
        *([bare.assign(row="search " + bare["search"])] if len(bare) else []),
    ]
    members = pd.concat([part.astype(object) for part in parts if len(part)], ignore_index=True)
    return members.infer_objects().sort_values("run.seed", kind="stable", ignore_index=True)


# -- labels ------------------------------------------------------------------------------------


def _label(registry: Mapping[str, type[Spec]], prefix: str, line: Line) -> str:
    spec = _spec(registry, prefix, line)
    if spec is not None:
        return describe_spec(spec)
    # Written by a version, or with a decoder of the user's, that is not here: say all it holds.
    options = {
        column.removeprefix(f"{prefix}."): value
        for column, value in line.items()
        if column.startswith(f"{prefix}.") and not missing(value)
    }
    name = options.pop("name")
    inside = ", ".join(f"{key}={plain(value)}" for key, value in options.items())
    return f"{name} ({inside})" if inside else str(name)


def _spec(registry: Mapping[str, type[Spec]], prefix: str, line: Line) -> Spec | None:
    kind = registry.get(line[f"{prefix}.name"])
    if kind is None:
        return None
    # A frame has NaN for None.
    keys = [key for key in kind.model_fields if f"{prefix}.{key}" in line]
    values = {key: line[f"{prefix}.{key}"] for key in keys}
    try:
        return kind.model_validate({k: None if missing(v) else v for k, v in values.items()})
    except ValidationError:
        return None


def _decoder_labels(
    table: pd.DataFrame, lines: pd.DataFrame, found: Mapping[str, Record]
) -> list[str]:
    """What tells a row from every other of its data set and model."""
    import pandas as pd

    labels = [
        _tuned_label(line, found.get(line["search"]))
        if line["search"]
        else _label(DECODERS, "run.decoder", line)
        for line in _lines(lines)
    ]
    settings = _differing_settings(lines)
    labels = [
        f"{label} [{extra}]" if extra else label
        for label, extra in zip(labels, settings, strict=True)
    ]
    identity = pd.DataFrame({"dataset": table["dataset"], "model": table["model"], "of": labels})
    twins = identity.duplicated(keep=False)
    # Two searches may choose the same value: their ids tell them apart.
    return [
        f"{label} [{row}]" if twin else label
        for label, row, twin in zip(labels, lines.index, twins, strict=True)
    ]


def _entries(table: pd.DataFrame, lines: pd.DataFrame) -> list[str]:
    """The decoder's label without the value that a search chose, where that is still unique."""
    short = [
        re.sub(rf"\({TUNED}, [^,)]+", f"({TUNED}", label) if search else label
        for label, search in zip(table["decoder"], lines["search"], strict=True)
    ]
    twins = table[["dataset", "model"]].assign(of=short).duplicated(keep=False)
    return [
        label if twin else brief
        for label, brief, twin in zip(table["decoder"], short, twins, strict=True)
    ]


def _tuned_label(line: Line, search: Record | None) -> str:
    option = search["option"] if search else "beta"
    symbol = {"beta": "β"}.get(option, option)
    value = search["chosen"] if search else line.get(f"run.decoder.{option}")
    chosen = "no value worked" if missing(value) else f"{symbol}={plain(value)}"
    label = _label(DECODERS, "run.decoder", line)
    name, _, inside = label.partition(" (")
    others = [part for part in inside.removesuffix(")").split(", ") if part]
    others = [part for part in others if not part.startswith(f"{option}=")]
    return f"{name} ({', '.join([TUNED, chosen, *others])})"


def _differing_settings(lines: pd.DataFrame) -> list[str]:
    """For each line the training and evaluation settings in which the lines differ."""
    measured = lines[lines["id"].notna()]
    settings = [
        column
        for column in lines
        if (
            column.startswith(("run.training.", "run.evaluation."))
            or column in ("run.content", "run.split_seed")
        )
        and column not in _IMPLIED | {_SOURCE}
    ]
    differing = []
    for column in settings:
        within = measured[_WITHIN[column]] if column in _WITHIN else measured["schema"]
        values = measured[column].groupby(within, dropna=False).nunique(dropna=False)
        if values.max() > 1:
            differing.append(column)
    return [
        ""
        if missing(line["id"])
        else ", ".join(f"{_setting_name(key)}={_setting(line[key])}" for key in differing)
        for line in _lines(lines)
    ]


def _setting_name(column: str) -> str:
    return re.sub(r"^run\.(training\.)?|\.name$", "", column)


def _setting(value: Any) -> str:
    # A hash is known by its first digits.
    text = "none" if missing(value) else plain(value)
    return text[:8] if re.fullmatch(r"[0-9a-f]{16,}", text) else text


def _order(row: Line, line: Line) -> tuple[Any, ...]:
    name = line["run.decoder.name"]
    place = list(DECODERS).index(name) if name in DECODERS else len(DECODERS)
    return (
        natural(row["dataset"]),
        natural(row["model"]),
        place,
        bool(line["search"]),
        natural(row["decoder"]),
    )


# -- numbers -----------------------------------------------------------------------------------


def _statistics(members: pd.DataFrame) -> pd.DataFrame:
    """Mean and half-width of every metric over the completed seeds of a row."""
    import numpy as np
    import pandas as pd
    from scipy.special import stdtrit  # scipy.stats takes most of a second to import

    completed = members[members["status"] == COMPLETED]
    # A standard error over images is no measure of the spread over seeds.
    names = [
        column.removeprefix("metrics.")
        for column in members
        if column.startswith("metrics.") and not column.endswith("_se")
    ]
    names.sort(key=lambda name: (_place(name), natural(name)))
    values = completed[[f"metrics.{name}" for name in names]].astype(float)
    values.columns = names
    groups = values.groupby(completed["row"], sort=False)
    mean, count = groups.mean(), groups.count()
    freedom = (count - 1).where(count > 1)
    quantile = stdtrit(freedom.to_numpy(), (1 + CONFIDENCE) / 2)
    half = groups.std(ddof=1) * quantile / np.sqrt(count)
    both = pd.concat([mean, half.add_suffix("_half_width")], axis=1)
    return both[[column for name in names for column in (name, f"{name}_half_width")]]


def _place(metric: str) -> int:
    matches = (index for index, shown in enumerate(METRICS) if re.fullmatch(shown, metric))
    return next(matches, len(METRICS))


def _discrete(lines: pd.DataFrame) -> pd.Series[Any]:
    units = _column(lines, "protocol.likelihood.units")
    stated = units.astype(object).str.contains("probability|8-bit", na=False)
    return stated | (units.isna() & lines["run.decoder.name"].isin(DISCRETE))


def _best(
    table: pd.DataFrame, lines: pd.DataFrame, members: pd.DataFrame
) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """The metrics in which each row is best or tied, and those whose group could be tested.

    Rows are compared within a data set, a model and an evaluation protocol; a probability is
    never compared with a density, and where there are densities only they can be best.
    """
    import numpy as np

    directions = {name: better(name) for name in table if f"{name}_half_width" in table}
    completed = members[members["status"] == COMPLETED]
    # The number of draws is in iwae_K's name and moves no other metric.
    apart = _IMPLIED | {"run.evaluation.iwae"}
    protocol = [c for c in lines if c.startswith("run.evaluation.") and c not in apart]
    protocol = [c for c in (*protocol, "run.content", "run.split_seed") if c in lines]
    keys = lines[protocol].astype(str).assign(dataset=table["dataset"], model=table["model"])
    numbers = keys.groupby(list(keys), sort=False, dropna=False).ngroup().to_numpy()
    groups = [np.flatnonzero(numbers == number) for number in range(numbers.max() + 1)]
    discrete = table["discrete"].to_numpy(dtype=bool)
    best: list[list[str]] = [[] for _ in range(len(table))]
    tested: list[list[str]] = [[] for _ in range(len(table))]
    for name, direction in directions.items():
        if direction is None:
            continue
        seeds = completed.pivot_table(f"metrics.{name}", "row", "run.seed", aggfunc="first")
        values = seeds.reindex(table.index).to_numpy(dtype=float)
        for group in groups:
            own = group
            if OWN_UNITS.fullmatch(name):
                densities = group[~discrete[group] & ~np.isnan(values[group]).all(axis=1)]
                own = densities if len(densities) else group
            if len(own) < 2:
                continue
            verdict = best_rows(values[own], direction)
            for row in own[verdict.best]:
                best[row].append(name)
            if verdict.tested:
                for row in own:
                    tested[row].append(name)
    return list(map(tuple, best)), list(map(tuple, tested))


def _cost(groups: Any, lines: pd.DataFrame, found: Mapping[str, Record]) -> pd.DataFrame:
    import pandas as pd

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


def _published(table: pd.DataFrame, lines: pd.DataFrame, grid: str) -> pd.DataFrame:
    """The paper's numbers; its FID only beside a distance that is FID too."""
    import pandas as pd

    has_fid = table["fid"].notna() if "fid" in table else pd.Series(False, index=table.index)
    values = []
    for line, fid in zip(_lines(lines), has_fid, strict=True):
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


# -- warnings ----------------------------------------------------------------------------------


def _notes(table: pd.DataFrame, lines: pd.DataFrame) -> list[tuple[Note, ...]]:
    distances = [
        column for column in table if DISTANCE.fullmatch(column) and f"{column}_half_width" in table
    ]
    return [
        tuple(_row_notes(row, line, distances))
        for row, line in zip(_lines(table), _lines(lines), strict=True)
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


# -- cells of a frame --------------------------------------------------------------------------


def _lines(frame: pd.DataFrame) -> list[Line]:
    return frame.to_dict("records")  # type: ignore[no-any-return]


def _column(frame: pd.DataFrame, name: str) -> pd.Series[Any]:
    import pandas as pd

    return frame[name] if name in frame else pd.Series(None, index=frame.index, dtype=object)


def missing(value: Any) -> bool:
    """Whether a cell holds nothing: None, NaN or pandas' NA."""
    import pandas as pd

    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))
