"""Candidate records against baseline records: better, same, worse or not measured.

A test over seeds comes first, a threshold of relevance second: a difference counts when chance
does not explain it and a reader would care. Reads records alone and trains nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bench.errors import RequestError
from bench.grid import SCHEMA, nearest
from bench.records import COMPLETED, Record, Store, frame
from bench.report.captions import better
from bench.report.tables import rows, tested
from bench.report.ties import holm

Verdict = Literal["better", "same", "worse", "not measured"]
VERDICTS: tuple[Verdict, ...] = ("worse", "not measured", "better", "same")
Key = tuple[str, str, str]
"""A row's data set, model and decoder, as the report calls them."""

ALPHA = 0.01
"""The chance that unchanged code is called worse anywhere: one false alarm in a hundred."""

COMPLETED_SEEDS = "completed seeds"
EVERY_METRIC = "every metric"


@dataclass(frozen=True)
class Threshold:
    """The smallest difference of means that matters, in `unit`s."""

    value: float
    unit: Literal["of the metric", "of the baseline", "per dimension"]

    def of(self, baseline: float, dimensions: int) -> float:
        """The threshold in the metric's own units."""
        scale = {
            "of the metric": 1.0,
            "of the baseline": abs(baseline),
            "per dimension": float(dimensions),
        }
        return self.value * scale[self.unit]


THRESHOLDS = (
    # 0.16 nats of an MNIST image, the last digit that papers print; with ten latents in use a KL
    # weight of 1.05 moves the distortion by 0.24 (½ ln 1.05 a latent).
    (r"neg_log_p|neg_log_p_fitted_sigma|distortion|iwae_\d+", Threshold(2e-4, "per dimension")),
    # The same, 2e-4 / ln 2.
    (r"bits_per_dim", Threshold(3e-4, "of the metric")),
    # Half a percentage point of coverage; one of manifold coverage.
    (r"calibration_error", Threshold(0.005, "of the metric")),
    (r"(precision|recall)(_\w+)?", Threshold(0.01, "of the metric")),
    # Distances of a few thousand samples scatter by percents.
    (r"(fid|kid|fd|kd)(_\w+)?", Threshold(0.02, "of the baseline")),
    (r".*", Threshold(0.01, "of the baseline")),
)
"""What matters by default: the first pattern that fits a metric's whole name."""


def default_threshold(metric: str) -> Threshold:
    return next(kept for pattern, kept in THRESHOLDS if re.fullmatch(pattern, metric))


def parse_threshold(text: str) -> tuple[str, Threshold]:
    """`METRIC=VALUE` in the metric's own units, or `METRIC=VALUE%` of the baseline's mean.

    Raises:
        RequestError: neither of the two, or a negative value.
    """
    metric, equals, value = text.partition("=")
    number = re.fullmatch(r"(\d+(?:\.\d*)?(?:e-?\d+)?)(%?)", value)
    if not metric or not equals or number is None:
        raise RequestError(
            f"--threshold {text}: expected METRIC=VALUE, as bits_per_dim=0.001 or mse=2%"
        )
    if number[2]:
        return metric, Threshold(float(number[1]) / 100, "of the baseline")
    return metric, Threshold(float(number[1]), "of the metric")


