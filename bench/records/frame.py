"""Records as one flat pandas frame."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import RequestError
from bench.records.store import Record, Store, done
from bench.run import SCHEMA

if TYPE_CHECKING:
    import pandas as pd


def frame(records: Iterable[Record]) -> pd.DataFrame:
    """Records as a flat pandas frame, one row a record, columns by dotted path.

    `run.decoder.name`, `run.seed`, `metrics.neg_log_p`, `cost.seconds`, …; a metric that a record
    does not have is NaN, a setting that is a list is a tuple.

    Raises:
        RequestError: a record of another schema.
    """
    import pandas as pd

    rows = list(records)
    for record in rows:
        if record["schema"] != SCHEMA:
            raise RequestError(
                f"record {record['id']} has schema {record['schema']}, this version reads "
                f"{SCHEMA}; use the version that wrote it, or move its folder away"
            )
    if not rows:
        return pd.DataFrame(columns=["id", "status"])
    table = pd.DataFrame(_columns(rows))
    for column in table:
        if column.startswith("run.") and table[column].map(type).eq(list).any():
            # A setting that is a list must compare and hash like any other.
            table[column] = table[column].map(lambda v: tuple(v) if isinstance(v, list) else v)
    return table


def _columns(rows: Sequence[Record]) -> dict[str, list[Any]]:
    """What pandas' `json_normalize` makes of records, in a third of its time and memory."""
    columns: dict[str, list[Any]] = {}

    def fill(row: int, values: Mapping[str, Any], prefix: str) -> None:
        for key, value in values.items():
            if type(value) is dict:
                fill(row, value, f"{prefix}{key}.")
            else:
                column = columns.get(name := prefix + key)
                if column is None:
                    column = columns[name] = [math.nan] * len(rows)
                column[row] = value

    for row, record in enumerate(rows):
        fill(row, record, "")
    return columns


def load(store_folders: Sequence[Path]) -> tuple[pd.DataFrame, list[Record]]:
    """All records as one frame, with the `folder` of each, and all search summaries.

    A run that several folders hold counts once, and finished rather than failed.
    """
    chosen: dict[str, tuple[Record, Path]] = {}
    searches: dict[str, Record] = {}
    for store in map(Store, store_folders):
        for record in store.records():
            other = chosen.get(record["id"])
            if other is None or (done(record) and not done(other[0])):
                chosen[record["id"]] = (record, store.runs / record["id"])
        for search in store.searches():
            twin = searches.get(search["id"], search)
            runs = sorted({*search["runs"], *twin["runs"]})
            searches[search["id"]] = {**search, "runs": runs}
    records = frame(record for record, _ in chosen.values())
    return records.assign(folder=[folder for _, folder in chosen.values()]), list(searches.values())


Line = Mapping[str, Any]


def lines_of(frame: pd.DataFrame) -> list[Line]:
    return frame.to_dict("records")  # type: ignore[no-any-return]


def column_of(frame: pd.DataFrame, name: str) -> pd.Series[Any]:
    import pandas as pd

    return frame[name] if name in frame else pd.Series(None, index=frame.index, dtype=object)


def missing(value: Any) -> bool:
    """Whether a cell holds nothing: None, NaN or pandas' NA."""
    import pandas as pd

    return value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value))
