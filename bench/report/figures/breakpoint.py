"""Where the curve of Figure 4 bends, and whether a learned β is at that place."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import stats

Floats = npt.NDArray[np.floating]


CONFIDENCE = 0.95

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
    """The bend, None where there is none to see; the learned β by decoder; both in words."""

    bend: Bend | None
    learned: Mapping[str, float]
    words: str


def bend(betas: Sequence[float], marginal_kl: Sequence[float]) -> Bend | None:
    """The β below which the marginal KL begins to rise.

    With N images the mutual information cannot exceed ln N, and the rate is the sum of both: a
    rate that grows with -ln β fills the mutual information first and then goes into the marginal
    KL, which is a flat line, a bend and a rising line. The bend is found by least squares with
    two lines that meet (Hudson 1966, JASA 61:1097), its interval is every place whose residual is
    not significantly larger (F test, Hinkley 1971, JASA 66:736). Seeds are points of their own.

    None where four values of β and five points are not there, where one line does as well (F
    test), or where a parabola does: such a curve turns everywhere and the range of β alone would
    decide the place.

    Arguments:
        betas: one for each run, positive.
        marginal_kl: KL(m(z) || p(z)) of each run, nats.
    """

    x, y = np.log(betas), np.asarray(marginal_kl, dtype=float)
    levels = np.unique(x)
    freedom = len(x) - 4
    if len(levels) < 4 or freedom < 1:
        return None
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
    # A marginal KL that falls faster beyond the place bends the wrong way.
    residuals[slopes <= 0] = math.inf
    least, (parabola,) = residuals.min(), fit(x[:, None] ** 2)[0]
    gain = (straight - least) * freedom / 2
    if not gain > least * stats.f.ppf(CONFIDENCE, 2, freedom) or parabola <= least:
        return None
    within = residuals <= least * (1 + stats.f.ppf(CONFIDENCE, 1, freedom) / freedom)
    near = np.exp(places[within])
    return Bend(float(np.exp(places[residuals.argmin()])), float(near[0]), float(near[-1]))


def verdict(found: Bend | None, learned: Mapping[str, float]) -> Finding:
    """Say whether each learned β is at the bend, that is, within its interval.

    Arguments:
        learned: β = 2σ² by decoder, the mean over seeds.
    """
    if found is None:
        return Finding(None, learned, "The marginal KL has no bend that these values of β locate.")
    sentences = [
        f"The marginal KL bends at β = {found.beta:.2g} (95 % interval {found.low:.2g} to "
        f"{found.high:.2g})."
    ]
    for decoder, beta in learned.items():
        if beta in found:
            place = "at the bend"
        elif beta < found.beta:
            place = f"{found.beta / beta:.2g} times below the bend"
        else:
            place = f"{beta / found.beta:.2g} times above the bend"
        sentences.append(f"{decoder} learned β = {beta:.2g}, {place}.")
    return Finding(found, learned, " ".join(sentences))
