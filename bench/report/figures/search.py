"""The search for options: every trial's score and cost, the choice, the σ-VAEs' own β."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.metrics import heading, sign
from bench.records.labels import SYMBOLS, symbols
from bench.records.searches import chosen_by, knobs_of
from bench.records.store import Record
from bench.records.validity import COMPLETED
from bench.report.captions import edges_of
from bench.report.figures import sweep
from bench.report.figures.style import QUIET, Style, canvas, finish, plain_numbers, style_context
from bench.report.figures.subset import Sketch, Subset
from bench.text import words

TITLE = "Search"
BETA = SYMBOLS["beta"]
CHOSEN, OTHER = "#0173b2", "0.45"
"""The trial that won, and all others."""


def sketches(part: Subset) -> Iterator[Sketch]:
    """A figure for each search that has a trial."""
    drawn = [search for search in part.searches if search["trials"]]
    for number, search in enumerate(drawn, start=1):
        names = symbols(knobs_of(search))
        learned = _learned(part.completed) if BETA in names else {}
        yield Sketch(
            figure(search, learned, part.styles),
            _caption(search, learned),
            words(names) + (f" {number}" if len(drawn) > 1 else ""),
        )


def _learned(runs: pd.DataFrame) -> dict[str, float]:
    """The mean over seeds of β = 2σ² by the label of each σ-VAE."""
    means = sweep.learned(runs).groupby("decoder", sort=False)["beta"].mean()
    return {str(label): float(beta) for label, beta in means.items()}


@style_context()
def figure(search: Record, learned: Mapping[str, float], styles: Mapping[str, Style]) -> Figure:
    """Score above and seconds below, over each option's values; trials numbered in order.

    Arguments:
        search: a search's summary.
        learned: β = 2σ² by the label of a σ-VAE, drawn over β.
        styles: of those decoders.
    """
    knobs = knobs_of(search)
    drawing = canvas(4.6)
    grid = drawing.subplots(
        2, len(knobs), sharex="col", sharey="row", height_ratios=(3, 1), squeeze=False
    )
    for place, (name, knob) in enumerate(zip(symbols(knobs), knobs, strict=True)):
        score, cost = grid[:, place]
        _scores(score, search, place)
        for trial in search["trials"]:
            look = {"color": CHOSEN if trial["values"] == search["chosen"] else OTHER}
            cost.vlines(trial["values"][place], 0, trial["seconds"], linewidth=2.5, **look)
        for label, beta in learned.items() if name == BETA else ():
            for axes in (score, cost):
                axes.axvline(
                    beta,
                    color=styles[label].colour,
                    linestyle=styles[label].dash,
                    zorder=1,
                    label=f"{label}: learned {name} = {beta:.2g}" if axes is score else None,
                )
        cost.set_ylim(bottom=0)
        score.margins(y=0.1)
        objective = f"{heading(search['search']['objective'])}, validation"
        finish(score, "", "" if place else objective)
        finish(cost, name, "" if place else "seconds")
        if knob.scale == "log":
            cost.set_xscale("log")
            plain_numbers(cost.xaxis)
    found = [axes.get_legend_handles_labels() for axes in grid[0]]
    entries = {label: handle for pair in found for handle, label in zip(*pair, strict=True)}
    drawing.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=2)
    return drawing


def _scores(axes: Axes, search: Record, place: int) -> None:
    """The score of every trial over its value of one knob."""
    trials, startup = search["trials"], search["search"].get("startup", 0)
    # A search minimises; what it maximises is drawn as itself.
    direction = sign(search["search"]["objective"])
    kinds: dict[str, dict[str, Any]] = {
        "evenly spaced trial": {
            "markerfacecolor": "white",
            "color": OTHER,
            "markeredgewidth": 1.2,
        },
        "trial of the sampler": {"color": OTHER},
        "chosen": {"color": CHOSEN},
        "no score": {"marker": "x", "color": OTHER, "markeredgewidth": 1.5},
    }
    points: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    for number, trial in enumerate(trials, start=1):
        value = trial["values"][place]
        if trial["score"] is None:
            points["no score"].append((value, 0.97))
            height, where = 0.97, ("data", "axes fraction")
        else:
            kind = "evenly spaced trial" if number <= startup else "trial of the sampler"
            kind = "chosen" if trial["values"] == search["chosen"] else kind
            height, where = direction * trial["score"], ("data", "data")
            points[kind].append((value, height))
        axes.annotate(
            str(number),
            (value, height),
            xycoords=where,
            xytext=(5, 4),
            textcoords="offset points",
            fontsize=8,
            color="0.25",
        )
    for kind, places in points.items():
        if places:
            look: dict[str, Any] = {
                "marker": "o",
                "markersize": 7,
                "linestyle": "",
                "zorder": 3,
                **kinds[kind],
            }
            if kind == "no score":  # at the upper edge, whatever the scores are
                look["transform"] = axes.get_xaxis_transform()
            axes.plot(*zip(*places, strict=True), label=kind, **look)
    if search["chosen"] is not None:
        axes.axvline(search["chosen"][place], color=QUIET, linewidth=1, zorder=0)


def _caption(search: Record, learned: Mapping[str, float]) -> str:
    knobs, cost = knobs_of(search), search["cost"]
    names = symbols(knobs)
    lost = sum(trial["status"] != COMPLETED for trial in search["trials"])
    values = [value for _, value in chosen_by(search)]
    won = words([f"{name} = {value:g}" for name, value in zip(names, values, strict=False)])
    found = f"{won} won" if values else f"no {words(names, 'or')} worked"
    ranges = [
        f"{name} between {knob.low:g} and {knob.high:g}"
        for name, knob in zip(names, knobs, strict=True)
    ]
    together = " together" if len(knobs) > 1 else ""
    sentences = [
        f"Every trial of the search for {words(ranges)}{together}, "
        f"numbered in order: above its score on the validation split, below its seconds. "
        f"{len(search['trials'])} trials took {cost['runs']} runs and {cost['seconds']:.0f} "
        f"seconds; {found}."
    ]
    if lost:
        sentences.append(f"A cross is a trial without a score ({lost}).")
    sentences += [f"{beyond}." for beyond in edges_of(search)]
    if learned:
        sentences.append(
            "Vertical lines in colour: the β = 2σ² that σ-VAEs learned without any search."
        )
    return " ".join(sentences)
