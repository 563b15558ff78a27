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
    found: dict[str, Any] = {}
    _flatten(value, name, found)
    return found


def _flatten(value: Any, name: str, found: dict[str, Any]) -> None:
    if not isinstance(value, dict):
        found[name] = value
        return
    for key, part in value.items():
        _flatten(part, f"{name}.{key}" if name else key, found)


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """Records as a flat pandas frame, one row a record, columns by dotted path.

    `run.decoder.name`, `run.seed`, `metrics.neg_log_p`, `cost.seconds`, …; a metric that a record
    does not have is NaN, a setting that is a list is a tuple.

    Raises:
        RequestError: a record of another schema.
    """
    columns = _Columns()
    for record in records:
        columns.add(record)
    return columns.frame()


def _hashable(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple((key, _hashable(part)) for key, part in value.items())
    return tuple(map(_hashable, value)) if isinstance(value, list) else value


class _Columns:
    """A frame in the making: its columns grow record by record, so that no record is kept.

    Records of a hundred thousand runs would take several times the memory of the frame.
    """

    def __init__(self) -> None:
        self.columns: dict[str, list[Any]] = {}
        self.rows = 0

    def add(self, record: Record) -> int:
        """Append a record, and return its row."""
        check_schema(record)
        for name, value in flat(record).items():
            column = self.columns.get(name)
            if column is None or len(column) < self.rows:
                column = self._column(name)
            # What most records say alike, such as the nominal coverage, is held once.
            alike = column and type(value) in (str, list) and column[-1] == value
            column.append(column[-1] if alike else value)
        self.rows += 1
        return self.rows - 1

    def replace(self, row: int, record: Record) -> None:
        """Put a record in the place of another one."""
        check_schema(record)
        values = flat(record)
        for name in dict.fromkeys([*self.columns, *values]):
            self._column(name)[row] = values.get(name, math.nan)

    def _column(self, name: str) -> list[Any]:
        """The values of all rows so far; those of a new name are NaN."""
        column = self.columns.setdefault(name, [])
        column.extend([math.nan] * (self.rows - len(column)))
        return column

    def frame(self) -> pd.DataFrame:
        """The frame; the columns are used up."""
        if not self.rows:
            return pd.DataFrame(columns=["id", "status"])
        made: dict[str, pd.Series[Any]] = {}
        for name in list(self.columns):
            values = self._column(name)
            del self.columns[name]
            if name.startswith(("run.", "protocol.")) and list in set(map(type, values)):
                # A setting that is a list must compare and hash like any other.
                values = list(map(_hashable, values))
            made[name] = pd.Series(values)
        return pd.DataFrame(made)


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
    columns, folders = _Columns(), list[Path]()
    chosen: dict[str, tuple[int, bool]] = {}
    searches: dict[str, Record] = {}
    for store in map(Store, store_folders):
        records = store.records() if known is None else map(known.__getitem__, sorted(known))
        for record in records:
            row, finished = chosen.get(record["id"], (None, False))
            if row is None:
                row = columns.add(record)
                folders.append(store.folder_of(record["id"]))
            elif done(record) and not finished:
                columns.replace(row, record)
                folders[row] = store.folder_of(record["id"])
            else:
                check_schema(record)
                continue
            chosen[record["id"]] = row, done(record)
        for search in store.searches():
            twin = searches.get(search["id"], search)
            runs = sorted({*search["runs"], *twin["runs"]})
            searches[search["id"]] = {**search, "runs": runs}
    table = columns.frame()
    wanted = [
        search
        for search in searches.values()
        if known is None or not search["runs"] or not known.keys().isdisjoint(search["runs"])
    ]
    return table.assign(folder=folders), wanted


Line = Mapping[str, Any]


def lines_of(frame: pd.DataFrame) -> list[Line]:
    return frame.to_dict("records")  # type: ignore[no-any-return]


def column_of(frame: pd.DataFrame, name: str) -> pd.Series[Any]:
    return frame[name] if name in frame else pd.Series(None, index=frame.index, dtype=object)


def missing(value: Any) -> bool:
    """Whether a cell holds nothing: None, NaN or pandas' NA."""
    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))
