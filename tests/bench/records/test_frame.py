"""Records as a frame, from folders or from memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.files import write_checked
from bench.records.frame import flat, load
from bench.records.store import Record, Store
from bench.run import SCHEMA


def add(store: Store, identity: str, **changes: Any) -> Record:
    record: Record = {
        "schema": SCHEMA,
        "id": identity,
        "run": {"seed": 0},
        "status": "completed",
        **changes,
    }
    write_checked(store.runs / identity / "record.json", record)
    return record


def test_nested_values_have_dotted_names() -> None:
    nested = {"a": {"b": {"c": 1}, "d": (2, 3)}, "e": {}}
    assert flat(nested) == {"a.b.c": 1, "a.d": (2, 3)}


def test_a_table_of_some_runs_has_their_searches_and_those_that_found_nothing(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path)
    one, two = add(store, "1"), add(store, "2")
    for name, runs in (("a", ["1"]), ("b", ["2"]), ("c", [])):
        write_checked(store.folder / "searches" / f"{name}.json", {"id": name, "runs": runs})
    records, searches = load([store.folder], {"1": one})
    assert list(records["id"]) == ["1"]
    assert {search["id"] for search in searches} == {"a", "c"}
    assert list(records["folder"]) == [store.runs / "1"]
    everything, searches = load([store.folder])
    assert list(everything["id"]) == [one["id"], two["id"]]
    assert len(searches) == 3
