"""Candidate records against baseline records: better, same, worse or not measured.

A test over seeds comes first, a threshold of relevance second: a difference counts when chance
does not explain it and a reader would care. It reads records only and trains nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any, Literal

import numpy as np

from bench.errors import RequestError, nearest
from bench.metric import Threshold
from bench.metrics import better
from bench.metrics import threshold as default_threshold
from bench.records.rows import counts_images
from bench.regression.results import ResultRow, ResultSet, differences
from bench.significance import holm, paired, welch

Verdict = Literal["better", "same", "worse", "not measured"]
VERDICTS: tuple[Verdict, ...] = ("worse", "not measured", "better", "same")

ALPHA = 0.01
"""The chance that unchanged code is called worse anywhere: one false alarm in a hundred."""

COMPLETED_SEEDS = "completed seeds"
EVERY_METRIC = "every metric"


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
class Comparisons:
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
        tested = " and ".join(dict.fromkeys(tests)) or "no test"
        nothing = "" if self.comparisons else "nothing was measured; "
        return (
            f"{nothing}{len(self.comparisons)} comparisons: {counts}; {tested} over seeds, "
            f"one-sided, Holm-corrected, level {self.alpha:g}; then the threshold"
        )


@dataclass(frozen=True)
class _Measured:
    """A comparison before its verdict; `p` are the raw ones of worse and of better."""

    comparison: Comparison
    worsening: float
    p: tuple[float, float] | None


def compare(
    baseline: ResultSet,
    candidate: ResultSet,
    *,
    alpha: float = ALPHA,
    thresholds: Mapping[str, Threshold] | None = None,
    metrics: Sequence[str] = (),
    across: bool = False,
) -> Comparisons:
    """The verdict on every metric with a direction that the baseline has, row by row.

    One-sided t-tests, paired where both sides ran the same seeds on the same data, else Welch's;
    Holm's correction over all of them keeps the chance of a false `worse` anywhere below
    `alpha`, and that of a false `better` too. What is significant must also exceed its threshold.
    A single seed allows no test: the threshold decides alone, and `basis` says so. A larger share
    of seeds that diverged or failed is worse; fewer seeds than the baseline's are not measured.

    Arguments:
        thresholds: by metric; others have the catalogue's.
        metrics: compare these alone; none means all.
        across: accept differing protocols, data and device classes, and name them.

    Raises:
        RequestError: a metric that the baseline lacks, records that both sides hold, or
            differences without `across`.
    """
    chosen = thresholds or {}
    _check_known(baseline, metrics, "--metric")
    _check_known(baseline, list(chosen), "--threshold")
    _check_run_anew(baseline, candidate)
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
            certain.append(Comparison(*row.label, EVERY_METRIC, "not measured", basis))
            continue
        certain.append(_seeds(row, other))
        for metric in metrics or row.metrics:
            if metric not in row.metrics or not better(metric):
                continue
            new = other.metrics.get(metric, {})
            lacking = len(other.completed) - len(new)
            if not new or lacking > len(row.completed) - len(row.metrics[metric]):
                basis = (
                    f"{len(new)} of the candidate's {len(other.completed)} completed seeds have it"
                )
                mean = fmean(row.metrics[metric].values())
                certain.append(Comparison(*row.label, metric, "not measured", basis, mean))
            else:
                threshold = chosen.get(metric) or default_threshold(metric)
                measured.append(_measure(row, other, metric, threshold))
    verdicts = _in_order([*certain, *_judge(measured, alpha)], baseline)
    return Comparisons(tuple(verdicts), alpha, differing)


def _check_run_anew(baseline: ResultSet, candidate: ResultSet) -> None:
    # No two runs take the same time to the microsecond.
    shared = [
        cost
        for key, row in candidate.rows.items()
        if key in baseline.rows
        for seed, cost in row.costs.items()
        if "finished" in cost and baseline.rows[key].costs.get(seed) == cost
    ]
    if shared:
        count = sum(len(row.seeds) for row in candidate.rows.values())
        raise RequestError(
            f"{candidate.path}: {len(shared)} of its {count} records are the baseline's own, so "
            "that nothing was run there; run the grid with another --results folder"
        )


def _check_known(baseline: ResultSet, asked: Sequence[str], option: str) -> None:
    known = dict.fromkeys(
        metric for row in baseline.rows.values() for metric in row.metrics if better(metric)
    )
    for metric in asked:
        if baseline.rows and metric not in known:
            raise RequestError(
                f"{option} {metric}: no metric of {baseline.path} that has a better direction; "
                f"{nearest(metric, list(known))}"
            )


def _seeds(row: ResultRow, other: ResultRow) -> Comparison:
    shares = [len(side.completed) / len(side.seeds) for side in (row, other)]
    verdict: Verdict = "same"
    basis = "no test"
    if len(other.seeds) < len(row.seeds):
        verdict = "not measured"
        basis = f"{len(other.seeds)} seeds have a record, {len(row.seeds)} in the baseline"
    elif shares[1] != shares[0]:
        verdict = "worse" if shares[1] < shares[0] else "better"
    counts = (float(len(side.completed)) for side in (row, other))
    return Comparison(*row.label, COMPLETED_SEEDS, verdict, basis, *counts)


def _measure(row: ResultRow, other: ResultRow, metric: str, threshold: Threshold) -> _Measured:
    old, new = row.metrics[metric], other.metrics[metric]
    same_data = row.settings["data content"] == other.settings["data content"]
    common = sorted(set(old) & set(new))
    p: tuple[float, float] | None = None
    if row.seeds == other.seeds and same_data and len(common) > 1:
        old, new = ({seed: side[seed] for seed in common} for side in (old, new))
        before, after = (np.array([side[seed] for seed in common]) for side in (old, new))
        floor = counting_error(metric, row, other, common)
        p, basis = paired(before, after, floor), f"paired t, n {len(common)}"
    elif min(len(old), len(new)) > 1:
        before, after = (np.array(list(side.values())) for side in (old, new))
        floor = counting_error(metric, row, other)
        p, basis = welch(before, after, floor), f"Welch t, n {len(old)} and {len(new)}"
    else:
        basis = "threshold alone: one seed allows no test"
    means = fmean(old.values()), fmean(new.values())
    limit = threshold.of(means[0], row.dimensions)
    comparison = Comparison(*row.label, metric, "same", basis, *means, limit)
    if better(metric) == "lower":
        return _Measured(comparison, means[1] - means[0], p)
    return _Measured(comparison, means[0] - means[1], p and p[::-1])


def counting_error(
    metric: str, row: ResultRow, other: ResultRow, seeds: Collection[int] | None = None
) -> float:
    """The least standard error of a change of means where a metric counts images, else 0.

    Precision and recall are multiples of 1/N: a few seeds may well change by the very same step,
    whose scatter is no measure of chance. Their binomial standard errors are.

    Arguments:
        seeds: those that are compared; None means all of each side.
    """
    if not counts_images(metric):
        return 0.0
    total = 0.0
    for side in (row, other):
        errors = side.metrics.get(f"{metric}_se", {})
        squares = [error**2 for seed, error in errors.items() if seeds is None or seed in seeds]
        total += fmean(squares) / len(squares) if squares else 0.0
    return math.sqrt(total)


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


def _in_order(comparisons: Sequence[Comparison], baseline: ResultSet) -> list[Comparison]:
    places = {row.label: place for place, row in enumerate(baseline.rows.values())}
    return sorted(comparisons, key=lambda one: places[one.dataset, one.model, one.decoder])
