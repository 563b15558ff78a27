"""A folder of results as the regression gate sees it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import RequestError
from bench.records.frame import flat, frame
from bench.records.identity import Key
from bench.records.labels import JOINT
from bench.records.rows import rows, tested
from bench.records.searches import knobs_of, lent_by
from bench.records.store import Record, Store
from bench.records.validity import COMPLETED
from bench.run import SCHEMA
from bench.text import setting


@dataclass(frozen=True)
class ResultRow:
    """Everything of a Run but its seed: which seeds have a record, and what they measured.

    `label` has the report's names of its data set, model and decoder; `metrics` maps a name to the
    values of completed seeds; `costs` is what the run of each seed took; `settings` is what must
    agree before numbers compare; `dimensions` are those of an image.
    """

    label: tuple[str, str, str]
    seeds: frozenset[int]
    completed: frozenset[int]
    metrics: Mapping[str, Mapping[int, float]]
    costs: Mapping[int, Mapping[str, Any]]
    settings: Mapping[str, Any]
    dimensions: int


@dataclass(frozen=True)
class ResultSet:
    """One folder of results: its rows, and the commits, versions and devices that made it."""

    path: Path
    rows: Mapping[Key, ResultRow]
    made_by: tuple[str, ...]


def read_results(path: Path) -> ResultSet:
    """The test runs under `results/<grid>`, or under its parent where that holds one grid.

    Raises:
        RequestError: no such folder or several grids in it; a record that is torn, edited or of
            another schema; one row under several settings; seeds of a row that state different
            protocols or have the very same numbers.
    """
    store = Store(_grid_folder(path))
    # Curves are most of a record and are not compared.
    records = {record["id"]: {**record, "curves": {}} for record in store.records()}
    _check_whole(path, store, records)
    table = frame(records.values())
    if table.empty or tested(table).empty:
        return ResultSet(path, {}, ())
    searches = {search["id"]: search for search in store.searches()}
    lines = rows(table, list(searches.values())).table
    found = {}
    for line in lines.to_dict("records"):
        if line["ids"]:  # a search that found no value left no runs
            label = (line["dataset"], line["model"], line["entry"])
            own = [records[identity] for identity in line["ids"]]
            found[line["key"]] = _row(path, label, own, searches)
    _check_one_protocol(path, found.values())
    makers = (_maker(record["environment"]) for record in records.values())
    return ResultSet(path, found, tuple(dict.fromkeys(makers)))


def _grid_folder(path: Path) -> Path:
    if Store(path).runs.is_dir():
        return path
    grids = [inside for inside in sorted(path.glob("*")) if Store(inside).runs.is_dir()]
    if len(grids) == 1:
        return grids[0]
    found = f"several grids ({', '.join(g.name for g in grids)}); name one" if grids else "no runs"
    raise RequestError(f"{path}: expected a grid's folder of results, found {found}")


def _check_whole(path: Path, store: Store, records: Mapping[str, Record]) -> None:
    # A record set aside, now or by an earlier reader, must not make the gate quietly smaller.
    lost = [
        folder.name
        for folder in store.run_folders()
        if folder.name not in records and any(folder.glob("record.json*"))
    ]
    if lost:
        raise RequestError(
            f"{path}: {len(lost)} of its records torn or edited ({', '.join(lost)}); restore "
            "them, or run the grid again"
        )
    for record in records.values():
        if record["schema"] != SCHEMA:
            raise RequestError(
                f"{path}: record {record['id']} has schema {record['schema']}, this version reads "
                f"{SCHEMA}; make these records anew"
            )


def _row(
    path: Path,
    label: tuple[str, str, str],
    records: Sequence[Record],
    searches: Mapping[str, Record],
) -> ResultRow:
    completed = {r["run"]["seed"]: r for r in records if r["status"] == COMPLETED}
    where = f"{path}: {JOINT.join(label)}"
    _check_no_copies(where, completed)
    _check_agreed(where, completed)
    names = dict.fromkeys(name for record in completed.values() for name in record["metrics"])
    settings = _settings(records, list(completed.values()), searches)
    return ResultRow(
        label=label,
        seeds=frozenset(record["run"]["seed"] for record in records),
        completed=frozenset(completed),
        metrics={
            name: {s: r["metrics"][name] for s, r in completed.items() if name in r["metrics"]}
            for name in names
        },
        costs={record["run"]["seed"]: record["cost"] for record in records},
        settings=settings,
        dimensions=settings.get("protocol.likelihood.dimensions", 1),
    )


def _settings(
    records: Sequence[Record], completed: Sequence[Record], searches: Mapping[str, Record]
) -> dict[str, Any]:
    run, selection = records[0]["run"], records[0]["protocol"]["selection"]
    search = searches.get(selection.get("search", ""))
    made = {
        key: " and ".join(sorted({str(record["environment"].get(key)) for record in records}))
        for key in ("device_class", "precision")
    }
    lender = searches.get(selection.get("shared", ""))
    tuned = knobs_of(search) if search else ()
    tuned += tuple(knob for knob, _ in lent_by(lender)) if lender else ()
    by_search = {knob.option for knob in tuned if knob.part == "training"}
    decided = {
        "data content": run["content"],
        "split_seed": run["split_seed"],
        "training": {k: v for k, v in run["training"].items() if k not in by_search},
        "evaluation": run["evaluation"],
        "device class": made["device_class"],
        "precision at run time": made["precision"],
        "selection": selection["rule"],
        "search": {
            **{knob.name: knob.model_dump() for knob in tuned},
            **(search or lender or {"search": {}})["search"],
        },
    }
    stated = [_stated(record) for record in completed]
    everywhere = set.intersection(*map(set, stated)) if stated else set()
    protocol = (
        {key: value for key, value in stated[0].items() if key in everywhere} if stated else {}
    )
    return {**flat(decided), **protocol}


def _stated(record: Record) -> dict[str, Any]:
    """What a run says of its protocol; a seed is none, and a search's choice is compared apart."""
    parts = {key: value for key, value in record["protocol"].items() if key != "selection"}
    flattened = flat({"protocol": parts})
    return {key: value for key, value in flattened.items() if not key.endswith(".seed")}


