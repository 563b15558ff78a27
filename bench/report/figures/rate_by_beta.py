"""The rate against β, beside that of the best linear VAE and the β at which it collapses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from baselines.beta import linear_rate
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

TITLE = "Rate against β"
RATE, SPECTRUM = "metrics.rate", "curves.spectrum"

LINEAR = 1
"""Nats below which the axis is linear, so that a collapsed code has a place on it."""

PLACES = 200
"""Values of β at which the line is computed."""


def sketches(part: Subset) -> Iterator[Sketch]:
    """A figure for each sweep of β; the line is there where a record has the data's eigenvalues."""
    for sweep in sweeps(with_columns(part.completed, RATE)):
        spectrum = _spectrum(sweep)
        yield Sketch(figure(sweep, spectrum, part.styles), _caption(sweep, spectrum), sweep.setting)


def _spectrum(sweep: Sweep) -> Sequence[float]:
    """The eigenvalues that the runs' latents can use, falling; empty where no record has them."""
    found = with_columns(sweep.fixed, SPECTRUM)
    return list(found[SPECTRUM].iloc[0]) if len(found) else []


@style_context()
def figure(sweep: Sweep, spectrum: Sequence[float], styles: Mapping[str, Style]) -> Figure:
    """The rate in nats over a logarithmic axis of β.

    Arguments:
        spectrum: of the covariance of the training images; none draws no line.
        styles: of the decoders, by label.
    """
    drawing = canvas(3.6)
    axes = drawing.subplots()
    entries = sweep.entries(styles)
    line = entries[CHOSEN]
    band(axes, sweep.fixed, "beta", RATE, line, mark=True)
    for name, own in sweep.learned.groupby("decoder", sort=False):
        style = styles[name]
        axes.plot(
            own["beta"],
            own[RATE],
            color=style.colour,
            linestyle="",
            marker=style.marker,
            markersize=7,
            markeredgecolor="white",
            zorder=4,
        )
    axes.set_xscale("log")
    axes.set_yscale("symlog", linthresh=LINEAR, linscale=0.5)
    if spectrum:
        _theory(axes, spectrum, sweep)
    plain_numbers(axes.xaxis)
    finish(axes, "β = 2σ²", "rate, nats")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.set_ylim(bottom=0)
    legend(drawing, entries, line=False, marker=True)
    return drawing


def _theory(axes: Axes, spectrum: Sequence[float], sweep: Sweep) -> None:
    """The line of the best linear VAE, and where it collapses."""
    collapse = 2 * spectrum[0]
    betas = np.concatenate([sweep.fixed["beta"], sweep.learned["beta"]]).astype(float)
    places = np.geomspace(betas.min(), max(betas.max(), collapse), PLACES)
    rates = [linear_rate(spectrum, beta / 2) for beta in places]
    axes.plot(places, rates, color="0.35", linestyle="--", linewidth=1.2, zorder=2)
    left = len(places) // 8
    axes.annotate(
        f"best linear VAE,\n{len(spectrum)} latents",
        (places[left], rates[left]),
        xytext=(0, -8),
        textcoords="offset points",
        horizontalalignment="center",
        verticalalignment="top",
        color="0.35",
    )
    axes.axvline(collapse, color=QUIET, linestyle=":", linewidth=1.2, zorder=1)
    axes.annotate(
        "2λ₁",
        (collapse, 0.97),
        xycoords=("data", "axes fraction"),
        xytext=(-3, 0),
        textcoords="offset points",
        horizontalalignment="right",
        verticalalignment="top",
        color="0.35",
    )


def _caption(sweep: Sweep, spectrum: Sequence[float]) -> str:
    sentences = [
        "The rate, nats that the latent carries, at each fixed β: the mean over seeds, with a band "
        f"from the smallest to the largest ({seeds(sweep.fixed)}). The axis is linear below "
        f"{LINEAR} nat."
    ]
    if len(sweep.learned):
        sentences.append("Single points: the runs of a σ-VAE at the β = 2σ² that it learned.")
    if spectrum:
        sentences.append(
            f"Dashed: the best linear VAE of {len(spectrum)} latents, ½ Σ ln(λ/σ²) over the "
            "eigenvalues λ of the training images' covariance that exceed σ². It collapses at "
            f"β = 2λ₁ = {2 * spectrum[0]:.3g}, the dotted line."
        )
    return " ".join(sentences)
