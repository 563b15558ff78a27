"""Calibration of p(x|z): how often its intervals hold the truth, and where the truth falls."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping

import pandas as pd
from matplotlib.figure import Figure

from bench.report.figures.style import QUIET, Style, canvas, finish, legend, style_context
from bench.report.figures.subset import Sketch, Subset, chunks_of, seeds, with_columns

TITLE = "Calibration"
NOMINAL, OBSERVED = "curves.coverage.nominal", "curves.coverage.observed"
PIT, PIT_DENSITY = "curves.pit", "curves.pit_density"
FIRST, LAST = "curves.prediction_pit.first", "curves.prediction_pit.last"
COLUMNS = 4


def sketches(part: Subset) -> Iterator[Sketch]:
    """The reliability diagram and the PIT histograms of all decoders, of predictions too."""
    for draw, columns, kind, caption in (
        (
            reliability,
            (NOMINAL, OBSERVED),
            "reliability",
            "The share of test pixels inside the central interval of the 8-bit p(x|z) that should "
            "hold a given share, z drawn from the posterior. On the diagonal a decoder knows its "
            "uncertainty; above it σ is too large, below it too small. Where most pixels are black "
            "a σ that is far too large lies close to the diagonal too. The mean over seeds",
        ),
        (
            pit_histograms,
            (PIT,),
            "PIT",
            "Where test pixels fall in their p(x|z): the density of the randomised PIT of the "
            "8-bit value, the same law for every decoder, 1 everywhere if calibrated. A hump in "
            "the middle means that σ is too large, tails at 0 and 1 that it is too small; black "
            "pixels with a mean of 0 fill the lower half evenly, whatever σ is. Dashed, "
            "of continuous decoders: F(x) of the density itself. It cannot be flat where many "
            "values are exactly 0: their F(x) are all near ½ if the mean is near 0, whatever σ is. "
            "Each panel has its own height, at which a dashed line may be cut off; the grey line "
            "is at 1. The mean over seeds",
        ),
        (
            predicted_histograms,
            (FIRST, LAST),
            "prediction",
            "Where pixels of the frames to predict fall in their prediction, the equal mixture of "
            "the rollouts' 8-bit p(x|z): the density of the randomised PIT, 1 everywhere if "
            "calibrated. Filled: the first predicted frame; dashed: the last. A hump in the middle "
            "means that the prediction is too wide, tails at 0 and 1 that it is too narrow. Each "
            "panel has its own height; the grey line is at 1. The mean over seeds",
        ),
    ):
        runs = with_columns(part.completed, *columns)
        if len(runs):
            # Records of another version may have other points, which have no mean with these.
            points = runs[columns[-1]].map(len)
            runs = runs[points == points.mode().max()]
        for name, labels in chunks_of(list(dict.fromkeys(runs["decoder"]))):
            own = runs[runs["decoder"].isin(labels)]
            part_name = ", ".join(filter(None, [kind, name]))
            yield Sketch(draw(own, part.styles), f"{caption} ({seeds(own)}).", part_name)


@style_context()
def reliability(runs: pd.DataFrame, styles: Mapping[str, Style]) -> Figure:
    """Observed over nominal coverage of central intervals, a line a decoder.

    Arguments:
        runs: completed runs with `decoder` and the lists `NOMINAL`, `OBSERVED`.
        styles: of the decoders, by label.
    """
    labels = list(dict.fromkeys(runs["decoder"]))
    drawing = canvas(4.2 + 0.16 * len(labels) / 2)
    axes = drawing.subplots()
    axes.axline((0, 0), slope=1, color=QUIET, linewidth=1, zorder=0)
    for label, own in runs.groupby("decoder", sort=False):
        style = styles[label]
        axes.plot(
            _mean(own[NOMINAL]), _mean(own[OBSERVED]), color=style.colour, linestyle=style.dash
        )
    axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    finish(axes, "nominal coverage", "observed coverage")
    legend(drawing, {label: styles[label] for label in labels}, line=True, marker=False)
    return drawing


@style_context()
def pit_histograms(runs: pd.DataFrame, styles: Mapping[str, Style]) -> Figure:
    """The density of the probability integral transform, a panel a decoder.

    Arguments:
        runs: completed runs with `decoder` and the list `PIT` of densities in bins of equal width;
            `PIT_DENSITY` is drawn where there is one.
        styles: of the decoders, by label.
    """
    return _histograms(runs, styles, PIT, PIT_DENSITY, "PIT under p(x|z)", fits=False)


@style_context()
def predicted_histograms(runs: pd.DataFrame, styles: Mapping[str, Style]) -> Figure:
    """The same of predictions: the first frame, `FIRST`, and the last, `LAST`."""
    return _histograms(runs, styles, FIRST, LAST, "PIT under the prediction", fits=True)


def _histograms(
    runs: pd.DataFrame, styles: Mapping[str, Style], filled: str, dashed: str, x: str, *, fits: bool
) -> Figure:
    """A panel a decoder: `filled`, and `dashed` where it is, with room for it where it `fits`."""
    groups = list(runs.groupby("decoder", sort=False))
    columns = min(COLUMNS, len(groups))
    lines = math.ceil(len(groups) / columns)
    drawing = canvas(0.4 + 1.45 * lines)
    panels = drawing.subplots(lines, columns, squeeze=False, sharex=True).ravel()
    for axes, (label, own) in zip(panels, groups, strict=False):
        density = _mean(own[filled])
        highest = max(density)
        axes.stairs(density, _edges(density), fill=True, color=styles[label].colour, alpha=0.8)
        if len(having := with_columns(own, dashed)):
            other = _mean(having[dashed])
            if fits:
                highest = max(highest, *other)
            axes.stairs(other, _edges(other), color="0.15", linewidth=0.8, linestyle="--")
        axes.axhline(1, color="0.35", linewidth=1)
        title = textwrap.fill(label, 22, max_lines=4, placeholder=" …")
        axes.set_title(title, loc="left", fontsize=8)
        axes.set(xlim=(0, 1), xticks=(0, 0.5, 1), ylim=(0, max(2, 1.05 * highest)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.get_major_locator().set_params(integer=True, nbins=3)
        finish(axes, "", "")
    for axes in panels[len(groups) :]:
        axes.remove()
    # Where a row is short the panel above its gap ends a column.
    for axes in panels[max(0, len(groups) - columns) : len(groups)]:
        axes.tick_params(labelbottom=True)
    drawing.supxlabel(x, fontsize=9)
    drawing.supylabel("density", fontsize=9)
    return drawing


def _mean(lists: pd.Series) -> list[float]:
    """The mean over runs of lists of equal length, element by element."""
    return [math.fsum(values) / len(lists) for values in zip(*lists, strict=True)]


def _edges(densities: list[float]) -> list[float]:
    return [edge / len(densities) for edge in range(len(densities) + 1)]
