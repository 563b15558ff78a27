"""Mutual information and marginal KL against β, with the β that a σ-VAE learns (Fig. 4)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import pandas as pd
from matplotlib.axes import Axes
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
from bench.report.figures.sweep import CHOSEN, Sweep, sweeps
from bench.report.reach import AGREEMENT, CEILING, LOWER, RATE, least_upper, within_reach

TITLE = "Information against β"
KL = "metrics.marginal_kl"
MEASURES = {
    LOWER: "mutual information\nI(x; z), nats\nlower bound",
    KL: "marginal KL\nKL(m(z) ‖ p(z)), nats\nupper bound",
}


def sketches(part: Subset) -> Iterator[Sketch]:
    """A figure for each sweep of β in which both measures were taken."""
    for sweep in measured(part.completed):
        found = verdict(sweep)
        ceilings = sweep.fixed.get(CEILING)
        ceiling = math.nan if ceilings is None else float(ceilings.astype(float).max())
        yield Sketch(
            figure(sweep, found, ceiling, part.styles),
            _caption(sweep, found, ceiling),
            sweep.setting,
        )


def measured(runs: pd.DataFrame) -> Iterator[Sweep]:
    """The sweeps of β among completed runs whose information was measured."""
    yield from sweeps(with_columns(runs, RATE, *MEASURES))


def verdict(sweep: Sweep) -> breakpoint.Finding:
    """Where the sweep's marginal KL or rate bends, and where the learned β are relative to it."""
    runs = sweep.fixed
    told = within_reach(runs).groupby(runs["beta"]).all()
    learned = sweep.learned.groupby("decoder", sort=False)["beta"].mean()
    return breakpoint.verdict(
        list(runs["beta"]), list(runs[RATE]), list(runs[KL]), set(told.index[told]), dict(learned)
    )


@style_context()
def figure(
    sweep: Sweep, found: breakpoint.Finding, ceiling: float, styles: Mapping[str, Style]
) -> Figure:
    """Both measures in nats above one logarithmic axis of β, hollow where beyond reach.

    Arguments:
        found: its bend is a grey span of its interval.
        ceiling: ln N in nats, a dashed line; NaN draws none.
        styles: of the decoders, by label.
    """
    drawing = canvas(5)
    information, kl = panels = drawing.subplots(2, 1, sharex=True)
    entries = sweep.entries(styles)
    line = entries[CHOSEN]
    for axes, (column, label) in zip(panels, MEASURES.items(), strict=True):
        band(axes, sweep.fixed, "beta", column, line, mark=False)
        _points(axes, sweep.fixed, "beta", column, line, size=5)
        for name, own in sweep.learned.groupby("decoder", sort=False):
            style = styles[name]
            axes.axvline(own["beta"].mean(), color=style.colour, linestyle=style.dash, zorder=1)
            _points(axes, own, "id", column, style, size=7)
        finish(axes, "β = 2σ²" if axes is kl else "", label)
        axes.set_ylim(bottom=min(0, axes.get_ylim()[0]))
    if math.isfinite(ceiling):
        information.axhline(ceiling, color=QUIET, linestyle="--", linewidth=1, zorder=0)
        information.annotate(
            "ln N",
            (1, ceiling),
            xycoords=("axes fraction", "data"),
            xytext=(0, 2),
            textcoords="offset points",
            horizontalalignment="right",
            color="0.35",
        )
        # Room above the ceiling, where the truth may be.
        information.set_ylim(top=1.5 * ceiling)
    kl.set_ylim(top=kl.get_ylim()[1])
    upper = least_upper(sweep.fixed)
    _between(information, sweep.fixed, LOWER, upper)
    _between(kl, sweep.fixed, KL, (sweep.fixed[RATE] - upper).clip(lower=0))
    if found.bend is not None:
        kl.axvspan(found.bend.low, found.bend.high, color="0.85", linewidth=0, zorder=0)
        kl.annotate(
            f"bend of\nthe {found.of}",
            (found.bend.beta, 0.97),
            xycoords=("data", "axes fraction"),
            horizontalalignment="center",
            multialignment="center",
            verticalalignment="top",
            color="0.35",
        )
    kl.set_xscale("log")
    plain_numbers(kl.xaxis)
    legend(drawing, entries, line=True, marker=True)
    return drawing


def _points(
    axes: Axes, runs: pd.DataFrame, each: str, column: str, style: Style, size: int
) -> None:
    """The mean of the runs that share `each`: filled, or hollow where one is beyond reach."""
    told = within_reach(runs).groupby(runs[each]).all()
    means = runs.groupby(each)[["beta", column]].mean()
    for chosen, face, edge, width in (
        (told, style.colour, "white", 0.5),
        (~told, "white", style.colour, 1.2),
    ):
        axes.plot(
            means.loc[chosen, "beta"],
            means.loc[chosen, column],
            linestyle="",
            marker=style.marker,
            markersize=size,
            markeredgecolor=edge,
            markerfacecolor=face,
            markeredgewidth=width,
            zorder=4,
        )


def _between(axes: Axes, runs: pd.DataFrame, column: str, other: pd.Series[float]) -> None:
    """Hatch what is between a bound and the other one, means over the runs of each β."""
    ends = runs.assign(other=other).groupby("beta")[[column, "other"]].mean()
    axes.fill_between(
        ends.index,
        ends[column],
        ends["other"],
        facecolor="none",
        edgecolor="0.88",
        hatch="////",
        linewidth=0,
        zorder=-1,
    )


def _caption(sweep: Sweep, found: breakpoint.Finding, ceiling: float) -> str:
    sentences = [
        "Above: the mutual information of image and latent; below: how far the aggregate "
        "posterior is from the prior. Lines: β-VAEs, the mean over seeds, with a band from the "
        f"smallest to the largest ({seeds(sweep.fixed)}). Hatched: what the other bound leaves "
        "open."
    ]
    if len(sweep.learned):
        sentences.append(
            "Vertical lines: the β = 2σ² that a σ-VAE learned, its runs as single points."
        )
    if math.isfinite(ceiling):
        sentences.append(f"Dashed: ln N = {ceiling:.2f}, the ceiling of the lower bound.")
    if not within_reach(pd.concat([sweep.fixed, sweep.learned])).all():
        sentences.append(
            f"Hollow: unknown, since the bounds are more than {AGREEMENT:g} nats apart."
        )
    sentences.append(found.words)
    if found.bend is not None:
        sentences.append(
            f"The bend is where two lines in ln β fit the {found.of} best; grey: its interval."
        )
    return " ".join(sentences)