# -- what a folder holds -----------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """Everything of a Run but its seed: which seeds have a record, and what they measured.

    `metrics` maps a name to the values of completed seeds; `settings` is what must agree before
    numbers compare; `dimensions` are those of an image.
    """

    key: Key
    seeds: frozenset[int]
    completed: frozenset[int]
    metrics: Mapping[str, Mapping[int, float]]
    settings: Mapping[str, Any]
    dimensions: int


@dataclass(frozen=True)
class Side:
    """One folder of results: its rows, and the commits, versions and devices that made it."""

    path: Path
    rows: Mapping[Key, Row]
    made_by: tuple[str, ...]


def read(path: Path) -> Side:
    """The test runs under `results/<grid>`, or under its parent where that holds one grid.

    Raises:
        RequestError: no such folder or several grids in it; a record that is torn, edited or of
            another schema; one row under several settings.
    """
    store = Store(_grid_folder(path))
    records = {record["id"]: record for record in store.records()}
    _check_whole(path, store, records)
    table = frame(records.values())
    if table.empty or tested(table).empty:
        return Side(path, {}, ())
    searches = {search["id"]: search for search in store.searches()}
    lines = rows(table, list(searches.values()))
    found = {}
    for line in lines.to_dict("records"):
        if line["ids"]:  # a search that found no value left no runs
            key = (line["dataset"], line["model"], line["entry"])
            found[key] = _row(key, [records[identity] for identity in line["ids"]], searches)
    _check_one_protocol(path, found.values())
    makers = (_maker(record["environment"]) for record in records.values())
    return Side(path, found, tuple(dict.fromkeys(makers)))


def _grid_folder(path: Path) -> Path:
    if (path / "runs").is_dir():
        return path
    grids = sorted(folder.parent for folder in path.glob("*/runs"))
    if len(grids) == 1:
        return grids[0]
    found = f"several grids ({', '.join(g.name for g in grids)}); name one" if grids else "no runs"
    raise RequestError(f"{path}: expected a grid's folder of results, found {found}")


def _check_whole(path: Path, store: Store, records: Mapping[str, Record]) -> None:
    # A record set aside, now or by an earlier reader, must not make the gate quietly smaller.
    lost = sorted({file.parent.name for file in store.runs.glob("*/record.json*")} - set(records))
    if lost:
        raise RequestError(
            f"{path}: {len(lost)} of its records torn or edited ({', '.join(lost)}); restore "
            "them, or run the grid again"
        )
    for record in records.values():
        if record["schema"] != SCHEMA:
            raise RequestError(
                f"{path}: record {record['id']} has schema {record['schema']}, this version reads "
                f"{SCHEMA}; make these records anew"
            )


def _row(key: Key, records: Sequence[Record], searches: Mapping[str, Record]) -> Row:
    completed = {r["run"]["seed"]: r for r in records if r["status"] == COMPLETED}
    names = dict.fromkeys(name for record in completed.values() for name in record["metrics"])
    settings = _settings(records, list(completed.values()), searches)
    return Row(
        key=key,
        seeds=frozenset(record["run"]["seed"] for record in records),
        completed=frozenset(completed),
        metrics={
            name: {s: r["metrics"][name] for s, r in completed.items() if name in r["metrics"]}
            for name in names
        },
        settings=settings,
        dimensions=settings.get("protocol.likelihood.dimensions", 1),
    )


def _settings(
    records: Sequence[Record], completed: Sequence[Record], searches: Mapping[str, Record]
) -> dict[str, Any]:
    run, selection = records[0]["run"], records[0]["protocol"]["selection"]
    search = searches.get(selection.get("search", ""))
    classes = {record["environment"].get("device_class") for record in records}
    decided = {
        "data content": run["content"],
        "split_seed": run["split_seed"],
        "training": run["training"],
        "evaluation": run["evaluation"],
        "device class": " and ".join(sorted(map(str, classes))),
        "selection": selection["rule"],
        "search": {"option": search["option"], **search["search"]} if search else {},
    }
    stated = [
        {key: value for key, value in record["protocol"].items() if key != "selection"}
        for record in completed
    ]
    return {**_flat(decided), **_agreed([_flat({"protocol": one}) for one in stated])}


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {name: value}
    inner = (_flat(part, f"{name}.{key}" if name else key) for key, part in value.items())
    return {key: part for parts in inner for key, part in parts.items()}


def _agreed(statements: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all of a row's runs state alike; a seed is no protocol."""
    if not statements:
        return {}
    return {
        key: value
        for key, value in statements[0].items()
        if not key.endswith(".seed") and all(one.get(key) == value for one in statements)
    }


