"""Samples of every decoder from the same latents, and along β (Fig. 3)."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image

from bench.records.frame import Line, lines_of
from bench.report.figures.style import WIDTH, canvas, style_context
from bench.report.figures.subset import Sketch, Subset, chunks_of, with_columns
from bench.report.figures.sweep import sweeps

Pixels = npt.NDArray[np.uint8]


TITLE = "Samples"
ACROSS = 8
"""Images in a row of a run's picture, with one pixel of white around each."""
SHOWN = 12
"""Of them in a figure; more are too small on a phone."""
LABEL = 1.5
"""Inches for the decoder's name."""


def sketches(part: Subset) -> Iterator[Sketch]:
    """All decoders; then each sweep of β, the learned ones in their places."""
    runs = part.completed
    strips = _strips(_first_seeds(runs))
    for name, piece in chunks_of(list(strips)):
        yield Sketch(
            figure([(label, strips[label]) for label in piece]),
            "Decoder means for draws from the prior, of each decoder's first seed. A column has "
            "the same latent in every row; the decoders have learned to use it by themselves, so "
            "equal images are not to be expected.",
            name,
        )
    for sweep in sweeps(runs):
        yield from _along(sweep.fixed, sweep.learned, strips, sweep.setting)


def _along(
    fixed: pd.DataFrame, learned: pd.DataFrame, strips: Mapping[str, Pixels], setting: str
) -> Iterator[Sketch]:
    def betas(runs: pd.DataFrame) -> dict[str, float]:
        return {k: v for k, v in runs.groupby("decoder")["beta"].mean().items() if k in strips}

    chosen, own = betas(fixed), betas(learned)
    if len(chosen) < 2:
        return
    order = sorted([*chosen, *own], key=(chosen | own).__getitem__, reverse=True)
    lines = [
        (f"{label}\nlearned β = {own[label]:.2g}" if label in own else f"β = {chosen[label]:.4g}")
        for label in order
    ]
    yield Sketch(
        figure(
            [(line, strips[label]) for line, label in zip(lines, order, strict=True)],
            bold={line for line, label in zip(lines, order, strict=True) if label in own},
        ),
        "Decoder means for the same draws from the prior, by falling β; in bold the σ-VAEs at the "
        "β = 2σ² that they learned. The first seed of each.",
        ", ".join(filter(None, ["along β", setting])),
    )


def _first_seeds(runs: pd.DataFrame) -> pd.DataFrame:
    """The first run with a picture of each decoder."""
    return with_columns(runs, "artifacts.samples").drop_duplicates("decoder")


def _strips(runs: pd.DataFrame) -> dict[str, Pixels]:
    """A row of images by decoder, from the pictures that are on disk."""
    found: dict[str, Pixels] = {}
    for run in lines_of(runs):
        path = picture_of(run, "samples")
        if path is not None:
            found[run["decoder"]] = strip(path)
    return found


def picture_of(run: Line, name: str) -> Path | None:
    """The file of a run's picture, where there is one."""
    file = run.get(f"artifacts.{name}")
    path: Path | None = run["folder"] / file if isinstance(file, str) else None
    return path if path is not None and path.is_file() else None


def strip(path: Path) -> Pixels:
    """The first `SHOWN` images of a run's picture side by side, (H, W, 3); any other file whole."""
    rows = rows_of(path)
    if len(rows) == 1:
        return rows[0]
    cell = rows[0].shape[0] - 1
    return np.concatenate([row[:, :-1] for row in rows], axis=1)[:, : SHOWN * cell + 1]


def rows_of(path: Path) -> list[Pixels]:
    """The rows of images of a run's picture, (H, W, 3) each; of any other file one, the whole."""
    with Image.open(path) as picture:
        pixels: Pixels = np.asarray(picture.convert("RGB"))
    height, width = pixels.shape[:2]
    cell = (width - 1) // ACROSS
    if cell < 2 or width != cell * ACROSS + 1 or (height - 1) % cell:
        return [pixels]
    return [pixels[top : top + cell + 1] for top in range(0, height - 1, cell)]


@style_context()
def figure(strips: Sequence[tuple[str, Pixels]], bold: Collection[str] = ()) -> Figure:
    """One strip of images below the other, each with its name on the left.

    Arguments:
        strips: name and pixels (H, W, 3), from top to bottom.
        bold: names to emphasise.
    """
    heights = [(WIDTH - LABEL) * pixels.shape[0] / pixels.shape[1] for _, pixels in strips]
    drawing = canvas(sum(heights) + 0.04 * len(heights))
    drawing.set_layout_engine("constrained", w_pad=0.04, h_pad=0.02, wspace=0, hspace=0)
    panels: Any = drawing.subplots(
        len(strips), 2, squeeze=False, width_ratios=(LABEL, WIDTH - LABEL), height_ratios=heights
    )
    for (name, pixels), (side, axes) in zip(strips, panels, strict=True):
        side.text(
            0,
            0.5,
            "\n".join(textwrap.fill(line, 22) for line in name.splitlines()),
            verticalalignment="center",
            fontsize=8,
            fontweight="bold" if name in bold else "normal",
        )
        side.set_axis_off()
        axes.imshow(pixels, aspect="auto")
        axes.set_axis_off()
    return drawing
