"""Where the curves of Figure 4 bend, and whether a learned β is at that place."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.floating]


CONFIDENCE = 0.95

VALUES, POINTS = 4, 5
"""The least values of β, and points in all, that a bend is looked for in."""

CANDIDATES = 400
"""Places tried for the bend, even in ln β."""

ROUNDING = 1e-24
"""Of the sum of squares: what floating point alone leaves of a straight line."""


@dataclass(frozen=True)
class Bend:
    """The β at which two lines meet, and the ends of its 95 % interval."""

    beta: float
    low: float
    high: float

    def __contains__(self, beta: float) -> bool:
        return self.low <= beta <= self.high


class Finding(NamedTuple):
    """The bend, None where there is none to see; the quantity that has it; both in words."""

    bend: Bend | None
    of: str
    words: str


def enough(betas: Sequence[float]) -> bool:
    """Whether runs with these β can show a bend."""
    return len(set(betas)) >= VALUES and len(betas) >= POINTS


def bend(betas: Sequence[float], nats: Sequence[float]) -> Bend | None:
    """The β below which a quantity begins to rise, or to rise faster.

    Least squares with two lines in ln β that meet (Hudson 1966, JASA 61:1097); the interval is
    every place whose residual is not significantly larger (F test, Hinkley 1971, JASA 66:736).
    Seeds are points of their own.

    None where the points are not `enough`, where one line does as well (F test), or where a
    parabola does: such a curve turns everywhere and the range of β alone would decide the place.

    Arguments:
        betas: one for each run, positive.
        nats: the quantity of each run, its rate or its marginal KL.
    """
    if not enough(betas):
        return None
    x, y = np.log(betas), np.asarray(nats, dtype=float)
    levels, freedom = np.unique(x), len(x) - 4
    line, _ = np.linalg.qr(np.stack([np.ones_like(x), x], axis=1))

    def unexplained(values: Floats) -> Floats:
        """What a straight line in ln β leaves of each column."""
        return values - line @ (line.T @ values)

    rest = unexplained(y)

    def fit(columns: Floats) -> tuple[Floats, Floats]:
        """Squared residuals and slope of `rest` on each column by itself."""
        columns = unexplained(columns)
        slopes = columns.T @ rest / np.square(columns).sum(0)
        return np.square(rest[:, None] - columns * slopes).sum(0), slopes

    straight = np.square(rest).sum()
    if straight <= ROUNDING * np.square(y).sum():
        return None
    places = np.linspace(levels[1], levels[-2], CANDIDATES)
    residuals, slopes = fit(np.maximum(x[:, None] - places, 0))
    # A curve that falls faster beyond the place bends the wrong way.
    residuals[slopes <= 0] = math.inf
    least, (parabola,) = residuals.min(), fit(x[:, None] ** 2)[0]
    gain = (straight - least) * freedom / 2
    if not gain > least * stats.f.ppf(CONFIDENCE, 2, freedom) or parabola <= least:
        return None
    within = residuals <= least * (1 + stats.f.ppf(CONFIDENCE, 1, freedom) / freedom)
    near = np.exp(places[within])
    return Bend(float(np.exp(places[residuals.argmin()])), float(near[0]), float(near[-1]))


def verdict(
    betas: Sequence[float],
    rate: Sequence[float],
    marginal_kl: Sequence[float],
    told: Collection[float],
    learned: Mapping[str, float],
) -> Finding:
    """Say where the marginal KL bends, else where the rate does, and which learned β is there.

    With N images the estimate of the mutual information ends at ln N, and beyond that the marginal
    KL, the rate less this estimate, bends where the rate does. So its own bend is looked for
    among the values that are known.

    Arguments:
        betas, rate, marginal_kl: of each run with a chosen β.
        told: those `betas` at which the marginal KL is known.
        learned: β = 2σ² by decoder, the mean over seeds; at a bend within the bend's interval.
    """
    kept = [place for place, beta in enumerate(betas) if beta in told]
    own = [betas[place] for place in kept]
    share = f"{len(set(own))} of {len(set(betas))} values of β"
    found, of, sentences = bend(own, [marginal_kl[place] for place in kept]), "marginal KL", []
    if not enough(own):
        sentences.append(
            f"These data cannot tell where the marginal KL bends: it is known at {share} only."
        )
    elif found is None:
        sentences.append(f"The marginal KL, known at {share}, has no bend that these locate.")
    if found is None:
        found, of = bend(betas, rate), "rate"
    if found is None:
        sentences.append("The rate has no bend that these values of β locate.")
        return Finding(None, of, " ".join(sentences))
    where = f", known at {share}," if of == "marginal KL" and len(own) < len(betas) else ""
    sentences.append(
        f"The {of}{where} bends at β = {found.beta:.2g} (95 % interval {found.low:.2g} to "
        f"{found.high:.2g})."
    )
    for decoder, beta in learned.items():
        place = "at"
        if beta not in found:
            ratio = max(beta / found.beta, found.beta / beta)
            side = "above" if beta > found.beta else "below"
            place = f"{float(f'{ratio:.2g}'):g} times {side}"
        sentences.append(f"{decoder} learned β = {beta:.2g}, {place} this bend.")
    return Finding(found, of, " ".join(sentences))