def _check_one_protocol(path: Path, rows: Iterable[Row]) -> None:
    values: dict[str, set[str]] = {}
    for row in rows:
        for key, value in row.settings.items():
            if key.startswith(("training.", "evaluation.")):
                values.setdefault(key, set()).add(_shown(value))
    several = [f"{key} {' and '.join(sorted(v))}" for key, v in values.items() if len(v) > 1]
    if several:
        raise RequestError(
            f"{path}: holds runs under several settings ({', '.join(several)}); give each its "
            "own --results folder"
        )


def _maker(environment: Mapping[str, Any]) -> str:
    commit = environment.get("commit")
    versions = environment.get("versions", {})
    return ", ".join(
        str(part)
        for part in (
            f"commit {commit[:12]}{' with changes' if environment.get('dirty') else ''}"
            if commit
            else "no commit known",
            f"torch {versions['torch']}" if "torch" in versions else None,
            environment.get("device"),
            environment.get("precision"),
        )
        if part
    )


# -- protocols ---------------------------------------------------------------------------------


def differences(baseline: Row, candidate: Row) -> Iterator[str]:
    """What keeps two rows' numbers from comparing, as `training.epochs 5 against 6`.

    What one side states of its protocol and the other does not yet know is no difference.
    """
    ours, theirs = candidate.settings, baseline.settings
    for key in dict.fromkeys([*theirs, *ours]):
        if key.startswith("protocol.") and not (key in ours and key in theirs):
            continue
        if ours.get(key) != theirs.get(key):
            yield f"{key} {_shown(theirs.get(key))} against {_shown(ours.get(key))}"


def _shown(value: Any) -> str:
    if value is None or value in ("", [], ()):
        return "none"
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text[:8] if re.fullmatch(r"[0-9a-f]{16,}", text) else text


# -- tests -------------------------------------------------------------------------------------


def one_sided(change: float, error: float, freedom: float) -> tuple[float, float]:
    """p values of Student's t against "no increase" and against "no decrease".

    An error of zero is certainty: seeds that all agree leave nothing to chance.
    """
    if error == 0:
        statistic = math.copysign(math.inf, change) if change else 0.0
    else:
        statistic = change / error
    return float(stats.t.sf(statistic, freedom)), float(stats.t.cdf(statistic, freedom))


def paired(baseline: NDArray[np.float64], candidate: NDArray[np.float64]) -> tuple[float, float]:
    """`one_sided` of the changes seed by seed, at least two."""
    changes = candidate - baseline
    count = len(changes)
    return one_sided(changes.mean(), changes.std(ddof=1) / math.sqrt(count), count - 1)


def welch(baseline: NDArray[np.float64], candidate: NDArray[np.float64]) -> tuple[float, float]:
    """`one_sided` of the change of the mean; variances may differ (Welch 1947), two values each."""
    parts = [values.var(ddof=1) / len(values) for values in (baseline, candidate)]
    total = float(sum(parts))
    freedom = float(len(baseline) + len(candidate) - 2)
    if total:
        counts = (len(baseline), len(candidate))
        shares = ((part / total) ** 2 / (n - 1) for part, n in zip(parts, counts, strict=True))
        freedom = 1 / sum(shares)
    return one_sided(candidate.mean() - baseline.mean(), math.sqrt(total), freedom)


