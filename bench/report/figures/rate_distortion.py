"""The rate-distortion plane: what every decoder pays in nats for which reconstruction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.report.figures.style import QUIET, Style, canvas, finish, legend, style_context
from bench.report.figures.subset import Sketch, Subset, seeds, with_columns
from bench.report.figures.sweep import sweeps

TITLE = "Rate and distortion"
RATE, DISTORTION = "metrics.rate", "metrics.distortion"
PANELS = {
    False: "distortion: -ln p(x|z) of a density, nats",
    True: "distortion: -ln P(x|z) of the 8-bit image, nats",
}
"""Densities and probabilities have distortions of their own; they share no axis."""


def sketches(part: Subset) -> Iterator[Sketch]:
    """One figure of all decoders that have both, where there are two at least."""
    runs = with_columns(part.completed, RATE, DISTORTION)
    if runs["decoder"].nunique() > 1:
        yield Sketch(
            figure(runs, part.styles),
            f"Each decoder's two parts of the negative ELBO on test {part.item}s: rate, the nats "
            f"that the latent carries, and distortion, the nats of the {part.item} that remain. "
            "Their sum is "
            "-log p: it is equal along each grey line, and less towards the lower left. Large: the "
            f"mean over seeds; small: the runs ({seeds(runs)}). "
            "β-VAEs that differ in β alone are joined."
            + (
                " Densities and probabilities of the 8-bit image do not compare, so each has a "
                "panel."
                if runs["discrete"].nunique() > 1
                else ""
            ),
        )


@style_context()
def figure(runs: pd.DataFrame, styles: Mapping[str, Style]) -> Figure:
    """Distortion over rate, nats; a panel for densities, one for probabilities.

    Arguments:
        runs: completed runs with `decoder`, `discrete`, and both metrics.
        styles: of the decoders, by label.
    """
    kinds = [kind for kind in PANELS if (runs["discrete"] == kind).any()]
    labels = list(dict.fromkeys(runs["decoder"]))
    drawing = canvas(3.6 + 0.16 * len(labels) / 2)
    panels = drawing.subplots(1, len(kinds), squeeze=False)[0]
    for axes, kind in zip(panels, kinds, strict=True):
        own = runs[runs["discrete"] == kind]
        _points(axes, own, styles)
        finish(axes, "rate, nats", PANELS[kind])
        _guides(axes)
    legend(drawing, {label: styles[label] for label in labels}, line=False, marker=True)
    return drawing


def _points(axes: Axes, runs: pd.DataFrame, styles: Mapping[str, Style]) -> None:
    for sweep in sweeps(runs):
        means = sweep.fixed.groupby("beta")[[RATE, DISTORTION]].mean()
        axes.plot(means[RATE], means[DISTORTION], color=QUIET, linewidth=1, zorder=1)
    for label, own in runs.groupby("decoder", sort=False):
        style = styles[label]
        look: dict[str, Any] = {"color": style.colour, "linestyle": "", "marker": style.marker}
        axes.plot(own[RATE], own[DISTORTION], markersize=3, alpha=0.5, markeredgewidth=0, **look)
        axes.plot(
            own[RATE].mean(),
            own[DISTORTION].mean(),
            markersize=7,
            markeredgecolor="white",
            zorder=3,
            **look,
        )


def _guides(axes: Axes) -> None:
    """Lines of equal sum, through the ticks of the distortion."""
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    step = axes.get_yticks()[1] - axes.get_yticks()[0]
    for tick in (*axes.get_yticks(), axes.get_yticks()[-1] + step):
        axes.plot(
            [left, right],
            [tick, tick - (right - left)],
            color="0.9",
            linewidth=0.8,
            zorder=0,
        )
    axes.set(xlim=(left, right), ylim=(low, high))
