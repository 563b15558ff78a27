"""Where the nats of a sequence lie: -log p and the rate by frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd
from matplotlib.figure import Figure

from bench.metrics import heading
from bench.records.frame import lines_of
from bench.report.figures.learning import KINDS
from bench.report.figures.style import QUIET, Style, band, canvas, finish, legend, style_context
from bench.report.figures.subset import Sketch, Subset, chunks_of, points_of, seeds, with_columns

TITLE = "By frame"
CURVES = "curves.by_frame."
GIVEN = "protocol.likelihood.given"
PANELS = ("neg_log_p", "rate")


def sketches(part: Subset) -> Iterator[Sketch]:
    """All decoders that are likelihoods; probabilities share no axis with densities."""
    runs = with_columns(part.completed, *(f"{CURVES}{name}" for name in PANELS))
    for discrete, kind in KINDS.items():
        alike = runs[runs["discrete"] == discrete]
        for piece, labels in chunks_of(list(dict.fromkeys(alike["decoder"]))):
            own = alike[alike["decoder"].isin(labels)]
            yield Sketch(
                figure(own, part.styles),
                "-log p and the rate of each frame, given those before it, nats per frame; frames "
                "are counted from 0, and the first is never scored. Left of the grey line are the "
                "frames that a prediction is given. The mean over seeds "
                f"({seeds(own)}), with a band from the smallest to the largest.",
                ", ".join(filter(None, [kind, piece])),
            )


@style_context()
def figure(runs: pd.DataFrame, styles: Mapping[str, Style]) -> Figure:
    """-log p and the rate over the frame, a line a decoder.

    Arguments:
        runs: completed runs with `decoder` and the lists `by_frame`.
        styles: of the decoders, by label.
    """
    labels = list(dict.fromkeys(runs["decoder"]))
    drawing = canvas(3.2 + 0.16 * len(labels) / 2)
    panels = drawing.subplots(1, len(PANELS))
    for axes, name in zip(panels, PANELS, strict=True):
        # The first scored frame is frame 1.
        points = points_of(runs, f"{CURVES}{name}")
        for label in labels:
            own = points[points["decoder"] == label]
            band(axes, own, "x", "y", styles[label], mark=False)
        for given in {run[GIVEN] for run in lines_of(with_columns(runs, GIVEN))}:
            axes.axvline(given - 0.5, color=QUIET, linewidth=1, zorder=0)
        finish(axes, "frame", f"{heading(name)}, nats per frame")
        axes.xaxis.get_major_locator().set_params(integer=True)
    legend(drawing, {label: styles[label] for label in labels}, line=True, marker=False)
    return drawing
