"""The records of a grid under results/: one folder a run, written once.

`results/<grid>/runs/<first two digits>/<id>/record.json` is written last and atomically; without it
a run is not done.
"""

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

import filelock

from bench.errors import RequestError
from bench.files import read_checked, sha256_now, write_checked
from bench.records.lease import EXPIRY, LEASE, Claim, beats, make_breakable, replaced, take
from bench.records.searches import current
from bench.records.validity import (
    COMPLETED,
    FAILED,
    check_schema,
    record_fault,
    search_fault,
    weights_fault,
)
from bench.run import SCHEMA, Run

logger = logging.getLogger("sigma-bench")

Record = dict[str, Any]
"""record.json: schema, id, run, status, metrics, protocol, curves, cost, environment, artifacts."""


@dataclass(frozen=True)
class Store:
    """One grid's folder of results; `expiry` of its claims is in seconds."""

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
        # Absolute, because code of the user's own may change the working folder.
        store = cls(Path(os.path.abspath(results / grid)))
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
        return self.folder_of(run.id)

    def folder_of(self, identity: str) -> Path:
        """The folder of the run with this id, there or not."""
        return _divided(self.runs, identity)

    def run_folders(self) -> list[Path]:
        """The folder of every run of the grid, by id."""
        found: dict[str, Path] = {}
        # Listings alone: for ten thousand runs, `Path.glob` takes much longer.
        for name in _listed(self.runs):
            if len(name) > SHARD:
                found.setdefault(name, self.runs / name)
            else:
                shard = self.runs / name
                found.update((identity, shard / identity) for identity in _listed(shard))
        return [found[identity] for identity in sorted(found)]

    def record(self, run: Run) -> Record | None:
        """The finished record of `run`, or None; a record of failure counts as finished too.

        Raises:
            RequestError: it is of another schema.
        """
        record = self.record_of(run.id)
        if record is not None:
            check_schema(record)
        return record

    def record_of(self, identity: str) -> Record | None:
        """The finished record of the run with this id, of any schema, or None."""
        return read_checked(self.folder_of(identity) / "record.json", record_fault)

    def records(self) -> Iterator[Record]:
        """Every readable record of the grid, by id."""
        for folder in self.run_folders():
            record = read_checked(folder / "record.json", record_fault)
            if record is not None:
                yield record

    def searches(self) -> Iterator[Record]:
        """Every readable search summary of the grid (tuning.py writes them)."""
        for path in sorted(self.folder.glob("searches/*.json")):
            search = read_checked(path, search_fault)
            if search is not None:
                yield current(search)

    def search(self, identity: str) -> Record | None:
        """The summary of the search with this id, of any schema, or None."""
        found = read_checked(self.folder / "searches" / f"{identity}.json", search_fault)
        return None if found is None else current(found)

    def remember_weights(self, run: Run, names: Iterable[str]) -> None:
        """Note the files that the training of `run` left, for runs of equal training."""
        folder = self.run_folder(run)
        sums = {name: sha256_now(folder / name) for name in names}
        write_checked(self.weights_note(run), {"run": run.id, "files": sums})

    def find_weights(self, run: Run) -> Path | None:
        """The folder of a run of equal training, if its files are intact; else None."""
        note = read_checked(self.weights_note(run), weights_fault)
        if note is None:
            return None
        if not note["files"]:
            logger.warning(
                "run %s: the weights of an equal training were not kept (`--keep records`): "
                "trained again",
                run.id,
            )
            return None
        folder = self.folder_of(note["run"])
        for name, sha256 in note["files"].items():
            try:
                intact = sha256_now(folder / name) == sha256
            except OSError:
                return None
            if not intact:
                logger.warning("%s is torn or was edited: trained again", folder / name)
                return None
        return folder

    def weights_note(self, run: Run) -> Path:
        """The file that says where weights of the same training as of `run` are."""
        return _divided(self.folder / "trained", f"{run.training_id}.json")

    @contextlib.contextmanager
    def claim(self, run: Run) -> Iterator[Claim | None]:
        """The run's folder for this process alone, or None while another process holds it.

        A claim is a lease: a file with a heartbeat, removed on release. The claim of a process
        that died on this host is taken over at once, any other after `expiry` seconds without a
        heartbeat.

        Raises:
            RequestError: the holder is of a version with other durations.
        """
        folder = self.run_folder(run)
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / LEASE
        # A lease watches the heartbeats of its file from the first refusal on, so it is kept.
        lease = self._refused.pop(run.id, None) or filelock.SoftFileLease(
            path, lease_duration=self.expiry, blocking=False, thread_local=False
        )
        if not take(lease):
            self._refused[run.id] = lease
            make_breakable(path)
            yield None
            return
        try:
            inode = path.lstat().st_ino
            yield Claim(folder, lambda: lease.compromise is not None or replaced(path, inode))
        finally:
            lease.release()

    def held(self, run: Run) -> bool:
        """Whether a process computes the run now: its last heartbeat is younger than `expiry`."""
        return beats(self.run_folder(run) / LEASE, self.expiry)


SHARD = 2
"""Digits of an id that name the folder above it.

They divide 100,000 runs into 256 folders of 400; Lustre slows down above some 20,000 entries.
"""


def _divided(folder: Path, name: str) -> Path:
    """`folder/<two digits>/<name>`, but `folder/<name>` where an older version has made that."""
    old, new = folder / name, folder / name[:SHARD] / name
    return old if old.exists() and not new.exists() else new


def _listed(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def new_record(run: Run, selection: Mapping[str, Any]) -> Record:
    """A record of `run` without measurements; `selection` says how its options were chosen."""
    return {
        "schema": SCHEMA,
        "id": run.id,
        "run": run.model_dump(mode="json", exclude={"data"}),
        "status": COMPLETED,
        "metrics": {},
        "protocol": {"selection": dict(selection)},
        "curves": {},
        "cost": {},
        "environment": {},
        "artifacts": {},
    }


def done(record: Record | None) -> TypeGuard[Record]:
    """Whether a run needs no more work: it completed or diverged; a failure is tried again."""
    return record is not None and record["status"] != FAILED


def brief(record: Record) -> Record:
    """The part of a record that searches and tables need, less than half of it."""
    return {key: record[key] for key in record if key not in ("curves", "environment")}
