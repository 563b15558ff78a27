"""How predictions age: every measure of them by horizon."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd
from matplotlib.figure import Figure

from bench.metric import Units
from bench.metrics import find, heading
from bench.records.frame import column_of
from bench.report.figures.style import QUIET, Style, band, canvas, finish, legend, style_context
from bench.report.figures.subset import Sketch, Subset, chunks_of, points_of, seeds, with_columns
from bench.report.items import PROTOCOL

TITLE = "By horizon"
CURVES = "curves.by_horizon."
MEASURES = {
    "crps": ("prediction_crps", ""),
    "calibration_error": ("prediction_calibration_error", ""),
    "ssim_best": ("ssim_best_K", "ssim_copy"),
    "ssim_mean": ("ssim_mean_K", "ssim_copy"),
    "psnr_best": ("psnr_best_K", "psnr_copy"),
    "psnr_mean": ("psnr_mean_K", "psnr_copy"),
    "fd": ("", ""),
    "diversity": ("rollout_diversity", ""),
}
"""By curve: its metric, which of `fd` the protocol names, and the curve of the last given frame
copied, which no model made."""
ROLLOUTS, DISTANCE = f"{PROTOCOL}rollouts", "protocol.distance.metric"


def sketches(part: Subset) -> Iterator[Sketch]:
    """All decoders of which a prediction was measured."""
    runs = part.completed
    having = [with_columns(runs, CURVES + name) for name in MEASURES]
    runs = runs[runs["id"].isin(pd.concat(having)["id"])]
    for piece, labels in chunks_of(list(dict.fromkeys(runs["decoder"]))):
        own = runs[runs["decoder"].isin(labels)]
        found = [name for name in MEASURES if len(with_columns(own, CURVES + name))]
        copied = any(len(with_columns(own, CURVES + copy)) for _, copy in MEASURES.values())
        yield Sketch(
            figure(own, found, part.styles),
            "Measures of the predicted frames by horizon: 1 is the first frame after the given "
            f"ones. The mean over seeds ({seeds(own)}), with a band from the smallest to the "
            "largest." + (" Dashed grey: the last given frame, copied." if copied else ""),
            piece,
        )


def _heading(runs: pd.DataFrame, name: str) -> str:
    """What a curve's axis is called, with the number of rollouts where all runs have the same."""
    metric, _ = MEASURES[name]
    if name == "fd":
        metrics = column_of(runs, DISTANCE).dropna().unique()
        return heading(metrics[0]) if len(metrics) == 1 else Units.FRECHET
    counts = column_of(runs, ROLLOUTS).dropna().unique()
    if len(counts) == 1:
        return heading(metric.replace("_K", f"_{counts[0]:.0f}"))
    known = find(metric.replace("_K", "_1"))
    return known.heading if known else metric


@style_context()
def figure(runs: pd.DataFrame, names: Sequence[str], styles: Mapping[str, Style]) -> Figure:
    """A panel a measure over the horizon, a line a decoder.

    Arguments:
        runs: completed runs with `decoder` and the lists `by_horizon`.
        names: of `MEASURES`, those to draw.
        styles: of the decoders, by label.
    """
    labels = list(dict.fromkeys(runs["decoder"]))
    lines = math.ceil(len(names) / 2)
    drawing = canvas(2.1 * lines + 0.16 * len(labels) / 2 + 0.3)
    panels = drawing.subplots(lines, 2, squeeze=False, sharex=True).ravel()
    for axes, name in zip(panels, names, strict=False):
        points = points_of(runs, CURVES + name)
        for decoder in labels:
            own = points[points["decoder"] == decoder]
            band(axes, own, "x", "y", styles[decoder], mark=False)
        # The same for every decoder.
        copied = points_of(runs, CURVES + MEASURES[name][1]).groupby("x")["y"].mean()
        axes.plot(copied.index, copied, color=QUIET, linestyle="--", linewidth=1.2, zorder=0)
        finish(axes, "", _heading(runs, name))
        axes.xaxis.get_major_locator().set_params(integer=True)
    for axes in panels[len(names) :]:
        axes.remove()
    # Where the last row is short the panel above its gap ends a column.
    for axes in panels[max(0, len(names) - 2) : len(names)]:
        axes.tick_params(labelbottom=True)
        axes.set_xlabel("horizon, frames")
    legend(drawing, {label: styles[label] for label in labels}, line=True, marker=False)
    return drawing
