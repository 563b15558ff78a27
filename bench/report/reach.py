"""Whether a run's images are enough to tell how much information its latents carry."""

from __future__ import annotations

import numpy as np
import pandas as pd

AGREEMENT = 0.5
"""Nats between the bounds of the mutual information up to which a run is within reach.

The truth is between them, up to chance. With 1,000 images and 20 Gaussian latents whose aggregate
posterior is the prior they are so far apart at 4.4 nats, where each is 0.25 off.
"""

MARGIN = 2.0
"""Nats below ln N up to which a lower bound alone is trusted, in records that have no upper one.

With 1,000 images the estimate for an exact linear VAE of 4.605 nats is 4.474, and ln N is 6.908.
"""

CEILING = "protocol.information.bound"
"""The column of ln N, which the estimate of the mutual information over N images cannot exceed."""

LOWER, UPPER = "metrics.mutual_information", "metrics.mutual_information_upper"
RATE = "metrics.rate"


def least_upper(runs: pd.DataFrame) -> pd.Series[float]:
    """The least upper bound of each run's mutual information, nats: the rate is one of them.

    Arguments:
        runs: records with a rate; those of older versions have no other upper bound.
    """
    return runs[[column for column in (RATE, UPPER) if column in runs]].min(axis=1)


def within_reach(runs: pd.DataFrame) -> pd.Series[bool]:
    """Whether each run's mutual information, and so its marginal KL, is known up to `AGREEMENT`.

    Arguments:
        runs: records with a rate and a mutual information.
    """
    absent = pd.Series(np.nan, index=runs.index)
    close = least_upper(runs) - runs[LOWER] <= AGREEMENT
    low = runs[LOWER] <= runs.get(CEILING, absent) - MARGIN
    return close | (runs.get(UPPER, absent).isna() & low)
