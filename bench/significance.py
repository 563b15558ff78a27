"""Every test over seeds: Student's t, one row against another, and Holm's correction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

Floats = NDArray[np.float64]

LEVEL = 0.05
"""Adjusted p below which a row differs from the best."""


class Paired(NamedTuple):
    """Changes seed by seed: their mean, its standard error and the seeds in common, by row.

    The error is 0 where fewer than two seeds are in common, which test nothing.
    """

    change: Floats
    error: Floats
    seeds: NDArray[np.int_]


def paired_changes(baseline: Floats, candidate: Floats) -> Paired:
    """The changes from baseline to candidate over the seeds that both have.

    Arguments:
        baseline, candidate: (..., seeds), NaN where a seed has no number.
    """
    changes = candidate - baseline
    known = ~np.isnan(changes)
    seeds = known.sum(axis=-1)
    mean = np.where(known, changes, 0).sum(axis=-1) / np.maximum(seeds, 1)
    squares = np.where(known, (changes - mean[..., None]) ** 2, 0).sum(axis=-1)
    return Paired(mean, np.sqrt(squares / np.maximum(seeds - 1, 1) / np.maximum(seeds, 1)), seeds)


def one_sided(change: Any, error: Any, freedom: Any) -> tuple[Any, Any]:
    """p values of Student's t against "no increase" and against "no decrease", elementwise.

    An error of zero is certainty: seeds that all agree leave nothing to chance.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        statistic = np.where(change == 0, 0.0, np.divide(change, error))
    return stdtr(freedom, -statistic)[()], stdtr(freedom, statistic)[()]


def paired(baseline: Floats, candidate: Floats) -> tuple[float, float]:
    """`one_sided` of the changes seed by seed, at least two."""
    change, error, seeds = paired_changes(baseline, candidate)
    increase, decrease = one_sided(change, error, seeds - 1)
    return float(increase), float(decrease)


def two_sided(found: Paired) -> Floats:
    """p values against "no change", by row; NaN where fewer than two seeds are in common."""
    p = 2 * np.minimum(*one_sided(found.change, found.error, np.maximum(found.seeds - 1, 1)))
    return np.where(found.seeds > 1, p, np.nan)


def welch(baseline: Floats, candidate: Floats) -> tuple[float, float]:
    """`one_sided` of the change of the mean; variances may differ (Welch 1947), two values each."""
    parts = [values.var(ddof=1) / len(values) for values in (baseline, candidate)]
    total = float(sum(parts))
    freedom = float(len(baseline) + len(candidate) - 2)
    if total:
        counts = (len(baseline), len(candidate))
        shares = ((part / total) ** 2 / (n - 1) for part, n in zip(parts, counts, strict=True))
        freedom = 1 / sum(shares)
    change = candidate.mean() - baseline.mean()
    increase, decrease = one_sided(change, np.sqrt(total), freedom)
    return float(increase), float(decrease)


class BestRows(NamedTuple):
    """Of each row: whether it is best or tied with the best, and how many rows were tested."""

    best: NDArray[np.bool_]
    tested: int


def best_rows(values: Floats, better: Literal["lower", "higher"]) -> BestRows:
    """The row with the best mean and its statistical ties.

    A row ties when a two-sided paired t-test over the seeds that it shares with the best does not
    reject equal means at `LEVEL`, Holm-corrected over the rows tested. Fewer than two shared
    seeds test nothing: such a row ties only when its mean is the very same number.

    Arguments:
        values: (rows, seeds), NaN where a row has no number; a row without any is never best.
    """
    known = ~np.isnan(values)
    count = known.sum(axis=1)
    if not count.any():
        return BestRows(count > 0, 0)
    means = np.where(known, values, 0).sum(axis=1) / np.maximum(count, 1)
    rank = np.where(count > 0, means if better == "lower" else -means, np.inf)
    first = int(rank.argmin())
    p = two_sided(paired_changes(values[first], values))
    tested = np.flatnonzero(~np.isnan(p) & (np.arange(len(values)) != first))
    ties = rank == rank[first]
    ties[tested] = holm(p[tested]) > LEVEL
    return BestRows(ties, len(tested))


def holm(p: Sequence[float] | Floats) -> Floats:
    """p values adjusted for their number, the family-wise error kept (Holm 1979)."""
    values = np.asarray(p, dtype=np.float64)
    order = values.argsort(kind="stable")
    steps = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.maximum.accumulate(steps).clip(max=1)
    return adjusted
