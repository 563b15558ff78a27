"""The mixture experiment's picture: data, centres and one-σ circles under each variance rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench.report.figures.look import WIDTH, canvas, looked
from bench.report.figures.part import Part, Sketch, measured

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    Numbers = npt.NDArray[np.float64]

TITLE = "Mixtures"
COLUMNS = 2
FITTED, TRUE, DATA = "tab:red", "0.25", "0.65"
LEGEND = 0.4
"""Inches below the panels."""


class Fitted(NamedTuple):
    """Points (N, 2), the mixture fitted to them, and the one that they were drawn from.

    Centres are (K, 2), σ is (K,); `neg_log_p` is of held-out points, in nats per point.
    """

    neg_log_p: float
    points: Numbers
    means: Numbers
    sigmas: Numbers
    true_means: Numbers
    true_sigmas: Numbers


def sketches(part: Part) -> Iterator[Sketch]:
    """A panel for each variance rule: the fit of its first completed seed."""
    runs = measured(part.completed, "run.experiment")
    if runs.empty:
        return
    first = runs[runs["run.experiment"] == "mixture"].drop_duplicates("decoder")
    fits = {
        run["decoder"]: read(run["folder"] / run["artifacts.weights"], run["metrics.neg_log_p"])
        for run in first.to_dict("records")
    }
    if fits:
        seeds = ", ".join(str(int(seed)) for seed in sorted(first["run.seed"].unique()))
        yield Sketch(
            figure(fits),
            "Training points and the components fitted to them: a cross is a centre, a circle has "
            "the radius σ around it, a dashed one that of the mixture that made the points. "
            "Components that coincide look like one. -log p: of held-out points, in "
            f"nats per point. Seed {seeds}.",
        )


def read(weights: Path, neg_log_p: float) -> Fitted:
    """What a run of the mixture experiment keeps as its weights."""
    from safetensors.numpy import load_file

    tensors = load_file(weights)
    return Fitted(
        neg_log_p,
        tensors["points"],
        tensors["fit.means"],
        tensors["fit.variances"] ** 0.5,
        tensors["truth.means"],
        tensors["truth.variances"] ** 0.5,
    )


@looked()
def figure(fits: Mapping[str, Fitted]) -> Figure:
    """Draw a panel for each fit, under its name, all to one scale."""
    import seaborn

    columns = min(COLUMNS, len(fits))
    rows = -(-len(fits) // columns)
    drawing = canvas(WIDTH / columns * rows + LEGEND)
    panels = drawing.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, (name, fit) in zip(panels, fits.items(), strict=False):
        _panel(axes, fit)
        axes.set(title=f"{name}, -log p {fit.neg_log_p:.2f}", aspect="equal")
        seaborn.despine(ax=axes)
    for axes in panels[len(fits) :]:
        axes.remove()
    handles, labels = panels[0].get_legend_handles_labels()
    drawing.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return drawing


def _panel(axes: Axes, fit: Fitted) -> None:
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Circle

    horizontal, vertical = fit.points.T
    axes.scatter(horizontal, vertical, s=5, color=DATA, linewidths=0, label="data")
    for means, sigmas, colour, dash in (
        (fit.true_means, fit.true_sigmas, TRUE, (0, (4, 3))),
        (fit.means, fit.sigmas, FITTED, "-"),
    ):
        circles = [Circle(mean, sigma) for mean, sigma in zip(means, sigmas, strict=True)]
        axes.add_collection(
            PatchCollection(
                circles, facecolor="none", edgecolor=colour, linestyle=dash, linewidth=1.4
            )
        )
    axes.plot([], [], color=TRUE, linestyle=(0, (4, 3)), label="σ, true mixture")
    axes.plot([], [], color=FITTED, label="σ, fitted")
    horizontal, vertical = fit.means.T
    axes.plot(horizontal, vertical, "+", color=FITTED, markersize=8, label="centre, fitted")
    axes.autoscale_view()
