"""The paper's own numbers, looked up for a row of ours."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from baselines.options import DECODERS, MODELS, Spec
from bench.grid.read import bundled_grids, read_grid
from bench.grid.schema import Grid
from bench.records.frame import Line, missing
from bench.records.identity import recorded
from bench.records.labels import TUNED
from bench.run import TrainingSettings
from bench.text import setting

STANDS_IN = {"hierarchical": "hvae"}
"""Our model that stands in for an architecture of the paper's, whose size is unpublished."""

PER_FRAME = {"svg"}
"""The paper's architectures whose -log p is of a frame.

The paper does not say so. The 40,616 nats of its logistic mixture would be 0.5 bits a value of ten
frames, and are 4.8 of one; on CelebA and CIFAR-10 the same decoder has 3.7 and 4.0.
"""

SIGMA_VAE = "shared"
"""Our decoder that Table 1's single σ-VAE row is compared with; Table 2 has a row for each σ."""


@dataclass(frozen=True)
class Numbers:
    """A published row: nats (lower is better) and FID; NaN where not printed.

    nats: the metric of ours that its -log p is beside.
    """

    table: int
    neg_log_p: float
    fid: float
    nats: Literal["neg_log_p", "neg_log_p_per_frame"] = "neg_log_p"


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
    candidates = _index().get((dataset, STANDS_IN.get(model, model), decoder, beta), ())
    named = re.match(r"table(\d+)", grid)
    own = int(named[1]) if named else None
    return max(candidates, key=lambda row: (row.table == own, row.table), default=None)


def unlike(table: int, line: Line, free: Collection[str]) -> list[str]:
    """How a row's setting is not the paper's: `width 8 against 32`, ours first.

    The paper's decoder has the default options; its model and training are those of the bundled
    grid of its table, and where none has the model, the default options. Of a model that only
    stands in for the paper's, the decoder alone is compared: size and training are unpublished.

    Arguments:
        line: a record's columns.
        free: the knobs that are not compared, as `lookup` or a search chose their values.
    """
    pairs: dict[str, tuple[Any, Any]] = {}
    model = recorded(MODELS, "run.model", line)
    grid = None
    if model.name not in STANDS_IN:
        grid = _grid(table, model.name)
        theirs = _defaults(MODELS, model.name)
        for entry in grid.models if grid else ():
            if entry.spec.name == model.name:
                theirs = entry.spec.model_dump(mode="json")
        pairs = {
            key: (value, theirs.get(key))
            for key, value in model.options.items()
            if f"model.{key}" not in free
        }
    decoder = recorded(DECODERS, "run.decoder", line)
    default = _defaults(DECODERS, decoder.name)
    for key, value in decoder.changed.items():
        if key not in free:
            pairs[key] = value, default.get(key)
    if grid is not None:
        part, off = "run.training.", TrainingSettings.off()
        said = {k.removeprefix(part): v for k, v in line.items() if k.startswith(part)}
        trained = off | {key: value for key, value in said.items() if not missing(value)}
        for key, value in (off | grid.training.model_dump()).items():
            if f"training.{key}" not in free:
                pairs[key] = trained.get(key, value), value
    # How a run was computed is no part of what the paper says.
    pairs.pop("precision", None)
    return [f"{k} {setting(a)} against {setting(b)}" for k, (a, b) in pairs.items() if a != b]


def _defaults(registry: Mapping[str, type[Spec]], name: str) -> dict[str, Any]:
    fields = registry[name].model_fields if name in registry else {}
    return {key: field.default for key, field in fields.items()}


@cache
def _grid(table: int, model: str) -> Grid | None:
    """The bundled grid of a table that has the model."""
    names = [name for name in bundled_grids() if name.startswith(f"table{table}")]
    grids = (read_grid(name) for name in names)
    return next((grid for grid in grids if model in {one.spec.name for one in grid.models}), None)


@cache
def _index() -> dict[tuple[str, str, str, float | str | None], tuple[Numbers, ...]]:
    index: dict[tuple[str, str, str, float | str | None], tuple[Numbers, ...]] = {}
    for row in published().to_dict("records"):
        decoder = SIGMA_VAE if row["decoder"] == "sigma_vae" else row["decoder"]
        beta: float | str | None = None
        if decoder == "beta":
            beta = TUNED if row["beta"] == TUNED else float(row["beta"])
        key = (row["dataset"], row["architecture"], decoder, beta)
        numbers = Numbers(
            int(row["table"]),
            row["neg_log_p_upper_bound_nats"],
            row["fid"],
            "neg_log_p_per_frame" if row["architecture"] in PER_FRAME else "neg_log_p",
        )
        index[key] = (*index.get(key, ()), numbers)
    return index
