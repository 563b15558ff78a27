"""Mutual information and marginal KL against β, with the β that a σ-VAE learns (Fig. 4)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from matplotlib.figure import Figure

from bench.report.figures import breakpoint
from bench.report.figures.style import (
    QUIET,
    Style,
    band,
    canvas,
    finish,
    legend,
    plain_numbers,
    style_context,
)
from bench.report.figures.subset import Sketch, Subset, seeds, with_columns
from bench.report.figures.sweep import Sweep, sweeps

TITLE = "Information against β"
MEASURES = {
    "metrics.mutual_information": "mutual information\nI(x; z), nats",
    "metrics.marginal_kl": "marginal KL\nKL(m(z) ‖ p(z)), nats",
}
BOUND = "protocol.information.bound"
"""ln N, which the estimate of the mutual information over N images cannot exceed."""


def sketches(part: Subset) -> Iterator[Sketch]:
    """A figure for each sweep of β in which both measures were taken."""
    for sweep in sweeps(with_columns(part.completed, *MEASURES)):
        found = verdict(sweep)
        bounds = sweep.fixed.get(BOUND)
        bound = math.nan if bounds is None else float(bounds.astype(float).max())
        yield Sketch(
            figure(sweep, found.bend, bound, part.styles),
            _caption(sweep, found, bound),
            sweep.setting,
        )


def verdict(sweep: Sweep) -> breakpoint.Finding:
    """Where the sweep's marginal KL bends, and where the learned β are relative to it."""
    curve = sweep.fixed["metrics.marginal_kl"]
    learned = sweep.learned.groupby("decoder", sort=False)["beta"].mean()
    found = breakpoint.bend(list(sweep.fixed["beta"]), list(curve))
    return breakpoint.verdict(found, learned.to_dict())


@style_context()
def figure(
    sweep: Sweep, found: breakpoint.Bend | None, bound: float, styles: Mapping[str, Style]
) -> Figure:
    """Both measures in nats above one logarithmic axis of β.

    Arguments:
        found: the bend, a grey span of its interval.
        bound: ln N in nats, a dashed line; NaN draws none.
        styles: of the decoders, by label.
    """
    drawing = canvas(5)
    panels = drawing.subplots(2, 1, sharex=True)
    # The middle shade of the sweep represents all of it.
    family = list(dict.fromkeys(sweep.fixed["decoder"]))
    line = styles[family[len(family) // 2]]
    entries = {"β-VAE, β chosen": line}
    for axes, (column, label) in zip(panels, MEASURES.items(), strict=True):
        band(axes, sweep.fixed, "beta", column, line, mark=True)
        for name, own in sweep.learned.groupby("decoder", sort=False):
            style = entries[f"{name}, β learned"] = styles[name]
            axes.axvline(own["beta"].mean(), color=style.colour, linestyle=style.dash, zorder=1)
            axes.plot(
                own["beta"],
                own[column],
                linestyle="",
                marker=style.marker,
                color=style.colour,
                markersize=7,
                markeredgecolor="white",
                zorder=4,
            )
        finish(axes, "β = 2σ²" if axes is panels[-1] else "", label)
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    information, kl = panels
    if math.isfinite(bound):
        information.axhline(bound, color=QUIET, linestyle="--", linewidth=1, zorder=0)
        information.annotate(
            "ln N",
            (1, bound),
            xycoords=("axes fraction", "data"),
            xytext=(0, 2),
            textcoords="offset points",
            horizontalalignment="right",
            color="0.35",
        )
        information.set_ylim(top=max(information.get_ylim()[1], 1.12 * bound))
    if found is not None:
        kl.axvspan(found.low, found.high, color="0.85", linewidth=0, zorder=0)
        kl.annotate(
            "bend",
            (found.beta, 0.97),
            xycoords=("data", "axes fraction"),
            horizontalalignment="center",
            verticalalignment="top",
            color="0.35",
        )
    kl.set_xscale("log")
    plain_numbers(kl.xaxis)
    legend(drawing, entries, line=True, marker=True)
    return drawing


def _caption(sweep: Sweep, found: breakpoint.Finding, bound: float) -> str:
    sentences = [
        "Above: the mutual information of image and latent; below: how far the aggregate "
        "posterior is from the prior. Lines: β-VAEs, the mean over seeds, with a band from the "
        f"smallest to the largest ({seeds(sweep.fixed)})."
    ]
    if len(sweep.learned):
        sentences.append(
            "Vertical lines: the β = 2σ² that a σ-VAE learned, its runs as single points."
        )
    if math.isfinite(bound):
        sentences.append(
            f"Dashed: ln N = {bound:.2f}, more than which N images cannot show; a curve near it "
            "says only that the mutual information is at least that."
        )
    sentences.append(found.words)
    if found.bend is not None:
        sentences.append(
            "The bend is where two lines in ln β fit the marginal KL best; grey: its interval."
        )
    return " ".join(sentences)
