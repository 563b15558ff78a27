"""The one look of every figure: sizes, a style for each decoder, axes, legends, files."""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.style
import pandas as pd
import seaborn
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.files import write_bytes

Colour = tuple[float, float, float]

WIDTH = 6.4
"""Inches: narrow, so that nine points are still read where a page shows 390 pixels of it."""

DPI = 200

HUES = (0, 1, 2, 3, 4, 9, 5, 7)
"""Of seaborn's colour-blind palette, without its yellow and its pale pink: faint on white."""

DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1, 1.2)))

MARKERS = "os^DvPX"
"""Seven markers and eight hues: 56 decoders before a pair of them repeats."""

QUIET = "0.6"
"""The grey of everything that is no decoder's: bounds, guides, diagonals."""


@dataclass(frozen=True)
class Style:
    """How one decoder is drawn, everywhere."""

    colour: Colour
    dash: Any
    marker: str


def styles(families: Iterable[tuple[str, str]]) -> dict[str, Style]:
    """A style for each label: families differ in hue, dash and marker, members in shade.

    Arguments:
        families: label and decoder's name of each row; the order decides.
    """

    members_of: dict[str, list[str]] = {}
    for label, family in dict.fromkeys(families):
        members_of.setdefault(family, []).append(label)
    palette = seaborn.color_palette("colorblind")
    found: dict[str, Style] = {}
    for place, members in enumerate(members_of.values()):
        shades = _shades(palette[HUES[place % len(HUES)]], len(members))
        dash = DASHES[place // len(HUES) % len(DASHES)]
        marker = MARKERS[place % len(MARKERS)]
        found |= {
            label: Style(shade, dash, marker) for label, shade in zip(members, shades, strict=True)
        }
    return found


def _shades(colour: Colour, count: int) -> list[Colour]:

    if count == 1:
        return [colour]
    light = [0.35 + 0.65 * part for part in colour]
    dark = [0.55 * part for part in colour]
    return [tuple(shade[:3]) for shade in seaborn.blend_palette([dark, colour, light], count)]


@contextmanager
def style_context() -> Iterator[None]:
    """The settings of matplotlib while a figure is made or written, whatever the user's own are."""

    own = {
        "figure.constrained_layout.use": True,
        "figure.constrained_layout.w_pad": 0.08,
        "figure.constrained_layout.h_pad": 0.08,
        "font.size": 9,
        "axes.labelsize": 9,
        "axes.titlesize": 9,
        "axes.linewidth": 0.8,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "legend.fontsize": 8,
        "legend.frameon": False,
        "lines.linewidth": 1.6,
        "lines.markersize": 5,
        "lines.markeredgewidth": 0.5,
        # A label may hold any text, such as a path with two dollar signs.
        "text.parse_math": False,
        # Type 42: letters that a journal's checks and a text search know.
        "pdf.fonttype": 42,
    }
    sheets = ["default", seaborn.axes_style("ticks"), seaborn.plotting_context("paper"), own]
    with matplotlib.style.context(sheets), warnings.catch_warnings():
        # A letter that the font lacks is a box in the figure; the page beside it has the letter.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def canvas(height: float) -> Figure:
    """An empty figure of the common width, `height` inches high."""

    return Figure(figsize=(WIDTH, height))


def band(axes: Axes, points: pd.DataFrame, x: str, y: str, style: Style, mark: bool) -> None:
    """A line through the mean over seeds at each x, a band from the smallest to the largest.

    Arguments:
        mark: whether each x has a marker; a line of a single point has one anyhow.
    """
    values = points.groupby(x)[y].agg(["mean", "min", "max"]).dropna()
    axes.plot(
        values.index,
        values["mean"],
        color=style.colour,
        linestyle=style.dash,
        marker=style.marker if mark or len(values) == 1 else "",
        markeredgecolor="white",
    )
    axes.fill_between(
        values.index,
        values["min"],
        values["max"],
        color=style.colour,
        alpha=0.2,
        linewidth=0,
    )


def finish(axes: Axes, x: str, y: str) -> None:
    """Name the axes and take away the frame's upper and right side."""

    axes.set(xlabel=x, ylabel=y)
    seaborn.despine(ax=axes)


def plain_numbers(axis: Axis) -> None:
    """Name a logarithmic axis's ticks 0.1, 1, 10, with 2 and 5 among them where there is room.

    Call it when all is drawn: the range decides.
    """
    low, high = sorted(axis.get_view_interval())
    room = high / low < 40
    axis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_minor_formatter(
        lambda value, _: f"{value:g}" if room and f"{value:e}"[0] in "25" else ""
    )


def legend(figure: Figure, entries: Mapping[str, Style], line: bool, marker: bool) -> None:
    """One legend below all panels, in as many columns as its longest name allows."""

    names = [textwrap.fill(name, 44, break_on_hyphens=False) for name in entries]
    handles = [
        Line2D(
            [],
            [],
            color=style.colour,
            linestyle=style.dash if line else "",
            marker=style.marker if marker else "",
            markeredgecolor="white",
        )
        for style in entries.values()
    ]
    longest = max(len(part) for name in names for part in name.splitlines())
    columns = max(1, min(4, len(names), math.floor(100 / (longest + 8))))
    figure.legend(handles, names, loc="outside lower center", ncols=columns)


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write `<stem>.png` and `<stem>.pdf`; the same figure gives the same bytes."""
    paths = []
    for suffix, options in (
        (".png", {"dpi": DPI}),
        (".pdf", {"metadata": {"CreationDate": None}}),
    ):
        content = io.BytesIO()
        with style_context():
            figure.savefig(content, format=suffix[1:], **options)
        # The second file keeps the layout that the first one computed.
        figure.set_layout_engine("none")
        path = stem.with_name(stem.name + suffix)
        write_bytes(path, content.getvalue())
        paths.append(path)
    return paths
