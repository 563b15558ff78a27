"""Which rows are best: the best mean, and every row that a test over seeds can't tell from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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
