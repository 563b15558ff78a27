"""Every verdict over seeds: the best rows of a table, and the t-tests of the regression gate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import nctdtrinc, stdtr, stdtrit

Floats = NDArray[np.float64]

ERRORS_NEEDED = (3.0, 4.0)
"""Standard errors by which a better row's mean is better: three seeds or more, two seeds."""


def one_sided(change: Any, error: Any, freedom: Any) -> tuple[Any, Any]:
    """p values of Student's t against "no increase" and against "no decrease", elementwise.

    An error of zero is certainty: seeds that all agree leave nothing to chance. Where values are
    counts, and seeds agree by chance, the callers of this take a `floor`: the least error.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.where(change == 0, 0.0, np.divide(change, error))
    return stdtr(freedom, -statistic)[()], stdtr(freedom, statistic)[()]


def paired(baseline: Floats, candidate: Floats, floor: float = 0.0) -> tuple[float, float]:
    """`one_sided` of the changes seed by seed, at least two."""
    changes = candidate - baseline
    error = max(float(changes.std(ddof=1)) / math.sqrt(len(changes)), floor)
    increase, decrease = one_sided(changes.mean(), error, len(changes) - 1)
    return float(increase), float(decrease)


def welch(baseline: Floats, candidate: Floats, floor: float = 0.0) -> tuple[float, float]:
    """`one_sided` of the change of the mean; variances may differ (Welch 1947), two values each."""
    parts = [values.var(ddof=1) / len(values) for values in (baseline, candidate)]
    total = float(sum(parts))
    freedom = float(len(baseline) + len(candidate) - 2)
    if total:
        counts = (len(baseline), len(candidate))
        shares = ((part / total) ** 2 / (n - 1) for part, n in zip(parts, counts, strict=True))
        freedom = 1 / sum(shares)
    change = candidate.mean() - baseline.mean()
    increase, decrease = one_sided(change, max(math.sqrt(total), floor), freedom)
    return float(increase), float(decrease)


def detectable(error: float, seeds: int, level: float, power: float) -> float:
    """The change that a one-sided paired t-test at `level` finds with probability `power`.

    It solves P(T > t) = power for the noncentrality of T, t the test's critical value.

    Arguments:
        error: the standard error of the mean change over `seeds`, at least two.
    """
    critical = stdtrit(seeds - 1, 1 - level)
    return float(nctdtrinc(seeds - 1, 1 - power, critical)) * error


class BestRows(NamedTuple):
    """Of each row: whether no other is better, and whether it was compared with any."""

    best: NDArray[np.bool_]
    compared: NDArray[np.bool_]


def best_rows(
    values: Floats, better: Literal["lower", "higher"], least: Floats | float = 0.0
) -> BestRows:
    """The rows than which no other row of the group is better.

    A row is better than another where its mean is better by more than `errors_needed` standard
    errors of the difference. A seed that got stuck widens its row's own error and would hide how
    bad the row is, so the other row is also judged with its 1, 2, … worst seeds left out, as long
    as two are left. There are no degrees of freedom: at n = 2 and 3 Student's t tells nothing
    apart, and the rates of this rule were found by simulation (docs/protocol.md).

    Arguments:
        values: (..., rows, seeds), NaN where a row has no number. A row with fewer than two is not
            compared: nothing says how far its mean is to be trusted.
        least: (..., rows), the least standard error of a mean, of values that agree by chance.
    """
    # The worst seeds come last, and behind them those without a number.
    ordered = np.sort(values if better == "lower" else -values, axis=-1)
    count = (~np.isnan(ordered)).sum(axis=-1)
    known = count > 1
    compared = known & (known.sum(axis=-1, keepdims=True) > 1)
    best = compared.copy()
    rival = _leading(ordered, count, least)
    for left_out in range(max(values.shape[-1] - 1, 1)):
        kept = count - left_out
        own = _leading(ordered, kept, least)
        gap = own.mean[..., :, None] - rival.mean[..., None, :]
        error = np.sqrt(own.squared_error[..., :, None] + rival.squared_error[..., None, :])
        fewest = np.minimum(kept[..., :, None], count[..., None, :])
        beaten = (fewest > 1) & (gap > errors_needed(fewest) * error)
        best &= ~beaten.any(axis=-1)
    return BestRows(best, compared)


def errors_needed(seeds: NDArray[np.int_]) -> Floats:
    """Standard errors by which a mean must be better, by the fewer of two rows' seeds."""
    return np.where(seeds > 2, *ERRORS_NEEDED)


class _Moments(NamedTuple):
    mean: Floats
    squared_error: Floats


def _leading(ordered: Floats, count: NDArray[np.int_], least: Floats | float) -> _Moments:
    """The mean of the first `count` values of each row and its squared standard error."""
    used = np.arange(ordered.shape[-1]) < count[..., None]
    number = np.maximum(count, 1)
    mean = np.where(used, ordered, 0).sum(axis=-1) / number
    squares = np.where(used, (ordered - mean[..., None]) ** 2, 0).sum(axis=-1)
    own = squares / np.maximum(number - 1, 1) / number
    return _Moments(mean, np.maximum(own, np.square(least)))


def holm(p: Sequence[float] | Floats) -> Floats:
    """p values adjusted for their number, the family-wise error kept (Holm 1979)."""
    values = np.asarray(p, dtype=np.float64)
    order = values.argsort(kind="stable")
    steps = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(steps).clip(max=1)
    return adjusted
