"""What a metric is: its name, its units, its direction, and where it is shown."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Literal

Direction = Literal["lower", "higher"]
Home = Literal[
    "likelihood",
    "balance",
    "iwae",
    "information",
    "activity",
    "calibration",
    "sample_quality",
    "reconstruction",
    "prediction",
]
Place = Literal["table", "overview", "findings", "progress"]
"""Where a metric is shown unasked: the table, data sets side by side, the report's sentences, the
line about a finished run."""


class Units(StrEnum):
    """What a metric counts, hence what it compares with."""

    OWN = "nats of p(x|z) as the decoder has it, a density or a probability"
    DENSITY = "nats of a density on [0, 1]"
    PROBABILITY = "bits of a probability of the 8-bit image"
    FRECHET = "Fréchet distance"
    VIDEO = "Fréchet distance of videos"
    KERNEL = "kernel distance"
    SHARE = "share between 0 and 1"
    DECIBEL = "dB"
    NATS = "nats"
    NONE = "none"


@dataclass(frozen=True)
class Threshold:
    """The smallest difference of means that matters, in `unit`s."""

    value: float
    unit: Literal["of the metric", "of the baseline", "per dimension"]

    def of(self, baseline: float, dimensions: int) -> float:
        """The threshold in the metric's own units.

        Arguments:
            baseline: the mean that a relative threshold is a part of.
            dimensions: numbers in an image.
        """
        scale = {
            "of the metric": 1.0,
            "of the baseline": abs(baseline),
            "per dimension": float(dimensions),
        }
        return self.value * scale[self.unit]


RELATIVE = Threshold(0.01, "of the baseline")
# 0.16 nats of an MNIST image, the last digit that papers print; with ten latents in use a KL
# weight of 1.05 moves the distortion by 0.24 (½ ln 1.05 a latent).
NATS = Threshold(2e-4, "per dimension")
# The same, 2e-4 / ln 2.
BITS = Threshold(3e-4, "of the metric")
COVERAGE = Threshold(0.005, "of the metric")
MANIFOLD = Threshold(0.01, "of the metric")
# A hundredth of a squared error, as of `mse`.
DECIBELS = Threshold(0.04, "of the metric")
# Distances of a few thousand samples scatter by percents.
DISTANCE = Threshold(0.02, "of the baseline")


@dataclass(frozen=True)
class Metric:
    """What a number means.

    name: in it, K is a number of draws, `<extractor>` the name of a feature network and `<t>` a
        temperature. A metric of information is also found with `_top` behind its name: of a
        hierarchy's top group alone.
    better: None where neither direction is.
    home: the module of `bench.evaluation` that computes it.
    label: its heading, where that is not the name with spaces; K, `<extractor>` and `<t>` as in the
        name.
    threshold: the smallest difference that the regression gate cares about.
    shown: where it is shown unasked; in the order of the catalogue.
    expendable: whether a narrow terminal may leave it out.
    objective: whether a search can optimise it.
    compares: the generated images of a Fréchet distance, as `run.SampleKind` names them, or
        `tempered`: decoder means of prior draws times a temperature.
    """

    name: str
    better: Direction | None
    units: Units
    home: Home
    meaning: str
    label: str = ""
    threshold: Threshold = RELATIVE
    shown: tuple[Place, ...] = ()
    expendable: bool = False
    objective: bool = False
    compares: Literal["means", "sampled", "reconstructions", "tempered"] | None = None

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Matches the names that records hold; groups `K`, `extractor` and `t`."""
        # `<name>_se` is a standard error: no extractor is called so.
        name = re.escape(self.name).replace("<extractor>", r"(?P<extractor>\S+(?<!_se))")
        name = name.replace("<t>", r"(?P<t>\d+(?:\.\d+)?(?:e[+-]\d+)?)")
        top = "(?:_top)?" if self.home == "information" else ""
        return re.compile(re.sub(r"_K(?=_|$)", r"_(?P<K>[1-9]\\d*)", name) + top)

    @property
    def heading(self) -> str:
        return self.label or self.name.replace("_", " ")
