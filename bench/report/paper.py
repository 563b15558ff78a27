"""The paper's own numbers, looked up for a row of ours."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

from bench.records.labels import TUNED

SIGMA_VAE = "shared"
"""Our decoder that Table 1's single σ-VAE row is compared with; Table 2 has a row for each σ."""


@dataclass(frozen=True)
class Numbers:
    """A published row: nats per image (lower is better) and FID; NaN where not printed."""

    table: int
    neg_log_p: float
    fid: float


def folder() -> Path:
    """`results/published` of a source checkout, or the copy inside an installed package."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent / "results" / "published"
    return checkout if checkout.is_dir() else package / "published"


def published() -> pd.DataFrame:
    """Every number of Tables 1 to 3 (arXiv 2006.13202), a row each; β is text (`tuned`, `0.01`)."""
    return pd.read_csv(folder() / "paper_tables.csv", dtype={"beta": "str"})


def lookup(
    grid: str, dataset: str, model: str, decoder: str, beta: float | str | None
) -> Numbers | None:
    """The published row for one of ours, or None.

    A decoder that is in several tables is taken from the one that the grid is named after
    (`table1`, `table2-svhn`), else from the last.

    Arguments:
        beta: a value, `tuned`, or None for a decoder without β.
    """
    candidates = _index().get((dataset, model, decoder, beta), ())
    named = re.match(r"table(\d+)", grid)
    own = int(named[1]) if named else None
    return max(candidates, key=lambda row: (row.table == own, row.table), default=None)


@cache
def _index() -> dict[tuple[str, str, str, float | str | None], tuple[Numbers, ...]]:
    index: dict[tuple[str, str, str, float | str | None], tuple[Numbers, ...]] = {}
    for row in published().to_dict("records"):
        decoder = SIGMA_VAE if row["decoder"] == "sigma_vae" else row["decoder"]
        beta: float | str | None = None
        if decoder == "beta":
            beta = TUNED if row["beta"] == TUNED else float(row["beta"])
        key = (row["dataset"], row["architecture"], decoder, beta)
        numbers = Numbers(int(row["table"]), row["neg_log_p_upper_bound_nats"], row["fid"])
        index[key] = (*index.get(key, ()), numbers)
    return index
