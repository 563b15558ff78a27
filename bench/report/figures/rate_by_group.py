"""Where a hierarchy's rate lies: by group of latents, and summed over those of a resolution."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from baselines.levels import by_level
from bench.records.frame import lines_of
from bench.report.figures.style import QUIET, Style, band, canvas, finish, legend, style_context
from bench.report.figures.subset import Sketch, Subset, chunks_of, seeds, with_columns

TITLE = "Rate by group"
PARTS, RATES = "curves.rate_by_part.parts", "curves.rate_by_part.rate"

LINEAR = 0.1
"""Nats below which the axis is linear, so that a group without any rate has a place on it."""


def sketches(part: Subset) -> Iterator[Sketch]:
    """The decoders of each hierarchy together."""
    runs = with_columns(part.completed, PARTS, RATES)
    # Two versions of a user's model may differ in their groups.
    hierarchies = runs.groupby(runs.get(PARTS, pd.Series(dtype=object)).map(tuple), sort=False)
    for parts, alike in hierarchies:
        kind = f"{len(parts)} groups" if hierarchies.ngroups > 1 else ""
        for piece, labels in chunks_of(list(dict.fromkeys(alike["decoder"]))):
            own = alike[alike["decoder"].isin(labels)]
            several = len(by_level(parts)) < len(parts)
            yield Sketch(
                figure(own, parts, part.styles),
                "The rate of each group of latents, nats per image, the top group first"
                + ("; on the right the sum over groups of one resolution" if several else "")
                + f". The mean over seeds ({seeds(own)}), with a band from the smallest to the "
                f"largest. The axis is linear below {LINEAR:g} nats.",
                ", ".join(filter(None, [kind, piece])),
            )


@style_context()
def figure(runs: pd.DataFrame, parts: Sequence[str], styles: Mapping[str, Style]) -> Figure:
    """The rate by part, and by level where one has several parts.

    Arguments:
        runs: with `decoder` and the rates of `parts`.
        styles: of the decoders, by label.
    """
    levels = by_level(parts)
    level_of = {part: place for place, own in enumerate(levels.values()) for part in own}
    points = pd.DataFrame(
        {"run": run["id"], "decoder": run["decoder"], "rate": rate}
        | {"part": place, "level": level_of[part]}
        for run in lines_of(runs)
        for place, (part, rate) in enumerate(zip(parts, run[RATES], strict=True))
    )
    sums = points.groupby(["run", "decoder", "level"], sort=False, as_index=False)["rate"].sum()
    several = len(levels) < len(parts)
    labels = list(dict.fromkeys(runs["decoder"]))
    drawing = canvas(3.2 + 0.16 * len(labels) / 2)
    panels = drawing.subplots(1, 1 + several, squeeze=False, width_ratios=(2, 1)[: 1 + several])[0]
    for axes, values, column in zip(panels, (points, sums), ("part", "level"), strict=False):
        for label in labels:
            own = values[values["decoder"] == label]
            band(axes, own, column, "rate", styles[label], mark=True)
        axes.set_yscale("symlog", linthresh=LINEAR)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    finish(panels[0], "group, top first", "rate, nats per image")
    _levels(panels[0], [len(own) for own in levels.values()], list(levels))
    if several:
        finish(panels[1], "resolution", "sum, nats per image")
        _levels(panels[1], [1] * len(levels), list(levels))
    legend(drawing, {label: styles[label] for label in labels}, line=True, marker=True)
    return drawing


def _levels(axes: Axes, sizes: Sequence[int], names: Sequence[str]) -> None:
    """Name each level in the middle of its groups, with a line between it and the next."""
    ends = list(itertools.accumulate(sizes))
    middles = [end - 0.5 - size / 2 for end, size in zip(ends, sizes, strict=True)]
    # A resolution has few groups of many beside it.
    axes.set_xticks(middles, names, rotation=90 if len(names) > 4 else 0)
    for end in ends[:-1]:
        axes.axvline(end - 0.5, color=QUIET, linewidth=0.5, zorder=0)
