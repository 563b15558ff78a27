"""Records as a frame, from folders or from memory."""

from __future__ import annotations

from pathlib import Path

from bench.files import write_checked
from bench.records.frame import flat, load
from bench.records.store import Record, Store, new_record
from bench.run import SCHEMA, Run


def add(store: Store, seed: int) -> Record:
    run = Run.read(
        {
            "dataset": "mnist5k",
            "content": "c0" * 32,
            "model": {"name": "conv_vae"},
            "decoder": {"name": "optimal"},
            "seed": seed,
            "split_seed": 0,
            "training": {},
            "evaluation": {},
        }
    )
    record = {**new_record(run, {"rule": "by hand"}), "cost": {"seconds": 1.0}}
    write_checked(store.run_folder(run) / "record.json", record)
    return record


def add_search(store: Store, name: str, runs: list[Record]) -> None:
    search = {"low": 0.1, "high": 1.0, "trials": 1, "objective": "neg_log_p", "seeds": [1000]}
    model, decoder = {"name": "conv_vae"}, {"name": "beta", "beta": 0.1}
    summary = {
        **{"schema": SCHEMA, "id": name, "dataset": "mnist5k", "model": model, "decoder": decoder},
        **{"option": "beta", "chosen": 0.5, "trials": [], "runs": [run["id"] for run in runs]},
        "search": {**search, "startup": 1, "sampler": "gp", "pruner": "none"},
        "cost": {"runs": 1, "seconds": 1.0},
    }
    write_checked(store.folder / "searches" / f"{name}.json", summary)


def test_nested_values_have_dotted_names() -> None:
    nested = {"a": {"b": {"c": 1}, "d": (2, 3)}, "e": {}}
    assert flat(nested) == {"a.b.c": 1, "a.d": (2, 3)}


def test_a_table_of_some_runs_has_their_searches_and_those_that_found_nothing(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path)
    one, two = add(store, 1), add(store, 2)
    for name, runs in (("a", [one]), ("b", [two]), ("c", [])):
        add_search(store, name, runs)
    records, searches = load([store.folder], {one["id"]: one})
    assert list(records["id"]) == [one["id"]]
    assert {search["id"] for search in searches} == {"a", "c"}
    assert list(records["folder"]) == [store.folder_of(one["id"])]
    everything, searches = load([store.folder])
    assert set(everything["id"]) == {one["id"], two["id"]}
    assert len(searches) == 3
