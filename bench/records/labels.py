"""The one writer of "data set · model · decoder"; labels are written here and read nowhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from baselines.options import Spec
from bench.grid.expand import Row
from bench.grid.knob import Knob
from bench.run import Run
from bench.text import plain

JOINT = " · "
TUNED = "tuned"
SYMBOLS = {"beta": "β"}


def symbols(knobs: Sequence[Knob]) -> list[str]:
    """Tuned options as people write them, after their part where two have one name."""
    options = [knob.option for knob in knobs]
    return [
        knob.name if options.count(knob.option) > 1 else SYMBOLS.get(knob.option, knob.option)
        for knob in knobs
    ]


def label(name: str, options: Mapping[str, Any], notes: Sequence[str] = ()) -> str:
    """`name (note, key=value, …)`."""
    inside = ", ".join([*notes, *(f"{key}={plain(value)}" for key, value in options.items())])
    return f"{name} ({inside})" if inside else name


def spec_label(spec: Spec) -> str:
    """The name, and in brackets each option that differs from its default."""
    return label(spec.name, spec.changed)


def run_label(run: Run, knobs: Sequence[Knob] = ()) -> str:
    """`data set · model · decoder` of a run, and what a search set of its training."""
    own = [knob for knob in knobs if knob.part == "training"]
    values = [
        f"{name}={plain(getattr(run.training, knob.option))}"
        for name, knob in zip(symbols(own), own, strict=True)
    ]
    extra = f" [{', '.join(values)}]" if values else ""
    return JOINT.join([run.dataset, spec_label(run.model), spec_label(run.decoder)]) + extra


def row_label(row: Row) -> str:
    """The same of a row; an option that a search chooses has no value yet."""
    run = row.runs[0]
    model = [knob for knob in row.knobs if knob.part == "model"]
    others = [knob for knob in row.knobs if knob.part != "model"]
    return JOINT.join(
        [run.dataset, _tuned_label(run.model, model), _tuned_label(run.decoder, others)]
    )


def _tuned_label(spec: Spec, knobs: Sequence[Knob]) -> str:
    own = {knob.option for knob in knobs if knob.part != "training"}
    options = {key: value for key, value in spec.changed.items() if key not in own}
    return label(spec.name, options, [f"{name} {TUNED}" for name in symbols(knobs)])
