"""What a row of a table is: a key to match it by, and the labels that are written from it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd
from pydantic import ValidationError

from baselines.options import DECODERS, MODELS, Spec
from bench.records.frame import Line, lines_of, missing
from bench.records.labels import TUNED, label, symbol
from bench.records.store import Record
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

    `model` and `decoder` are JSON with every default filled in; of a search's row `tuned` names the
    option, which `decoder` leaves out. `settings` are those in which rows of the table differ that
    are alike in all else; a row without such a twin has none.
    """

    dataset: str
    model: str
    decoder: str
    tuned: str
    settings: Settings


class Recorded(NamedTuple):
    """A model or a decoder as a record holds it: all its options, and those not at defaults."""

    name: str
    options: Mapping[str, Any]
    changed: Mapping[str, Any]

    def without(self, option: str) -> Recorded:
        """The same less one option."""
        parts = ({k: v for k, v in part.items() if k != option} for part in self[1:])
        return Recorded(self.name, *parts)

    @property
    def canonical(self) -> str:
        return json.dumps({"name": self.name, **self.options}, sort_keys=True, default=str)


def recorded(registry: Mapping[str, type[Spec]], prefix: str, line: Line) -> Recorded:
    """The model or decoder in the columns `prefix.…` of a record's line.

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


def identify(lines: pd.DataFrame, searches: Mapping[str, Record]) -> pd.DataFrame:
    """The identity of each row, under the same index.

    Columns: `dataset`; `model` and `decoder`, labels; `entry`, the decoder's label without the
    value that a search chose; `family`, the decoder's name; `tuned`, the option that a search
    chose, or empty; `settings`, those in which the rows differ, as text; `key`, see `Key`.

    Arguments:
        lines: the first record of each row, with its `search`, which is empty where it has none.
        searches: their summaries by id.
    """
    records = lines_of(lines)
    settings = _differing_settings(lines)
    models = [recorded(MODELS, "run.model", line) for line in records]
    decoders = [recorded(DECODERS, "run.decoder", line) for line in records]
    found = [searches.get(line["search"]) for line in records]
    tuned = [
        (search["option"] if search else "beta") if line["search"] else ""
        for line, search in zip(records, found, strict=True)
    ]
    table = pd.DataFrame(index=lines.index)
    table["dataset"] = lines["run.dataset"]
    table["model"] = [label(model.name, model.changed) for model in models]
    full, short = [], []
    for line, search, decoder, option, differing in zip(
        records, found, decoders, tuned, settings, strict=True
    ):
        extra = f" [{_text(differing)}]" if differing else ""
        full.append(_label(decoder, option, line, search) + extra)
        notes = [TUNED] if option else []
        short.append(label(decoder.name, decoder.without(option).changed, notes) + extra)
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
    table["tuned"] = tuned
    table["settings"] = [_text(differing) for differing in settings]
    keys = [
        Key(
            line["run.dataset"],
            model.canonical,
            decoder.without(option).canonical,
            option,
            differing + _search_settings(line["search"], search),
        )
        for line, search, model, decoder, option, differing in zip(
            records, found, models, decoders, tuned, settings, strict=True
        )
    ]
    table["key"] = _unique(keys, lines.index)
    return table


def _label(decoder: Recorded, option: str, line: Line, search: Record | None) -> str:
    if not option:
        return label(decoder.name, decoder.changed)
    value = search["chosen"] if search else line.get(f"run.decoder.{option}")
    chosen = "no value worked" if missing(value) else f"{symbol(option)}={plain(value)}"
    return label(decoder.name, decoder.without(option).changed, [TUNED, chosen])


def _twins(table: pd.DataFrame, labels: Sequence[str]) -> pd.Series[bool]:
    return table[["dataset", "model"]].assign(of=labels).duplicated(keep=False)


def _search_settings(identity: str, search: Record | None) -> Settings:
    if not identity:
        return ()
    return (("search", json.dumps(search["search"], sort_keys=True) if search else identity),)


def _unique(keys: Sequence[Key], rows: Iterable[Any]) -> list[Key]:
    """The same without settings where the rest tells a row from all others."""
    bare, whole = Counter(key._replace(settings=()) for key in keys), Counter(keys)

    def shortest(key: Key, row: Any) -> Key:
        if bare[key._replace(settings=())] == 1:
            return key._replace(settings=())
        return key if whole[key] == 1 else key._replace(settings=(*key.settings, ("row", str(row))))

    return [shortest(key, row) for key, row in zip(keys, rows, strict=True)]


def _differing_settings(lines: pd.DataFrame) -> list[Settings]:
    """For each line its settings in which the lines differ: training, evaluation, data, code."""
    measured = lines[lines["id"].notna()]
    differing = [
        column for column in _settings(lines) if _differs(measured, column, _WITHIN.get(column))
    ]
    return [
        ()
        if missing(line["id"])
        else tuple((_name(key), "none" if missing(line[key]) else setting(line[key]))
                   for key in differing)
        for line in lines_of(lines)
    ]  # fmt: skip


def _settings(lines: pd.DataFrame) -> Iterator[str]:
    parts = ("run.training.", "run.evaluation.", "run.plugins.")
    for column in lines:
        own = column.startswith(parts) or column in ("run.content", "run.split_seed")
        if own and column not in IMPLIED | {SOURCE}:
            yield column


def _differs(measured: pd.DataFrame, column: str, within: str | None) -> bool:
    groups = measured[column].groupby(measured[within or "schema"], dropna=False)
    return bool(groups.nunique(dropna=False).max() > 1)


def _name(column: str) -> str:
    return column.removeprefix("run.").removeprefix("training.").removesuffix(".name")


def _text(settings: Settings) -> str:
    return ", ".join(f"{name}={value}" for name, value in settings)
