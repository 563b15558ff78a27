"""β-VAEs that differ in β alone, and the σ-VAEs that find their own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import pandas as pd

from bench.records.frame import column_of
from bench.report.figures.style import Style
from bench.report.figures.subset import with_columns

LEARNED = ("shared", "optimal")
"""The σ-VAEs with one σ for all pixels: a β-VAE of β = 2σ² is the same decoder."""

CHOSEN = "β-VAE, β chosen"
"""What a legend calls the β-VAEs of a sweep."""


def by_elbo(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that no balance weighed: one that did changes what a chosen or learned β means."""
    return runs[column_of(runs, "run.balance.name").isna()]


def sigma_vaes(runs: pd.DataFrame) -> pd.DataFrame:
    """Those of `LEARNED` among `runs` that the ELBO trained."""
    own = by_elbo(runs)
    own = own[own["run.decoder.name"].isin(LEARNED)]
    if "run.decoder.over" in own:
        own = own[own["run.decoder.over"].fillna("batch") == "batch"]
    return own


def learned(runs: pd.DataFrame) -> pd.DataFrame:
    """The σ-VAEs among `runs`, with the `beta` = 2σ² that each learned."""
    own = with_columns(sigma_vaes(runs), "metrics.beta_effective")
    return own.assign(beta=own.get("metrics.beta_effective"))


class Sweep(NamedTuple):
    """Completed runs with their `beta`, chosen or learned; `setting` names what else they share."""

    setting: str
    fixed: pd.DataFrame
    learned: pd.DataFrame

    def entries(self, styles: Mapping[str, Style]) -> dict[str, Style]:
        """The legend of a figure over β: the β-VAEs together as `CHOSEN`, then each σ-VAE."""
        # The middle shade of the sweep represents all of it.
        family = list(dict.fromkeys(self.fixed["decoder"]))
        names = dict.fromkeys(self.learned["decoder"])
        found = {CHOSEN: styles[family[len(family) // 2]]}
        return found | {f"{name}, β learned": styles[name] for name in names}


def sweeps(runs: pd.DataFrame) -> Iterator[Sweep]:
    """Groups of β-VAEs that differ in β alone (two values or more), each with the σ-VAEs like them.

    Arguments:
        runs: completed runs of one data set and model, as a `Subset` has them.
    """
    fixed = by_elbo(runs)
    fixed = with_columns(fixed[fixed["run.decoder.name"] == "beta"], "run.decoder.beta")
    if fixed.empty:
        return
    fixed = fixed.assign(beta=fixed["run.decoder.beta"])
    own = learned(runs)
    alike = ["settings", "run.decoder.link"]
    for (setting, link), group in fixed.groupby(alike, sort=False):
        if group["beta"].nunique() > 1:
            same = (own["settings"] == setting) & (own["run.decoder.link"] == link)
            yield Sweep(setting, group, own[same])
