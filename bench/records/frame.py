"""Records as one flat pandas frame."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import RequestError
from bench.records.store import Record, Store, done
from bench.records.validity import check_schema


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """Nested dictionaries as one, its keys dotted paths."""
    if not isinstance(value, dict):
        return {name: value}
    inner = (flat(part, f"{name}.{key}" if name else key) for key, part in value.items())
    return {key: part for parts in inner for key, part in parts.items()}


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """Records as a flat pandas frame, one row a record, columns by dotted path.

    `run.decoder.name`, `run.seed`, `metrics.neg_log_p`, `cost.seconds`, …; a metric that a record
    does not have is NaN, a setting that is a list is a tuple.

    Raises:
        RequestError: a record of another schema.
    """
    rows = list(records)
    for record in rows:
        check_schema(record)
    if not rows:
        return pd.DataFrame(columns=["id", "status"])
    table = pd.DataFrame(_columns(rows))
    for column in table:
        if column.startswith(("run.", "protocol.")) and table[column].map(type).eq(list).any():
            # A setting that is a list must compare and hash like any other.
            table[column] = table[column].map(_hashable)
    return table


def _hashable(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple((key, _hashable(part)) for key, part in value.items())
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


def _columns(rows: Sequence[Record]) -> dict[str, list[Any]]:
    """What pandas' `json_normalize` makes of records, in a third of its time and memory."""
    columns: dict[str, list[Any]] = {}
    for row, record in enumerate(rows):
        for name, value in flat(record).items():
            column = columns.get(name)
            if column is None:
                column = columns[name] = [math.nan] * len(rows)
            column[row] = value
    return columns


def frame_of(folder: str | Path) -> pd.DataFrame:
    """The runs of a grid's folder, `results/<grid>`, as a frame: one row a run, trials included.

    Columns are `frame`'s, and `folder`, the run's own.

    Raises:
        RequestError: the folder does not exist.
    """
    if not Path(folder).is_dir():
        raise RequestError(f"{folder}: there is no such folder of results")
    return load([Path(folder)])[0]


def load(
    store_folders: Sequence[Path], known: Mapping[str, Record] | None = None
) -> tuple[pd.DataFrame, list[Record]]:
    """The records as one frame, with the `folder` of each, and the search summaries.

    A run that several folders hold counts once, and finished rather than failed.

    Arguments:
        store_folders: each a `results/<grid>`.
        known: the records wanted, by id, where they were read already; of the searches those that
            list one of them or none. None reads all.
    """
    chosen: dict[str, tuple[Record, Path]] = {}
    searches: dict[str, Record] = {}
    for store in map(Store, store_folders):
        records = store.records() if known is None else map(known.__getitem__, sorted(known))
        for record in records:
            check_schema(record)
            other = chosen.get(record["id"])
            if other is None or (done(record) and not done(other[0])):
                chosen[record["id"]] = (record, store.folder_of(record["id"]))
        for search in store.searches():
            twin = searches.get(search["id"], search)
            runs = sorted({*search["runs"], *twin["runs"]})
            searches[search["id"]] = {**search, "runs": runs}
    table = frame(record for record, _ in chosen.values())
    wanted = [
        search
        for search in searches.values()
        if known is None or not search["runs"] or not known.keys().isdisjoint(search["runs"])
    ]
    return table.assign(folder=[folder for _, folder in chosen.values()]), wanted


Line = Mapping[str, Any]


def lines_of(frame: pd.DataFrame) -> list[Line]:
    return frame.to_dict("records")  # type: ignore[no-any-return]


def column_of(frame: pd.DataFrame, name: str) -> pd.Series[Any]:
    return frame[name] if name in frame else pd.Series(None, index=frame.index, dtype=object)


def missing(value: Any) -> bool:
    """Whether a cell holds nothing: None, NaN or pandas' NA."""
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))
