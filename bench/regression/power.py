"""What the gate can see: the smallest change that it finds, from the baseline's own scatter."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from scipy.special import ndtri

from bench.metric import Threshold
from bench.metrics import better, is_shown
from bench.metrics import threshold as default_threshold
from bench.regression.gate import ALPHA, counting_error
from bench.regression.results import ResultSet
from bench.significance import detectable

POWER = 0.8
"""The chance that a change of the size named is found."""


@dataclass(frozen=True)
class Detectable:
    """The smallest change of one metric of one row that the gate finds, in the metric's units.

    `mean` is the baseline's; `change` is None where nothing says how seeds scatter: a single one,
    or all alike.
    """

    dataset: str
    model: str
    decoder: str
    metric: str
    seeds: int
    mean: float
    threshold: float
    change: float | None


def power(
    baseline: ResultSet,
    *,
    alpha: float = ALPHA,
    thresholds: Mapping[str, Threshold] | None = None,
    metrics: Sequence[str] = (),
) -> tuple[Detectable, ...]:
    """The smallest change of each headline metric that `compare` finds with probability `POWER`.

    It assumes that a candidate runs the baseline's seeds and that they scatter anew, as on another
    machine or after any change of the arithmetic: a change seed by seed has √2 times the scatter of
    the seeds. The level is Holm's first and strictest, `alpha` over the number of tests.

    Arguments:
        thresholds: as `compare` takes them.
        metrics: the ones that are compared and shown; none means that all with a direction are
            compared, and those of the report's headline shown.
    """
    rows = list(baseline.rows.values())
    measured = [
        (row, metric)
        for row in rows
        for metric in metrics or row.metrics
        if metric in row.metrics and better(metric)
    ]
    tests = sum(len(row.metrics[metric]) > 1 for row, metric in measured)
    found = []
    for row, metric in measured:
        if not metrics and not is_shown(metric, "findings"):
            continue
        values = list(row.metrics[metric].values())
        seeds, mean = len(values), fmean(values)
        limit = ((thresholds or {}).get(metric) or default_threshold(metric)).of(
            mean, row.dimensions
        )
        change, error = None, 0.0
        if seeds > 1:
            error = max(stdev(values) * math.sqrt(2 / seeds), counting_error(metric, row, row))
        if error:
            tested = detectable(error, seeds, alpha / tests, POWER)
            change = max(tested, limit + float(ndtri(POWER)) * error)
        found.append(Detectable(*row.label, metric, seeds, mean, limit, change))
    return tuple(found)
