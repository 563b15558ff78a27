"""The one writer of "data set · model · decoder"; labels are written here and read nowhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from baselines.options import Spec
from bench.grid.expand import Row
from bench.grid.knob import Knob, Part
from bench.run import ELBO, Run
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


def part_label(decoder: str, balance: str | None) -> str:
    """A decoder's label, and that of the balance that trains it where it is not the ELBO."""
    return f"{decoder} + {balance}" if balance else decoder


def trained_label(run: Run) -> str:
    """`decoder`, or `decoder + balance` where a balance other than the ELBO trains it."""
    balance = None if run.balance.name == ELBO else spec_label(run.balance)
    return part_label(spec_label(run.decoder), balance)


def run_label(run: Run, knobs: Sequence[Knob] = ()) -> str:
    """`data set · model · decoder` of a run, and what a search set of its training."""
    own = [knob for knob in knobs if knob.part == "training"]
    values = [
        f"{name}={plain(getattr(run.training, knob.option))}"
        for name, knob in zip(symbols(own), own, strict=True)
    ]
    extra = f" [{', '.join(values)}]" if values else ""
    return JOINT.join([run.dataset, spec_label(run.model), trained_label(run)]) + extra


def row_label(row: Row) -> str:
    """The same of a row; an option that a search chooses has no value yet."""
    run = row.runs[0]
    knobs = (*row.knobs, *row.lent)
    told = dict(zip(knobs, symbols(knobs), strict=True))
    alone = run.balance.name == ELBO

    def part(spec: Spec, *parts: Part) -> str:
        own = {knob.option for knob in told if knob.part == parts[0]}
        options = {key: value for key, value in spec.changed.items() if key not in own}
        notes = [f"{name} {TUNED}" for knob, name in told.items() if knob.part in parts]
        return label(spec.name, options, notes)

    decoder = part(run.decoder, "decoder", "training") if alone else part(run.decoder, "decoder")
    balance = None if alone else part(run.balance, "balance", "training")
    return JOINT.join([run.dataset, part(run.model, "model"), part_label(decoder, balance)])
