"""The figures of a report: each is drawn where its data exist, in one look, as PNG and PDF."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.records.store import Record
from bench.report.figures import (
    by_frame,
    by_horizon,
    calibration,
    groups,
    information,
    learning,
    predictions,
    quality,
    rate_by_beta,
    rate_by_group,
    rate_distortion,
    samples,
    search,
    temperature,
)
from bench.report.figures.style import save
from bench.report.figures.subset import Sketch, subsets
from bench.report.tables import Table

__all__ = ["SavedFigure", "draw"]

KINDS = (
    predictions,
    by_horizon,
    samples,
    temperature,
    groups,
    learning,
    information,
    rate_by_beta,
    rate_by_group,
    by_frame,
    rate_distortion,
    quality,
    calibration,
    search,
)
"""In the report's order; each has a `TITLE` and `sketches` of a part."""


@dataclass(frozen=True)
class SavedFigure:
    """A figure on disk: its title, what it shows in words, its file name, its PNG and PDF."""

    title: str
    caption: str
    name: str
    paths: list[Path]


def draw(
    table: Table, searches: Sequence[Record], folder: Path, rows: int | None = None
) -> list[SavedFigure]:
    """Draw everything that the table's records have data for, into `folder`.

    Arguments:
        rows: how many of the table's rows are drawn; all by default.
    """
    found = list(subsets(table, searches, rows))
    drawn = []
    for kind in KINDS:
        sketches = [(part.name, sketch) for part in found for sketch in kind.sketches(part)]
        for number, (place, sketch) in enumerate(sketches, start=1):
            name = ", ".join(filter(None, [place, sketch.part]))
            drawn.append(_drawn(kind.TITLE, name, number, sketch, folder))
    return drawn


def _drawn(title: str, name: str, number: int, sketch: Sketch, folder: Path) -> SavedFigure:
    # Names that differ in punctuation alone must not share a file.
    stem = f"{title} {number} {name}" if name else title
    slug = re.sub(r"[^a-z0-9]+", "-", stem.lower().replace("β", "beta")).strip("-")
    return SavedFigure(
        title=f"{title}: {name}" if name else title,
        caption=sketch.caption,
        name=slug,
        paths=save(sketch.figure, folder / slug),
    )
