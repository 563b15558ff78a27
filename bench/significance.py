"""Every test over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


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


LEVEL = 0.05
"""Adjusted p below which a row differs from the best."""


class Verdict(NamedTuple):
    """Of each row: whether it is best or tied with the best, and how many rows were tested."""

    best: NDArray[np.bool_]
    tested: int


def best_rows(values: NDArray[np.float64], better: Literal["lower", "higher"]) -> Verdict:
    """The row with the best mean and its statistical ties.

    A row ties when a two-sided paired t-test over the seeds that it shares with the best does not
    reject equal means at `LEVEL`, Holm-corrected over the rows tested. Fewer than two shared
    seeds test nothing: such a row ties only when its mean is the very same number.

    Arguments:
        values: (rows, seeds), NaN where a row has no number; a row without any is never best.
    """
    import numpy as np
    from scipy.special import stdtr  # scipy.stats takes most of a second to import

    known = ~np.isnan(values)
    count = known.sum(axis=1)
    if not count.any():
        return Verdict(count > 0, 0)
    means = np.where(known, values, 0).sum(axis=1) / np.maximum(count, 1)
    rank = np.where(count > 0, means if better == "lower" else -means, np.inf)
    first = int(rank.argmin())

    shared = known & known[first]
    seeds = shared.sum(axis=1)
    gaps = np.where(shared, values - values[first], 0)
    mean_gap = gaps.sum(axis=1) / np.maximum(seeds, 1)
    squares = np.where(shared, (gaps - mean_gap[:, None]) ** 2, 0).sum(axis=1)
    error = np.sqrt(squares / np.maximum(seeds - 1, 1) / np.maximum(seeds, 1))
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.abs(mean_gap) / error
    # Seeds that all agree to the last digit are equal, not undefined.
    p = np.nan_to_num(2 * stdtr(np.maximum(seeds - 1, 1), -statistic), nan=1.0)
    tested = np.flatnonzero((seeds > 1) & (np.arange(len(values)) != first))

    ties = rank == rank[first]
    ties[tested] = holm(p[tested]) > LEVEL
    return Verdict(ties, len(tested))


def holm(p: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """p values adjusted for their number, the family-wise error kept (Holm 1979)."""
    import numpy as np

    values = np.asarray(p, dtype=np.float64)
    order = values.argsort(kind="stable")
    steps = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(steps).clip(max=1)
    return adjusted
