"""What each level of a hierarchy decides: samples that share the levels above."""

from __future__ import annotations

from collections.abc import Iterator

from baselines.levels import levels_to_fix
from bench.records.frame import lines_of
from bench.report.figures.rate_by_group import PARTS
from bench.report.figures.samples import figure, picture_of, rows_of
from bench.report.figures.subset import Sketch, Subset, with_columns

TITLE = "Samples with levels fixed"


def sketches(part: Subset) -> Iterator[Sketch]:
    """A figure for each decoder whose picture is here, of its first seed."""
    for run in lines_of(with_columns(part.completed, PARTS).drop_duplicates("decoder")):
        path = picture_of(run, "groups")
        if path is None:
            continue
        first, *others = levels_to_fix(run[PARTS])
        names = ["nothing fixed", f"{first} fixed", *(f"down to {level} fixed" for level in others)]
        rows = rows_of(path)
        if len(rows) == len(names):
            yield Sketch(
                figure(list(zip(names, rows, strict=True))),
                f"{run['decoder']}: decoder means for draws from the prior, the first seed. Above "
                "all latents differ between columns; in each row below, the levels down to the one "
                "that is named are those of the first image, and the rest is the column's own.",
                run["decoder"],
            )
