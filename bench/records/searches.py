"""The summary of a finished search, `searches/<id>.json`, whichever version wrote it.

An older version searched for one option of a decoder and kept `option`, the range in `search`, a
`value` a trial and one `chosen`. A summary that is read here has `knobs`, and a value of each knob
in `values` of a trial and in `chosen`, which is None where no values worked.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench.grid.knob import Knob
from bench.run import SCHEMA


def current(search: dict[str, Any]) -> dict[str, Any]:
    """A summary as this version writes it.

    >>> how = {"low": 0.1, "high": 10.0, "trials": 4}
    >>> now = current({"option": "beta", "search": how, "trials": [{"value": 1.0}], "chosen": 1.0})
    >>> now["search"], now["trials"], now["chosen"], [knob.name for knob in knobs_of(now)]
    ({'trials': 4}, [{'values': [1.0]}], [1.0], ['beta'])
    """
    if "option" not in search or search.get("schema", SCHEMA) != SCHEMA:
        return search
    search = dict(search)
    how = dict(search["search"])
    knob = Knob(
        part="decoder", option=search.pop("option"), low=how.pop("low"), high=how.pop("high")
    )
    chosen = search["chosen"]
    trials = [
        {"values": [trial["value"]], **{k: v for k, v in trial.items() if k != "value"}}
        for trial in search["trials"]
    ]
    return {
        **search,
        "knobs": [knob.model_dump(mode="json")],
        "search": how,
        "trials": trials,
        "chosen": None if chosen is None else [chosen],
    }


def knobs_of(search: Mapping[str, Any]) -> tuple[Knob, ...]:
    """The options that a search set."""
    return tuple(Knob(**knob) for knob in search["knobs"])


def chosen_by(search: Mapping[str, Any]) -> Iterator[tuple[Knob, float]]:
    """Each option that a search set, with the value that it chose; nothing where none worked."""
    if search["chosen"] is not None:
        yield from zip(knobs_of(search), search["chosen"], strict=True)


def lent_by(search: Mapping[str, Any]) -> Iterator[tuple[Knob, float]]:
    """Those of `chosen_by` that hold for every row of the search's model."""
    yield from (pair for pair in chosen_by(search) if pair[0].each == "model")
