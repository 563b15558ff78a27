"""The rate-distortion plane: where each method ends on or off the curve that all fixed β walk.

Decoders have distortions in nats of their own, which do not compare. The squared error of the mean
does, and is a likelihood once σ fits it: -log p is then D/2 (ln 2π MSE + 1) + rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.records.frame import Line, column_of, lines_of, missing
from bench.report.figures.style import (
    QUIET,
    Style,
    canvas,
    finish,
    legend,
    plain_numbers,
    style_context,
)
from bench.report.figures.subset import Sketch, Subset, chunks_of, seeds, with_columns
from bench.text import counted

TITLE = "Rate and distortion"
RATE, MSE, DIMENSIONS = "metrics.rate", "metrics.mse", "protocol.likelihood.dimensions"
NAME, BETA = "run.decoder.name", "run.decoder.beta"
UNIT_BETA = 2.0
"""2σ² of the decoder `gaussian`, whose σ is 1."""

LEAST = 3
"""Values of β that make a curve."""


def sketches(part: Subset) -> Iterator[Sketch]:
    """One figure of all methods that have both, where there are two at least, or a curve."""
    runs = _positive(part.completed)
    curves = [curve for curve in _curves(runs, _positive(part.trials)) if len(curve) >= LEAST]
    entries = _entries(part, runs, curves)
    if len(entries) < 2 and not curves:
        return
    for name, labels in chunks_of(list(entries)) if entries else [("", [])]:
        chosen = {label: entries[label] for label in labels}
        own = runs[runs["decoder"].isin(labels)]
        drawing = figure(own, curves, chosen, part.styles)
        budgets = any(text != label for label, text in chosen.items())
        caption = _caption(own if len(own) else runs, curves, part.item, budgets=budgets)
        yield Sketch(drawing, caption, name)


def _positive(runs: pd.DataFrame) -> pd.DataFrame:
    """Those with a rate and an error, which a logarithmic axis takes unless it is 0."""
    found = with_columns(runs, RATE, MSE)
    return found[found[MSE].astype(float) > 0] if len(found) else found


def _curves(runs: pd.DataFrame, trials: pd.DataFrame) -> list[pd.DataFrame]:
    """What β-VAEs that differ in β alone reach: `beta`, `rate`, `mse` and `tried`, by rising β.

    A point is the mean over a row's seeds or, where no row has that β, a trial of a search
    (`tried`), which was scored on validation images.
    """
    fixed = pd.concat([_fixed(runs, tried=False), _fixed(trials, tried=True)], ignore_index=True)
    found: list[pd.DataFrame] = []
    if fixed.empty:
        return found
    rows = set(fixed.loc[~fixed["tried"], "alike"])
    for alike, group in fixed.groupby("alike", sort=False):
        # A trial of another setting than every row's is no part of this table.
        if alike not in rows:
            continue
        means = group.groupby(["beta", "tried"], as_index=False)[["rate", "mse"]].mean()
        # The rows come first.
        found.append(means.drop_duplicates("beta").sort_values("beta", ignore_index=True))
    return found


def _fixed(runs: pd.DataFrame, *, tried: bool) -> pd.DataFrame:
    """The runs with a σ that was chosen: `beta` = 2σ², and what else decides their training."""
    columns = ["beta", "rate", "mse", "tried", "alike"]
    own = runs[column_of(runs, NAME).isin(("beta", "gaussian"))]
    told = [column for column in own if column.startswith("run.") or column in (RATE, MSE)]
    lines = lines_of(own[told])
    return pd.DataFrame(
        [(_beta(line), line[RATE], line[MSE], tried, _alike(line)) for line in lines],
        columns=columns,
    ).astype({"beta": float, "rate": float, "mse": float, "tried": bool})


def _beta(line: Line) -> float:
    return float(line[BETA]) if line[NAME] == "beta" else UNIT_BETA


def _alike(line: Line) -> str:
    """All of a run but its β, its seed and its evaluation, as text."""
    other = ("run.seed", "run.data", NAME, BETA)
    own = {
        column: str(value)
        for column, value in line.items()
        if column.startswith("run.")
        and not column.startswith("run.evaluation")
        and column not in other
        and not missing(value)
    }
    return str(sorted(own.items()))


def _entries(part: Subset, runs: pd.DataFrame, curves: Sequence[pd.DataFrame]) -> dict[str, str]:
    """The methods by label, each with its budget; β set by hand is the curve's, if there is one."""
    found = {}
    for row in lines_of(part.rows):
        label, tuned = row["decoder"], row["tuning_runs"]
        if label not in set(runs["decoder"]):
            continue
        by_hand = row["family"] == "beta" and not row["tuned"]
        if by_hand and curves:
            continue
        found[label] = f"{label}: {counted(int(tuned), 'tuning run')}" if tuned else label
    return found


