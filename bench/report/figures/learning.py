"""Learning curves: loss, σ and the weight of the rate, with a band over seeds (Fig. 9)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from bench.report.figures.style import (
    Style,
    band,
    canvas,
    finish,
    legend,
    plain_numbers,
    style_context,
)
from bench.report.figures.subset import Sketch, Subset, chunks_of, with_columns
from bench.report.figures.sweep import LEARNED
from bench.report.run_pages import history as epochs

TITLE = "Learning curves"
PANELS = {"loss": "training loss, nats per {item}", "sigma": "σ"}
WEIGHT = {"weight": "weight of the rate"}
"""A third panel, where a balance weighs the rate."""
KINDS = {False: "", True: "probabilities"}
"""Losses are compared within a kind: densities, or probabilities of the 8-bit image."""


def sketches(part: Subset) -> Iterator[Sketch]:
    """All decoders, then the σ-VAEs of the paper's Fig. 9 by themselves.

    A decoder without a likelihood stays out: its loss is no negative ELBO.
    """
    rows = part.rows
    scored = with_columns(rows, "neg_log_p")
    rows = rows[rows["decoder"].isin(scored["decoder"]) | (rows["n"] == 0)]
    for discrete, kind in KINDS.items():
        own = rows[rows["discrete"] == discrete]
        labels = list(own["decoder"])
        for name, piece in chunks_of(labels):
            yield from _sketch(part, piece, ", ".join(filter(None, [kind, name])), discrete)
        pair = own[own["family"].isin(LEARNED)]
        if set(pair["family"]) == set(LEARNED) and len(pair) < len(own):
            yield from _sketch(part, list(pair["decoder"]), "shared against optimal", discrete)


def _sketch(part: Subset, labels: Sequence[str], name: str, discrete: bool) -> Iterator[Sketch]:
    lines = history(part.runs[part.runs["decoder"].isin(labels)])
    if len(lines):
        what = "probabilities of the 8-bit image" if discrete else "densities on [0, 1]"
        yield Sketch(
            figure(lines, part.styles, part.item),
            f"The training loss (negative ELBO, nats per {part.item}; {what}) and σ by epoch: the "
            "mean over seeds, with a band from the smallest to the largest."
            + (
                " On the right the weight of the rate in what was descended, where a balance set "
                "one; the loss has a weight of 1."
                if "weight" in lines
                else ""
            ),
            name,
        )


def history(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs' histories, a line an epoch and run, each with its `decoder`; empty without any."""

    return pd.DataFrame(
        {"decoder": run["decoder"], **line}
        for run in runs[["decoder", "folder"]].to_dict("records")
        for line in epochs(run["folder"])
    )


@style_context()
def figure(history: pd.DataFrame, styles: Mapping[str, Style], item: str) -> Figure:
    """Draw the training loss (negative ELBO), σ and the rate's weight against the epoch.

    Arguments:
        history: one line an epoch and run: `decoder`, `epoch` from 0, `loss`, `sigma`, and
            `weight` where any has one; decoders in the order that the legend shall have.
        styles: of the decoders, by label.
        item: what the loss is of.
    """
    labels = list(history["decoder"].unique())
    drawing = canvas(3.2 + 0.16 * len(labels) / 2)
    shown = {**PANELS, **(WEIGHT if "weight" in history else {})}
    panels = drawing.subplots(1, len(shown))
    counted = history.assign(epoch=history["epoch"] + 1)
    for axes, (column, label) in zip(panels, shown.items(), strict=True):
        for decoder in labels:
            own = counted[(counted["decoder"] == decoder) & counted[column].notna()]
            band(axes, own, "epoch", column, styles[decoder], mark=False)
        finish(axes, "epoch", label.format(item=item))
        axes.xaxis.get_major_locator().set_params(integer=True)
    panels[1].set_yscale("log")
    plain_numbers(panels[1].yaxis)
    legend(drawing, {label: styles[label] for label in labels}, line=True, marker=False)
    return drawing
