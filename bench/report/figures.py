"""Learning curves: the training loss and σ of every decoder, with a band over seeds."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from bench.files import write_bytes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

COLOURS = 10
"""Of the colour-blind palette; the next ten decoders have them again, dashed."""
DECODERS = 20
"""What one figure can tell apart."""

PANELS = {"loss": "training loss, nats per image", "sigma": "σ"}


def learning_curves(history: pd.DataFrame) -> Figure:
    """Draw the training loss (negative ELBO) and σ against the epoch.

    The line is the mean over seeds, the band reaches from the smallest to the largest.

    Arguments:
        history: one line an epoch and run: `decoder`, `epoch` from 0, `loss`, `sigma`; at most
            `DECODERS` decoders, in the order that the legend shall have.
    """
    import seaborn
    from matplotlib.figure import Figure

    order = list(history["decoder"].unique())
    colours = seaborn.color_palette("colorblind", COLOURS)
    dashes = ["", (4, 1.5)]
    with seaborn.axes_style("ticks"), seaborn.plotting_context("paper"):
        figure = Figure(figsize=(9, 4), layout="constrained")
        for axes, (column, label) in zip(figure.subplots(1, 2), PANELS.items(), strict=True):
            seaborn.lineplot(
                history.assign(epoch=history["epoch"] + 1),
                x="epoch",
                y=column,
                hue="decoder",
                style="decoder",
                hue_order=order,
                style_order=order,
                palette=[colours[index % COLOURS] for index in range(len(order))],
                dashes=[dashes[index // COLOURS % len(dashes)] for index in range(len(order))],
                errorbar=("pi", 100),
                # One epoch makes no line.
                markers=["o"] * len(order) if history["epoch"].max() < 1 else False,
                legend=column == "loss",
                ax=axes,
            )
            axes.set(xlabel="epoch", ylabel=label)
            axes.xaxis.get_major_locator().set_params(integer=True)
            seaborn.despine(ax=axes)
        figure.axes[1].set_yscale("log")
        scale = figure.axes[1].yaxis
        scale.set_major_formatter(lambda x, _: f"{x:g}")
        scale.set_minor_formatter(lambda x, _: f"{x:g}" if f"{x:e}"[0] in "25" else "")
        handles, labels = figure.axes[0].get_legend_handles_labels()
        if legend := figure.axes[0].get_legend():
            legend.remove()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return figure


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write `<stem>.png` and `<stem>.pdf`; the same figure gives the same bytes."""
    paths = []
    for suffix, options in (
        (".png", {"dpi": 160}),
        (".pdf", {"metadata": {"CreationDate": None}}),
    ):
        content = io.BytesIO()
        figure.savefig(content, format=suffix[1:], **options)
        path = stem.with_name(stem.name + suffix)
        write_bytes(path, content.getvalue())
        paths.append(path)
    return paths