def _check_agreed(where: str, completed: Mapping[int, Record]) -> None:
    """A key that some of a row's runs do not state is an older version's, and no disagreement."""
    known: dict[str, tuple[int, Any]] = {}
    for seed, record in completed.items():
        for key, value in _stated(record).items():
            other, theirs = known.setdefault(key, (seed, value))
            if theirs != value:
                raise RequestError(
                    f"{where}: {key} is {setting(theirs)} in seed {other} and {setting(value)} in "
                    f"seed {seed}; measure the seeds of a row alike, or move one of them away"
                )


def _check_no_copies(where: str, completed: Mapping[int, Record]) -> None:
    measured: dict[str, int] = {}
    for seed, record in completed.items():
        numbers = json.dumps(record["metrics"], sort_keys=True)
        other = measured.setdefault(numbers, seed)
        if other != seed and record["metrics"]:
            raise RequestError(
                f"{where}: seeds {other} and {seed} have the very same numbers, so one is a copy; "
                "run it again"
            )


def _check_one_protocol(path: Path, rows: Iterable[ResultRow]) -> None:
    values: dict[str, set[str]] = {}
    for row in rows:
        for key, value in row.settings.items():
            if key.startswith(("training.", "evaluation.")):
                values.setdefault(key, set()).add(setting(value))
    several = [f"{key} {' and '.join(sorted(v))}" for key, v in values.items() if len(v) > 1]
    if several:
        raise RequestError(
            f"{path}: holds runs under several settings ({', '.join(several)}); give each its "
            "own --results folder"
        )


def _maker(environment: Mapping[str, Any]) -> str:
    commit = environment.get("commit")
    versions = environment.get("versions", {})
    return ", ".join(
        str(part)
        for part in (
            f"commit {commit[:12]}{' with changes' if environment.get('dirty') else ''}"
            if commit
            else "no commit known",
            f"torch {versions['torch']}" if "torch" in versions else None,
            environment.get("device"),
            environment.get("precision"),
        )
        if part
    )


def differences(baseline: ResultRow, candidate: ResultRow) -> Iterator[str]:
    """What keeps two rows' numbers from comparing, as `training.epochs 5 against 6`.

    What one side states of its protocol and the other does not yet know is no difference.
    """
    ours, theirs = candidate.settings, baseline.settings
    for key in dict.fromkeys([*theirs, *ours]):
        if key.startswith("protocol.") and not (key in ours and key in theirs):
            continue
        if ours.get(key) != theirs.get(key):
            yield f"{key} {setting(theirs.get(key))} against {setting(ours.get(key))}"
