"""The one writer of "data set · model · decoder"; labels are written here and read nowhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from baselines.options import Spec
from bench.grid.expand import Row
from bench.run import Run
from bench.text import plain

JOINT = " · "
TUNED = "tuned"
SYMBOLS = {"beta": "β"}


def symbol(option: str) -> str:
    """A tuned option as people write it."""
    return SYMBOLS.get(option, option)


def label(name: str, options: Mapping[str, Any], notes: Sequence[str] = ()) -> str:
    """`name (note, key=value, …)`."""
    inside = ", ".join([*notes, *(f"{key}={plain(value)}" for key, value in options.items())])
    return f"{name} ({inside})" if inside else name


def spec_label(spec: Spec) -> str:
    """The name, and in brackets each option that differs from its default."""
    return label(spec.name, spec.changed)


def run_label(run: Run) -> str:
    """`data set · model · decoder` of a run."""
    return JOINT.join([run.dataset, spec_label(run.model), spec_label(run.decoder)])


def row_label(row: Row) -> str:
    """The same of a row; an option that a search chooses has no value yet."""
    run = row.runs[0]
    if row.search is None:
        return run_label(run)
    tuned = label(run.decoder.name, {}, [f"{row.option} {TUNED}"])
    return JOINT.join([run.dataset, spec_label(run.model), tuned])
