"""Samples of a decoder at several temperatures, from the same latents times each."""

from __future__ import annotations

from collections.abc import Iterator

from bench.metrics import at_temperature
from bench.records.frame import lines_of
from bench.report.figures.samples import figure, picture_of, strip
from bench.report.figures.subset import Sketch, Subset, with_columns

TITLE = "Samples by temperature"
TEMPERATURES = "run.evaluation.temperatures"


def sketches(part: Subset) -> Iterator[Sketch]:
    """A figure for each decoder whose pictures are here, of its first seed."""
    runs = with_columns(part.completed, TEMPERATURES).drop_duplicates("decoder")
    for run in lines_of(runs):
        names = {1.0: "samples"} | {t: at_temperature("samples", t) for t in run[TEMPERATURES]}
        found = {t: picture_of(run, name) for t, name in sorted(names.items())}
        strips = [(f"t = {t:g}", strip(path)) for t, path in found.items() if path is not None]
        if len(strips) > 1:
            yield Sketch(
                figure(strips, bold=("t = 1",)),
                f"{run['decoder']}: decoder means for draws from the prior times t, the first "
                "seed. A column has the same draw in every row. Likelihoods and the headline "
                "distance are those of t = 1.",
                run["decoder"],
            )
