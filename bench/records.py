"""The store under results/: one folder a run, written once, read as a pandas frame.

`results/<grid>/runs/<id>/record.json` is written last and atomically; without it a run is not
done. Nothing else says what is finished.
"""

import contextlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import filelock

from bench.errors import RequestError
from bench.files import digest, set_aside, sha256_file, write_json
from bench.grid import SCHEMA, Experiment, Run

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("sigma-bench")

Record = dict[str, Any]
"""record.json: schema, id, run, status, metrics, protocol, curves, cost, environment, artifacts."""

COMPLETED, DIVERGED, FAILED = "completed", "diverged", "failed"


def checksum(record: Mapping[str, Any]) -> str:
    """sha256 of the record's canonical JSON without its own `checksum`."""
    content = {key: value for key, value in record.items() if key != "checksum"}
    return digest(content)


def read_checked(path: Path) -> Record | None:
    """A checksummed JSON file's content; None where there is none.

    A file that is torn or was edited is set aside with a warning, which makes its run undone.
    """
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    with contextlib.suppress(ValueError):
        record = json.loads(text)
        if isinstance(record, dict) and record.get("checksum") == checksum(record):
            return record
    with contextlib.suppress(OSError):  # a reader of somebody else's folder may not rename
        moved = set_aside(path)
        logger.warning("%s is torn or was edited: set aside as %s", path, moved.name)
    return None


def write_checked(path: Path, content: Mapping[str, Any]) -> None:
    write_json(path, {**content, "checksum": checksum(content)})


@dataclass(frozen=True)
class Store:
    """One grid's folder of results."""

    folder: Path

    @classmethod
    def open(cls, results: Path, grid: str) -> "Store":
        """The grid's folder under `results`, created and found writable.

        Raises:
            RequestError: the folder cannot be made or written.
        """
        store = cls(results / grid)
        try:
            store.runs.mkdir(parents=True, exist_ok=True)
            probe = store.folder / ".writable"
            probe.touch()
            # Another invocation that opens the folder now may have removed it.
            probe.unlink(missing_ok=True)
        except OSError as error:
            raise RequestError(
                f"--results {results}: cannot be written ({error.strerror}); choose another folder"
            ) from None
        return store

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def run_folder(self, run: Experiment) -> Path:
        return self.runs / run.id

    def record(self, run: Experiment) -> Record | None:
        """The finished record of `run`, or None; a record of failure counts as finished too."""
        return self.record_of(run.id)

    def record_of(self, identity: str) -> Record | None:
        """The finished record of the run with this id, or None."""
        return read_checked(self.runs / identity / "record.json")

    def records(self) -> Iterator[Record]:
        """Every readable record of the grid, by id."""
        for path in sorted(self.runs.glob("*/record.json")):
            record = read_checked(path)
            if record is not None:
                yield record

    def searches(self) -> Iterator[Record]:
        """Every readable search summary of the grid (tuning.py writes them)."""
        for path in sorted(self.folder.glob("searches/*.json")):
            search = read_checked(path)
            if search is not None:
                yield search

    def keep(self, run: Run, weights: Path) -> None:
        """Note where the weights of `run` are, for runs that differ in their evaluation alone."""
        content = {"run": run.id, "weights": weights.name, "sha256": sha256_file(weights)}
        write_checked(self._kept(run), content)

    def trained(self, run: Run) -> Path | None:
        """The folder of a run that trained what `run` would train, its weights intact; or None."""
        kept = read_checked(self._kept(run))
        if kept is None:
            return None
        weights = self.runs / kept["run"] / kept["weights"]
        intact = weights.is_file() and sha256_file(weights) == kept["sha256"]
        return weights.parent if intact else None

    def _kept(self, run: Run) -> Path:
        return self.folder / "trained" / f"{run.training_id}.json"

    @contextlib.contextmanager
    def claim(self, run: Experiment) -> Iterator[Path | None]:
        """The run's folder for this process alone, or None while another process holds it.

        The operating system drops the lock with its owner, however that one ends.
        """
        folder = self.run_folder(run)
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / ".lock", timeout=0)
        try:
            lock.acquire()
        except filelock.Timeout:
            yield None
            return
        try:
            yield folder
        finally:
            lock.release()


def new_record(run: Experiment, selection: Mapping[str, Any]) -> Record:
    """A record of `run` with nothing measured yet; `selection` says how its options were chosen."""
    return {
        "schema": SCHEMA,
        "id": run.id,
        "run": run.model_dump(mode="json"),
        "status": COMPLETED,
        "metrics": {},
        "protocol": {"selection": dict(selection)},
        "curves": {},
        "cost": {},
        "environment": {},
        "artifacts": {},
    }


def done(record: Record | None) -> TypeGuard[Record]:
    """Whether a record settles its run: completed or diverged; a failure is tried again."""
    return record is not None and record["status"] != FAILED


def frame(records: Iterable[Record]) -> "pd.DataFrame":
    """Records as a flat pandas frame, one row a record, columns by dotted path.

    `run.decoder.name`, `run.seed`, `metrics.neg_log_p`, `cost.seconds`, …; a metric that a record
    does not have is NaN, a setting that is a list is a tuple. Records of another schema raise
    `ValueError`.
    """
    import pandas as pd

    rows = list(records)
    for record in rows:
        if record["schema"] != SCHEMA:
            raise ValueError(
                f"record {record['id']} has schema {record['schema']}, this version reads {SCHEMA}"
            )
    if not rows:
        return pd.DataFrame(columns=["id", "status"])
    table = pd.json_normalize(rows)
    for column in table:
        if column.startswith("run.") and table[column].map(type).eq(list).any():
            # A setting that is a list must compare and hash like any other.
            table[column] = table[column].map(lambda v: tuple(v) if isinstance(v, list) else v)
    return table
