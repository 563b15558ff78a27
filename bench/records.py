"""The store under results/: one folder a run, written once, read as a pandas frame.

`results/<grid>/runs/<id>/record.json` is written last and atomically; without it a run is not
done. Nothing else says what is finished.
"""

import contextlib
import logging
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import filelock
from pydantic_core import from_json

from bench.errors import RequestError
from bench.files import digest, set_aside, sha256_now, write_json
from bench.grid import SCHEMA, Run

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger("sigma-bench")

Record = dict[str, Any]
"""record.json: schema, id, run, status, metrics, protocol, curves, cost, environment, artifacts."""

COMPLETED, DIVERGED, FAILED = "completed", "diverged", "failed"

LEASE = ".lease"
"""The file in a run's folder that names the process at work there, while one is."""

EXPIRY = 60.0
"""Seconds without a heartbeat (there are three in that time) after which a claim is taken over.

It outlasts the stalls of a network share and of a machine that swaps. Only an owner that sleeps,
or whose whole host is gone, makes anybody wait: on one host an owner's death is seen at once.
"""


def checksum(record: Mapping[str, Any]) -> str:
    """sha256 of the record's canonical JSON without its own `checksum`."""
    content = {key: value for key, value in record.items() if key != "checksum"}
    return digest(content)


def read_checked(path: Path) -> Record | None:
    """A checksummed JSON file's content; None where there is none.

    A file that is torn or was edited is set aside with a warning, which makes its run undone.

    Raises:
        RequestError: it is there and cannot be read.
    """
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except IsADirectoryError:
        text = b""
    except OSError as error:
        raise RequestError(
            f"{path}: cannot be read ({error.strerror}); make it readable, or move it away to have "
            "it made again"
        ) from None
    with contextlib.suppress(ValueError):
        record = from_json(text)
        if isinstance(record, dict) and record.get("checksum") == checksum(record):
            return record
    with contextlib.suppress(OSError):  # a reader of somebody else's folder may not rename
        moved = set_aside(path)
        logger.warning("%s is torn or was edited: set aside as %s", path, moved.name)
    return None


def write_checked(path: Path, content: Mapping[str, Any]) -> None:
    write_json(path, {**content, "checksum": checksum(content)})


@dataclass(frozen=True)
class Claim:
    """A run's folder in the hands of this process.

    `lost` says whether somebody else has taken it over (the machine slept, the share was gone);
    then nothing more may be written. It is cheap enough to be asked before every step.
    """

    folder: Path
    lost: Callable[[], bool]


@dataclass(frozen=True)
class Store:
    """One grid's folder of results; `expiry` is that of its claims, in seconds."""

    folder: Path
    expiry: float = EXPIRY
    _refused: dict[str, filelock.SoftFileLease] = field(
        default_factory=dict, repr=False, compare=False
    )

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

    def run_folder(self, run: Run) -> Path:
        return self.runs / run.id

    def record(self, run: Run) -> Record | None:
        """The finished record of `run`, or None; a record of failure counts as finished too."""
        return self.record_of(run.id)

    def record_of(self, identity: str) -> Record | None:
        """The finished record of the run with this id, or None."""
        return read_checked(Path(self.folder, "runs", identity, "record.json"))

    def records(self) -> Iterator[Record]:
        """Every readable record of the grid, by id."""
        # A folder of ten thousand runs is listed once; asking each what it holds takes longer.
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for identity in sorted(os.listdir(self.runs)):
                record = self.record_of(identity)
                if record is not None:
                    yield record

    def searches(self) -> Iterator[Record]:
        """Every readable search summary of the grid (tuning.py writes them)."""
        for path in sorted(self.folder.glob("searches/*.json")):
            search = read_checked(path)
            if search is not None:
                yield search

    def keep(self, run: Run, names: Iterable[str]) -> None:
        """Note the files that the training of `run` left, for runs that only measure otherwise."""
        folder = self.run_folder(run)
        sums = {name: sha256_now(folder / name) for name in names}
        write_checked(self._kept(run), {"run": run.id, "files": sums})

    def trained(self, run: Run) -> Path | None:
        """The folder of a run that trained what `run` would train, whole and intact; or None."""
        kept = read_checked(self._kept(run))
        if kept is None or "files" not in kept:
            return None
        folder: Path = self.runs / kept["run"]
        for name, sha256 in kept["files"].items():
            try:
                intact = sha256_now(folder / name) == sha256
            except OSError:
                return None
            if not intact:
                logger.warning("%s is torn or was edited: trained again", folder / name)
                return None
        return folder

    def _kept(self, run: Run) -> Path:
        return self.folder / "trained" / f"{run.training_id}.json"

    @contextlib.contextmanager
    def claim(self, run: Run) -> Iterator[Claim | None]:
        """The run's folder for this process alone, or None while another process holds it.

        A claim is a lease, a file with a heartbeat: one whose owner died on this host is taken
        over at once, any other after `expiry` seconds without a heartbeat. On release the file is
        gone.

        Raises:
            RequestError: the holder is of a version that agrees on other durations.
        """
        folder = self.run_folder(run)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / LEASE
        # Each lease watches its file for heartbeats since it was first refused, so it is kept.
        lease = self._refused.pop(run.id, None) or filelock.SoftFileLease(
            path, lease_duration=self.expiry, blocking=False, thread_local=False
        )
        if not _taken(lease):
            self._refused[run.id] = lease
            _make_torn(path)
            yield None
            return
        try:
            inode = path.lstat().st_ino
            yield Claim(folder, lambda: lease.compromise is not None or _replaced(path, inode))
        finally:
            lease.release()

    def held(self, run: Run) -> bool:
        """Whether some process seems at work on the run: it gave a sign within `expiry` seconds."""
        try:
            beat = (self.run_folder(run) / LEASE).stat().st_mtime
        except (FileNotFoundError, NotADirectoryError):
            return False
        return abs(time.time() - beat) < self.expiry


def _taken(lease: filelock.SoftFileLease) -> bool:
    """Whether the lease is this process's now, without waiting for it."""
    # Where files cannot be exchanged, the first attempt only clears away what a dead owner left.
    for _ in range(2):
        with contextlib.suppress(filelock.Timeout):
            try:
                lease.acquire()
            except filelock.LeaseSettingsMismatch:
                raise RequestError(
                    f"{lease.lock_file} is of another version of sigma-bench; let that one finish, "
                    "or delete the file if none is at work"
                ) from None
            return True
    return False


def _make_torn(path: Path) -> None:
    """Turn a lease that a crash left empty, which filelock never breaks, into one that it does.

    The letter is the first of every lease, so it does no harm to one that is just being written.
    """
    with contextlib.suppress(FileNotFoundError, PermissionError), path.open("r+b", 0) as file:
        if os.fstat(file.fileno()).st_size == 0:
            file.write(b"f")


def _replaced(path: Path, inode: int) -> bool:
    """Whether the lease under `path` is no longer the file that its owner still has open."""
    for pause in (0.0, 0.1):
        # While another process makes sure that a lease is alive, it is aside for an instant.
        if pause:
            time.sleep(pause)
        with contextlib.suppress(OSError):  # a share that is gone is as good as lost
            if path.lstat().st_ino == inode:
                return False
    return True


def new_record(run: Run, selection: Mapping[str, Any]) -> Record:
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


def brief(record: Record) -> Record:
    """What a search and a table need of a record, which is less than half of it."""
    return {key: record[key] for key in record if key not in ("curves", "environment")}


def frame(records: Iterable[Record]) -> "pd.DataFrame":
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
