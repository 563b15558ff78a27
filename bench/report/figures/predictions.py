"""Film strips: what came, and what every decoder predicted of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from bench.records.frame import lines_of
from bench.report.figures.samples import Pixels
from bench.report.figures.samples import figure as strips_figure
from bench.report.figures.style import style_context
from bench.report.figures.subset import Sketch, Subset, chunks_of, with_columns
from bench.report.items import GIVEN, PREDICTED
from bench.report.rollouts import STRIPS, Sheet, sheet_of

TITLE = "Predictions"
CLIPS = 2
"""Clips of a sheet that are drawn, a figure each; the page's players show all."""
COLUMNS = 12
"""Frames in a strip; more are too small on a phone."""
BEFORE = 3
"""Of them given ones, where frames have to be left out."""


def sketches(part: Subset) -> Iterator[Sketch]:
    """A figure for each of the first clips, of every decoder's first seed."""
    runs = with_columns(part.completed, "artifacts.rollouts", GIVEN, PREDICTED)
    sheets: dict[str, Sheet] = {}
    for run in lines_of(runs.drop_duplicates("decoder")):
        if (found := sheet_of(run["folder"], run)) is not None:
            sheets[run["decoder"]] = found
    for number, (given, films) in enumerate(_of_equal_truth(sheets), start=1):
        others = f"other clips {number - 1}" if number > 1 else ""
        for clip in range(min(CLIPS, len(next(iter(films.values()))))):
            for piece, labels in chunks_of(list(films)):
                shown = {label: films[label][clip] for label in labels}
                name = ", ".join(filter(None, [f"clip {clip + 1}", others, piece]))
                yield Sketch(figure(shown, given), _caption(given), name)


def _of_equal_truth(sheets: Mapping[str, Sheet]) -> Iterator[tuple[int, dict[str, Pixels]]]:
    """The frames of decoders that predict the same clips, with how many frames these give."""
    alike: dict[tuple[Any, ...], dict[str, Pixels]] = {}
    for label, found in sheets.items():
        pixels = found.pixels()
        alike.setdefault((found.given, pixels.shape, pixels[:, 0].tobytes()), {})[label] = pixels
    for (given, *_), films in alike.items():
        yield given, films


def _caption(given: int) -> str:
    return (
        "One clip of the split and every decoder's predictions of it, of its first seed: what came "
        "(truth), the best and the worst rollout by their likeness to it, and the mean of all "
        f"rollouts; decoder means. Frames are counted from 0; the first {given} are given, left of "
        "the line. A best rollout is picked with the truth in hand."
    )


def places(given: int, frames: int) -> list[int]:
    """The frames that a strip has room for: the last given ones, then evenly to the last.

    >>> places(5, 30)
    [2, 3, 4, 5, 8, 11, 14, 17, 20, 23, 26, 29]
    """
    if frames <= COLUMNS:
        return list(range(frames))
    before = list(range(max(0, given - BEFORE), given))
    rest = np.linspace(given, frames - 1, min(COLUMNS - len(before), frames - given))
    return [*before, *map(int, rest.round())]


@style_context()
def figure(films: Mapping[str, Pixels], given: int) -> Figure:
    """The truth above, and below it the best, the worst and the mean of each decoder's rollouts.

    Arguments:
        films: frames (strips, frames, side, side, 3) by decoder, the truth the same in all.
        given: frames left of the line.
    """
    first = next(iter(films.values()))
    shown = places(given, first.shape[1])
    rows = [(STRIPS[0], _strip(first[0, shown], top=0))]
    for label, film in films.items():
        for place, name in enumerate(STRIPS[1:], start=1):
            # A little room above each decoder.
            strip = _strip(film[place, shown], top=first.shape[2] // 4 if place == 1 else 0)
            rows.append((f"{label}\n{name}" if place == 1 else name, strip))
    drawing = strips_figure(rows)
    cell = first.shape[2] + 1
    _label_frames(drawing, shown, cell)
    edge = cell * sum(place < given for place in shown) - 0.5
    for axes in drawing.axes[1::2]:
        axes.axvline(edge, color="0.15", linewidth=1.2)
    return drawing


def _strip(frames: Pixels, top: int) -> Pixels:
    """Frames (frames, side, side, 3) side by side, white between them and `top` pixels above."""
    framed = np.pad(frames, ((0, 0), (top, 1), (0, 1), (0, 0)), constant_values=255)
    return np.concatenate(list(framed), axis=1)


def _label_frames(drawing: Figure, shown: Sequence[int], cell: int) -> None:
    above = drawing.axes[1]
    for column, place in enumerate(shown):
        above.text(
            (column + 0.5) * cell - 1,
            -1,
            str(place),
            horizontalalignment="center",
            verticalalignment="bottom",
            fontsize=7,
        )
