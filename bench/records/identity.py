"""What a row of a table is: a key to match it by, and the labels that are written from it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pydantic import ValidationError

from baselines.options import BALANCES, DECODERS, MODELS, Spec
from bench.grid.knob import Knob
from bench.records.frame import Line, lines_of, missing
from bench.records.labels import TUNED, label, part_label, symbols
from bench.records.searches import chosen_by, knobs_of, lent_by
from bench.records.store import Record
from bench.run import ELBO
from bench.text import plain, setting

# What a row's settings are compared within: another data set has another content anyway, and
# another decoder another source.
_WITHIN = {
    "run.content": "run.dataset",
    "run.plugins.decoder": "run.decoder.name",
    "run.plugins.model": "run.model.name",
    "run.plugins.balance": "run.balance.name",
    "run.evaluation.features.sha256": "run.evaluation.features.name",
}

IMPLIED = {"run.evaluation.split", "run.evaluation.features", "run.evaluation.features.metric"}
SOURCE = "run.evaluation.features.source"

Settings = tuple[tuple[str, str], ...]


class Key(NamedTuple):
    """What tells a row from every other of its table, and what it is matched by in another table.

    `model`, `decoder` and `balance`, which is empty for the ELBO, are JSON with every default
    filled in; of a search's row `tuned` names the options that it set, which they leave out.
    `settings` are those in which rows of the table differ that are alike in all else; a row without
    such a twin has none.
    """

    dataset: str
    model: str
    decoder: str
    tuned: tuple[str, ...]
    settings: Settings
    balance: str = ""


class Recorded(NamedTuple):
    """A part of a run as a record holds it: all its options, and those not at their defaults."""

    name: str
    options: Mapping[str, Any]
    changed: Mapping[str, Any]

    def without(self, part: str, tuned: Sequence[Knob]) -> Recorded:
        """The same, as that part of a run, less the options that a search set."""
        own = {knob.option for knob in tuned if knob.part == part}
        parts = ({k: v for k, v in options.items() if k not in own} for options in self[1:])
        return Recorded(self.name, *parts)

    @property
    def canonical(self) -> str:
        return json.dumps({"name": self.name, **self.options}, sort_keys=True, default=str)


def recorded(registry: Mapping[str, type[Spec]], prefix: str, line: Line) -> Recorded:
    """The model, decoder or balance in the columns `prefix.…` of a record's line.

    One that is not here (of another version, or a user's own) holds what the record says of it.
    """
    options = {
        column.removeprefix(f"{prefix}."): value
        for column, value in line.items()
        if column.startswith(f"{prefix}.")
    }
    name = options.pop("name")
    kind = registry.get(name)
    if kind is not None:
        own = {key: _native(value) for key, value in options.items() if key in kind.model_fields}
        try:
            spec = kind.model_validate({"name": name, **own})
        except ValidationError:
            pass
        else:
            values = spec.model_dump(mode="json", exclude={"name"})
            return Recorded(name, values, spec.changed)
    known = {key: value for key, value in options.items() if not missing(value)}
    return Recorded(str(name), known, known)


def _native(value: Any) -> Any:
    """An option as its record has it: a column that some rows lack holds NaN and floats."""
    if missing(value):
        return None
    return int(value) if isinstance(value, float) and value.is_integer() else value


_FORMERLY = Knob(part="decoder", option="beta", low=1e-3, high=10)
"""What a search set whose summary is lost: once it could be nothing else."""


def identify(lines: pd.DataFrame, searches: Mapping[str, Record]) -> pd.DataFrame:
    """The identity of each row, under the same index.

    Columns: `dataset`; `model` and `decoder`, labels, the second with that of a balance other than
    the ELBO; `entry`, the same without the values that a search chose; `family`, the decoder's
    name; `tuned`, the options that a search set, as text; `balance`, its name, where a row has
    another than the ELBO; `settings`, those in which the rows differ, as text; `key`, see `Key`.

    Arguments:
        lines: the first record of each row, with its `search`, which is empty where it has none.
        searches: their summaries by id.
    """
    records = lines_of(lines)
    found = [searches.get(line["search"]) for line in records]
    values = [_values(line, searches) for line in records]
    knobs = [tuple(chosen) for chosen in values]
    settings = _differing_settings(lines, knobs)
    models, decoders = (
        [
            recorded(registry, f"run.{part}", line).without(part, tuned)
            for line, tuned in zip(records, knobs, strict=True)
        ]
        for part, registry in (("model", MODELS), ("decoder", DECODERS))
    )
    balances = [
        None
        if missing(line.get("run.balance.name"))
        else recorded(BALANCES, "run.balance", line).without("balance", tuned)
        for line, tuned in zip(records, knobs, strict=True)
    ]
    table = pd.DataFrame(index=lines.index)
    table["dataset"] = lines["run.dataset"]
    table["model"] = [
        label(model.name, model.changed, _of_the_model(tuned))
        for model, tuned in zip(models, knobs, strict=True)
    ]
    full, short = [], []
    for chosen, decoder, balance, differing in zip(
        values, decoders, balances, settings, strict=True
    ):
        extra = f" [{_text(differing)}]" if differing else ""
        notes = [TUNED, *_chosen(chosen)] if chosen else []
        full.append(_label(decoder, balance, notes) + extra)
        short.append(_label(decoder, balance, notes[:1]) + extra)
    # Two searches may choose the same value: their ids tell them apart.
    suffixes = [
        f" [{row}]" if twin else ""
        for row, twin in zip(lines.index, _twins(table, full), strict=True)
    ]
    full, short = ([a + b for a, b in zip(part, suffixes, strict=True)] for part in (full, short))
    table["decoder"] = full
    table["entry"] = [
        long if twin else brief
        for long, brief, twin in zip(full, short, _twins(table, short), strict=True)
    ]
    table["family"] = [decoder.name for decoder in decoders]
    table["tuned"] = [", ".join(knob.name for knob in tuned) for tuned in knobs]
    if any(balances):
        table["balance"] = [balance.name if balance else ELBO for balance in balances]
    table["settings"] = [_text(differing) for differing in settings]
    keys = [
        Key(
            line["run.dataset"],
            model.canonical,
            decoder.canonical,
            tuple(knob.name for knob in tuned),
            differing + _search_settings(line["search"], search),
            balance.canonical if balance else "",
        )
        for line, search, model, decoder, balance, tuned, differing in zip(
            records, found, models, decoders, balances, knobs, settings, strict=True
        )
    ]
    table["key"] = _unique(keys, lines.index)
    return table


def _label(decoder: Recorded, balance: Recorded | None, notes: Sequence[str]) -> str:
    """A decoder and its balance; notes on the choice of any option stand with the last."""
    if balance is None:
        return label(decoder.name, decoder.changed, notes)
    weighed = label(balance.name, balance.changed, notes)
    return part_label(label(decoder.name, decoder.changed), weighed)


def _of_the_model(tuned: Sequence[Knob]) -> list[str]:
    """Its options that are tuned: their values stand with the decoder's, as they are the row's."""
    return [f"{name} {TUNED}" for name in symbols([k for k in tuned if k.part == "model"])]


def _values(line: Line, searches: Mapping[str, Record]) -> dict[Knob, Any]:
    """The options that searches set in a row, its own and that of another row, with their values.

    A value is missing where its search found none.
    """
    values: dict[Knob, Any] = {}
    if line["search"]:
        search = searches.get(line["search"])
        own = knobs_of(search) if search else (_FORMERLY,)
        chosen = dict(chosen_by(search)) if search else {_FORMERLY: line.get(_FORMERLY.column)}
        values = {knob: chosen.get(knob) for knob in own}
    lender = searches.get(line.get("protocol.selection.shared", ""))
    if lender:
        values |= dict(lent_by(lender))
    return values


def _chosen(values: Mapping[Knob, Any]) -> Iterator[str]:
    """The values that searches set in a row, as `β=0.01`."""
    if any(missing(value) for value in values.values()):
        yield "no value worked"
        return
    for name, value in zip(symbols(list(values)), values.values(), strict=True):
        yield f"{name}={plain(value)}"


def _twins(table: pd.DataFrame, labels: Sequence[str]) -> pd.Series[bool]:
    return table[["dataset", "model"]].assign(of=labels).duplicated(keep=False)


def _search_settings(identity: str, search: Record | None) -> Settings:
    if not identity:
        return ()
    how = {"knobs": search["knobs"], **search["search"]} if search else {}
    return (("search", json.dumps(how, sort_keys=True) if search else identity),)


def _unique(keys: Sequence[Key], rows: Iterable[Any]) -> list[Key]:
    """The same without settings where the rest tells a row from all others."""
    bare, whole = Counter(key._replace(settings=()) for key in keys), Counter(keys)

    def shortest(key: Key, row: Any) -> Key:
        if bare[key._replace(settings=())] == 1:
            return key._replace(settings=())
        return key if whole[key] == 1 else key._replace(settings=(*key.settings, ("row", str(row))))

    return [shortest(key, row) for key, row in zip(keys, rows, strict=True)]


def _differing_settings(lines: pd.DataFrame, knobs: Sequence[Sequence[Knob]]) -> list[Settings]:
    """For each line its settings in which the lines differ: training, evaluation, data, code.

    One that a search set is told with the row's choice instead.
    """
    own = [{knob.column for knob in tuned} for tuned in knobs]
    measured = lines["id"].notna()

    def differs(column: str) -> bool:
        by_hand = measured & np.array([column not in tuned for tuned in own], dtype=bool)
        within = _WITHIN.get(column) or "schema"
        groups = lines.loc[by_hand, column].groupby(lines.loc[by_hand, within], dropna=False)
        return bool(groups.nunique(dropna=False).max() > 1)  # NaN for no rows

    differing = list(filter(differs, _settings(lines)))
    return [
        ()
        if missing(line["id"])
        else tuple((_name(key), "none" if missing(line[key]) else setting(line[key]))
                   for key in differing if key not in tuned)
        for line, tuned in zip(lines_of(lines), own, strict=True)
    ]  # fmt: skip


def _settings(lines: pd.DataFrame) -> Iterator[str]:
    parts = ("run.training.", "run.evaluation.", "run.plugins.")
    for column in lines:
        own = column.startswith(parts) or column in ("run.content", "run.split_seed")
        if own and column not in IMPLIED | {SOURCE}:
            yield column


def _name(column: str) -> str:
    return column.removeprefix("run.").removeprefix("training.").removesuffix(".name")


def _text(settings: Settings) -> str:
    return ", ".join(f"{name}={value}" for name, value in settings)
