"""Sample quality against likelihood: the Fréchet distance over bits per dimension."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pandas as pd
from matplotlib.figure import Figure

from bench.metrics import heading, is_distance, is_shown
from bench.records.rows import metrics_of
from bench.report.figures.style import Style, canvas, finish, legend, style_context
from bench.report.figures.subset import Sketch, Subset, with_columns

TITLE = "Sample quality and likelihood"
BITS = "bits_per_dim"


def sketches(part: Subset) -> Iterator[Sketch]:
    """A figure for each extractor under which two decoders have both numbers."""
    found = [n for n in metrics_of(part.rows) if is_distance(n) and is_shown(n)]
    made = "generated images" if part.item == "image" else "predicted frames"
    for metric in found:
        rows = with_columns(part.rows, BITS, metric)
        if len(rows) > 1:
            yield Sketch(
                figure(rows, metric, part.styles),
                f"{heading(metric)} of {made} against bits per dimension of test {part.item}s: "
                "best at the lower left. Means over seeds; bars: the 95 % interval of the mean, "
                "none where there is one seed.",
                heading(metric) if len(found) > 1 else "",
            )


@style_context()
def figure(rows: pd.DataFrame, metric: str, styles: Mapping[str, Style]) -> Figure:
    """The distance `metric` over bits per dimension, a marker a row with its 95 % intervals.

    Arguments:
        rows: of the table's frame, with a value in both.
        styles: of the decoders, by label.
    """
    drawing = canvas(3.6 + 0.16 * len(rows) / 2)
    axes = drawing.subplots()
    for row in rows.to_dict("records"):
        style = styles[row["decoder"]]
        axes.errorbar(
            row[BITS],
            row[metric],
            xerr=row[f"{BITS}_half_width"],
            yerr=row[f"{metric}_half_width"],
            color=style.colour,
            marker=style.marker,
            markersize=7,
            markeredgecolor="white",
            elinewidth=1,
        )
    finish(axes, "bits per dimension", heading(metric))
    labels = {label: styles[label] for label in rows["decoder"]}
    legend(drawing, labels, line=False, marker=True)
    return drawing