@style_context()
def figure(
    runs: pd.DataFrame,
    curves: Sequence[pd.DataFrame],
    entries: Mapping[str, str],
    styles: Mapping[str, Style],
) -> Figure:
    """The squared error, on a logarithmic axis, over the rate in nats.

    Arguments:
        runs: completed runs with `decoder` and both metrics.
        curves: as `_curves` returns them.
        entries: what the legend says of each label.
        styles: of the decoders, by label.
    """
    drawing = canvas(4.2 + 0.16 * len(entries) / 2)
    axes = drawing.subplots()
    axes.set_yscale("log")
    for curve in curves:
        _curve(axes, curve)
    for label in entries:
        own, style = runs[runs["decoder"] == label], styles[label]
        look: dict[str, Any] = {"color": style.colour, "linestyle": "", "marker": style.marker}
        axes.plot(own[RATE], own[MSE], markersize=3, alpha=0.5, markeredgewidth=0, **look)
        axes.plot(
            own[RATE].mean(),
            own[MSE].mean(),
            markersize=8,
            markeredgecolor="white",
            zorder=4,
            **look,
        )
    finish(axes, "rate, nats", "squared error of the mean, per dimension")
    axes.margins(x=0.08)
    _guides(axes, runs)
    for curve in curves:
        _name_betas(axes, curve)
    plain_numbers(axes.yaxis)
    looks = {text: replace(styles[label], dash="") for label, text in entries.items()}
    if curves:
        looks["β-VAE at a fixed β"] = Style((0.6, 0.6, 0.6), "-", "")
    legend(drawing, looks, True, True)
    return drawing


def _curve(axes: Axes, curve: pd.DataFrame) -> None:
    axes.plot(curve["rate"], curve["mse"], color=QUIET, linewidth=1.2, zorder=1)
    for tried, face in ((False, QUIET), (True, "white")):
        own = curve[curve["tried"] == tried]
        axes.plot(
            own["rate"],
            own["mse"],
            linestyle="",
            marker="o",
            markersize=4,
            color=QUIET,
            markerfacecolor=face,
            markeredgecolor=QUIET,
            markeredgewidth=1,
            zorder=2,
        )


def _name_betas(axes: Axes, curve: pd.DataFrame) -> None:
    """Write β beside the points of a curve, where there is room. Call it when all is drawn."""
    (left, right), (low, high) = axes.get_xlim(), np.log(axes.get_ylim())
    written: list[tuple[float, float]] = []
    for point in lines_of(curve):
        # As shares of the axes.
        x = (point["rate"] - left) / (right - left)
        y = (math.log(point["mse"]) - low) / (high - low)
        if any(abs(x - a) < 0.08 and abs(y - b) < 0.06 for a, b in written):
            continue
        axes.annotate(
            ("" if written else "β = ") + f"{point['beta']:.3g}",
            (point["rate"], point["mse"]),
            xytext=(4, 4),
            textcoords="offset points",
            fontsize=7,
            color="0.35",
        )
        written.append((x, y))


def _guides(axes: Axes, runs: pd.DataFrame) -> None:
    """Lines of equal -log p with the σ that fits: ½ D ln MSE + rate is constant."""
    known = runs.get(DIMENSIONS, pd.Series(dtype=float)).dropna()
    if known.empty:
        return
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    places = np.linspace(left, right, 50)
    fall = np.exp(-2 * (places - left) / float(known.iloc[0]))
    for start in np.geomspace(low, high / fall[-1], 9)[1:]:
        axes.plot(places, start * fall, color="0.9", linewidth=0.8, zorder=0)
    axes.set(xlim=(left, right), ylim=(low, high))


def _caption(
    runs: pd.DataFrame, curves: Sequence[pd.DataFrame], item: str, *, budgets: bool
) -> str:
    sentences = [
        f"The rate, nats that the latent carries of a test {item}, and the squared error of the "
        "decoder's mean at one posterior draw, which compares across decoders. A σ that fits this "
        "error makes it a likelihood, whose -log p is equal along each light line and less towards "
        f"the lower left. Large: the mean over seeds; small: the runs ({seeds(runs)}).",
    ]
    if curves:
        sentences.append(
            "Grey: the curve that β-VAEs walk, with the β of each point"
            + (
                "; hollow points are trials of a search, scored on validation images"
                if any(curve["tried"].any() for curve in curves)
                else ""
            )
            + "."
        )
    if budgets:
        sentences.append("The legend says how many runs chose the value of a tuned option.")
    return " ".join(sentences)
