"""What the name of a metric in a record means, by its entry in the catalogue."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Literal

from bench.catalogue import METRICS
from bench.metric import RELATIVE, Direction, Metric, Place, Threshold, Units

FEW_DRAWS = 2.0
"""The mean effective sample size, but at most K/2, below which an importance-weighted bound of K
draws is loose by an unknown amount."""


@cache
def find(name: str) -> Metric | None:
    """The entry of a metric by its name in a record, the most specific one; None if there is none.

    A standard error has no entry.
    """
    fits = [metric for metric in METRICS if metric.pattern.fullmatch(name)]
    return max(fits, key=lambda metric: len(metric.name), default=None)


def heading(name: str) -> str:
    """A metric as tables, axes and captions call it; without an entry, its name."""
    metric = find(name)
    if metric is None:
        return name.replace("_", " ")
    text = metric.heading
    for group, value in _groups(metric, name).items():
        text = text.replace("K" if group == "K" else f"<{group}>", value.replace("_", " "))
    in_top = metric.home == "information" and name.endswith("_top")
    return f"{text}, top group" if in_top else text


def at_temperature(name: str, temperature: float) -> str:
    """What a metric or a picture of prior draws is called where they are times a temperature.

    >>> at_temperature("fid", 0.7), find("fid_t0.7").name
    ('fid_t0.7', 'fid_t<t>')
    """
    return f"{name}_t{temperature:g}"


def floor_of(name: str) -> str:
    """What a distance is called where real images stand in place of a model's.

    >>> floor_of("fid"), find("fd_x_floor").name
    ('fid_floor', 'fd_<extractor>_floor')
    """
    return f"{name}_floor"


def _groups(metric: Metric, name: str) -> dict[str, str]:
    match = metric.pattern.fullmatch(name)
    return match.groupdict() if match else {}


def better(name: str) -> Direction | None:
    """The better direction of a metric; None where there is none, and for a number of a plugin."""
    metric = find(name)
    return metric.better if metric else None


def sign(name: str) -> Literal[1, -1]:
    """What a metric is multiplied by to be minimised."""
    return -1 if better(name) == "higher" else 1


def threshold(name: str) -> Threshold:
    """The smallest difference of a metric that matters by default."""
    metric = find(name)
    return metric.threshold if metric else RELATIVE


def draws(name: str) -> int:
    """The number K of weighted draws in a metric's name, 0 where there is none."""
    metric = find(name)
    return int(_groups(metric, name).get("K", 0)) if metric else 0


def is_loose(name: str, metrics: Mapping[str, float]) -> bool:
    """Whether a metric is an importance-weighted bound that one or two draws dominate.

    Its bias is then unknown and larger than its Monte Carlo error. `metrics` are those of a record
    or of a row.
    """
    few = min(FEW_DRAWS, draws(name) / 2)
    return metrics.get(f"{name}_ess", math.inf) < few


def extractor(name: str) -> str:
    """The feature network in a metric's name, empty where there is none."""
    metric = find(name)
    return _groups(metric, name).get("extractor", "") if metric else ""


def is_distance(name: str) -> bool:
    """Whether a metric is a Fréchet distance, of whichever images and extractor."""
    metric = find(name)
    return metric is not None and metric.units is Units.FRECHET


def is_sliced(name: str) -> bool:
    """Whether a metric is the sliced distance of a model's images."""
    metric = find(name)
    return metric is not None and metric.units is Units.SLICED and metric.better is not None


def is_objective(name: str) -> bool:
    """Whether a search can optimise a metric."""
    metric = find(name)
    return metric is not None and metric.objective


def is_shown(name: str, place: Place = "table") -> bool:
    """Whether a metric is shown unasked at a place."""
    metric = find(name)
    return metric is not None and place in metric.shown


def order(name: str) -> int:
    """A key that sorts names as a table has them: those that it shows first, all others equal."""
    shown = [metric for metric in METRICS if "table" in metric.shown]
    metric = find(name)
    return shown.index(metric) if metric in shown else len(shown)