# -- the gate ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """One metric of one row, in its own units.

    `baseline` and `candidate` are means over seeds; `p` is one-sided in the direction of the
    change, Holm-corrected over all comparisons; `basis` says how the verdict came about.
    """

    dataset: str
    model: str
    decoder: str
    metric: str
    verdict: Verdict
    basis: str
    baseline: float | None = None
    candidate: float | None = None
    threshold: float | None = None
    p: float | None = None

    @property
    def change(self) -> float | None:
        """Candidate less baseline."""
        if self.baseline is None or self.candidate is None:
            return None
        return self.candidate - self.baseline


@dataclass(frozen=True)
class Gate:
    """All comparisons of a candidate with a baseline; `across` names accepted differences."""

    comparisons: tuple[Comparison, ...]
    alpha: float
    across: tuple[str, ...] = ()

    def count(self, verdict: Verdict) -> int:
        return sum(one.verdict == verdict for one in self.comparisons)

    @property
    def passed(self) -> bool:
        """Something was measured, nothing is worse, and nothing the baseline has is missing."""
        measured = any(one.metric != COMPLETED_SEEDS for one in self.comparisons)
        return measured and not self.count("worse") and not self.count("not measured")

    def as_dict(self) -> dict[str, Any]:
        """The gate as JSON holds it."""
        comparisons = [{**asdict(one), "change": one.change} for one in self.comparisons]
        return {
            "passed": self.passed,
            "alpha": self.alpha,
            "across": list(self.across),
            "comparisons": comparisons,
        }

    def summary(self) -> str:
        """The verdicts counted, and what decided them."""
        counts = ", ".join(f"{self.count(verdict)} {verdict}" for verdict in VERDICTS)
        tests = [one.basis.partition(",")[0] for one in self.comparisons if one.p is not None]
        told = " and ".join(dict.fromkeys(tests)) or "no test"
        nothing = "" if self.comparisons else "nothing was measured; "
        return (
            f"{nothing}{len(self.comparisons)} comparisons: {counts}; {told} over seeds, "
            f"one-sided, Holm-corrected, level {self.alpha:g}; then the threshold"
        )


@dataclass(frozen=True)
class _Measured:
    """A comparison before its verdict; `p` are the raw ones of worse and of better."""

    comparison: Comparison
    worsening: float
    p: tuple[float, float] | None


def compare(
    baseline: Side,
    candidate: Side,
    *,
    alpha: float = ALPHA,
    thresholds: Mapping[str, Threshold] | None = None,
    metrics: Sequence[str] = (),
    across: bool = False,
) -> Gate:
    """The verdict on every metric with a direction that the baseline has, row by row.

    One-sided t-tests, paired where both sides ran the same seeds on the same data, else Welch's;
    Holm's correction over all of them keeps the chance of a false `worse` anywhere below
    `alpha`, and that of a false `better` too. What is significant must also exceed its threshold.
    A single seed allows no test: the threshold decides alone, and `basis` says so. A larger share
    of seeds that diverged or failed is worse; fewer seeds than the baseline's are not measured.

    Arguments:
        thresholds: by metric; others have `default_threshold`.
        metrics: compare these alone; none means all.
        across: accept differing protocols, data and device classes, and name them.

    Raises:
        RequestError: a metric that the baseline lacks, or differences without `across`.
    """
    chosen = thresholds or {}
    _check_known(baseline, metrics, "--metric")
    _check_known(baseline, list(chosen), "--threshold")
    pairs = [(row, candidate.rows.get(key)) for key, row in baseline.rows.items()]
    differing = tuple(
        dict.fromkeys(text for row, other in pairs if other for text in differences(row, other))
    )
    if differing and not across:
        raise RequestError(
            f"{baseline.path} and {candidate.path} do not compare: {'; '.join(differing)} "
            "(baseline against candidate); make a baseline under this protocol, or allow it "
            "with --across"
        )
    certain: list[Comparison] = []
    measured: list[_Measured] = []
    for row, other in pairs:
        if other is None:
            basis = "the candidate has no such row"
            certain.append(Comparison(*row.key, EVERY_METRIC, "not measured", basis))
            continue
        certain.append(_seeds(row, other))
        for metric in metrics or row.metrics:
            if metric not in row.metrics or not _direction(metric):
                continue
            if metric not in other.metrics:
                basis = "no completed seed of the candidate has it"
                mean = fmean(row.metrics[metric].values())
                certain.append(Comparison(*row.key, metric, "not measured", basis, mean))
            else:
                threshold = chosen.get(metric) or default_threshold(metric)
                measured.append(_measure(row, other, metric, threshold))
    verdicts = _in_order([*certain, *_judge(measured, alpha)], baseline)
    return Gate(tuple(verdicts), alpha, differing)


def _direction(metric: str) -> Literal["lower", "higher"] | None:
    # A standard error beside a metric says how well it is known, not how good it is.
    return None if metric.endswith("_se") else better(metric)


def _check_known(baseline: Side, asked: Sequence[str], option: str) -> None:
    known = dict.fromkeys(
        metric for row in baseline.rows.values() for metric in row.metrics if _direction(metric)
    )
    for metric in asked:
        if baseline.rows and metric not in known:
            raise RequestError(
                f"{option} {metric}: no metric of {baseline.path} that has a better direction; "
                f"{nearest(metric, list(known))}"
            )


def _seeds(row: Row, other: Row) -> Comparison:
    shares = [len(side.completed) / len(side.seeds) for side in (row, other)]
    verdict: Verdict = "same"
    basis = "no test"
    if len(other.seeds) < len(row.seeds):
        verdict = "not measured"
        basis = f"{len(other.seeds)} seeds have a record, {len(row.seeds)} in the baseline"
    elif shares[1] != shares[0]:
        verdict = "worse" if shares[1] < shares[0] else "better"
    counts = (float(len(side.completed)) for side in (row, other))
    return Comparison(*row.key, COMPLETED_SEEDS, verdict, basis, *counts)


def _measure(row: Row, other: Row, metric: str, threshold: Threshold) -> _Measured:
    old, new = row.metrics[metric], other.metrics[metric]
    same_data = row.settings["data content"] == other.settings["data content"]
    common = sorted(set(old) & set(new))
    p: tuple[float, float] | None = None
    if row.seeds == other.seeds and same_data and len(common) > 1:
        old, new = ({seed: side[seed] for seed in common} for side in (old, new))
        before, after = (np.array([side[seed] for seed in common]) for side in (old, new))
        p, basis = paired(before, after), f"paired t, n {len(common)}"
    elif min(len(old), len(new)) > 1:
        before, after = (np.array(list(side.values())) for side in (old, new))
        p, basis = welch(before, after), f"Welch t, n {len(old)} and {len(new)}"
    else:
        basis = "threshold alone: one seed allows no test"
    means = fmean(old.values()), fmean(new.values())
    limit = threshold.of(means[0], row.dimensions)
    comparison = Comparison(*row.key, metric, "same", basis, *means, limit)
    if _direction(metric) == "lower":
        return _Measured(comparison, means[1] - means[0], p)
    return _Measured(comparison, means[0] - means[1], p and p[::-1])


def _judge(measured: Sequence[_Measured], alpha: float) -> Iterator[Comparison]:
    raw = np.array([one.p for one in measured if one.p is not None]).reshape(-1, 2)
    corrected = iter(np.stack([holm(raw[:, 0]), holm(raw[:, 1])], axis=1).tolist())
    for one in measured:
        towards = 0 if one.worsening > 0 else 1
        p = None if one.p is None else next(corrected)[towards]
        assert one.comparison.threshold is not None
        relevant = abs(one.worsening) > one.comparison.threshold
        verdict: Verdict = "same"
        if relevant and (p is None or p <= alpha):
            verdict = ("worse", "better")[towards]
        yield replace(one.comparison, verdict=verdict, p=p)


def _in_order(comparisons: Sequence[Comparison], baseline: Side) -> list[Comparison]:
    places = {key: place for place, key in enumerate(baseline.rows)}
    return sorted(comparisons, key=lambda one: places[one.dataset, one.model, one.decoder])
