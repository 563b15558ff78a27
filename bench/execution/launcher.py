"""The interface of an engine that pulls: a batch system starts pilots, and pilots take runs.

A pilot is the same command once more, on the same folder of results, so a launcher passes neither
tasks nor messages. `Fleet` has the pilots of one grid, also those of earlier invocations; what they
do is followed by their records (`bench.execution.follow`).
"""

import shlex
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from bench.errors import RequestError
from bench.execution.code import TOP, code_digest
from bench.execution.pilot import ORDERS
from bench.files import read_checked, write_checked
from bench.records.store import Store
from bench.records.validity import FAILED


@dataclass(frozen=True)
class Tally:
    """How many pilots wait for a place and are at work; `refused` names those that had to refuse.

    A pilot refuses where the request is wrong on its node: a missing file, other code, no device.
    """

    queued: int = 0
    running: int = 0
    refused: tuple[str, ...] = ()

    @property
    def alive(self) -> int:
        return self.queued + self.running

    def __str__(self) -> str:
        return f"{self.running} running, {self.queued} queued"


class Launcher(ABC):
    """A batch system that starts pilots.

    Arguments:
        folder: where pilots print to.
        options: KEY=VALUE, which go to the batch system as they are.
    """

    name: ClassVar[str]
    """The word for it in `--engine`."""

    def __init__(self, folder: Path, options: Sequence[str]) -> None:
        self.folder, self.options = folder, options

    @abstractmethod
    def submit(self, script: str, count: int, title: str, threads: int) -> str:
        """Queue `count` pilots that run a shell script; returns the id of this batch.

        Raises:
            RequestError: the batch system refuses, or is not here.
        """

    @abstractmethod
    def tally(self, batches: Sequence[str]) -> Tally | None:
        """The pilots of these batches now; None where the batch system does not answer."""

    @abstractmethod
    def cancel(self, batches: Sequence[str], *, queued_only: bool = False) -> None:
        """Ask pilots to end; those at work write checkpoints first."""

    @abstractmethod
    def last_words(self, batches: Sequence[str]) -> str:
        """The file and the last line of what the pilots of these batches printed last."""


@dataclass
class Fleet:
    """The pilots of the grid in `store`, each of which is started by `words` of our command line.

    What is known of each batch is in a file of the launcher's folder, so that another invocation
    finds pilots that were left at work.
    """

    launcher: Launcher
    store: Store
    words: Sequence[str] = ()
    threads: int = 1
    retried: frozenset[str] = frozenset()
    batches: dict[str, Path] = field(default_factory=dict)

    @classmethod
    def found(
        cls,
        kind: type[Launcher],
        store: Store,
        options: Sequence[str],
        words: Sequence[str] = (),
        threads: int = 1,
    ) -> "Fleet":
        """The fleet with the batches that earlier invocations submitted with these `words`, or all.

        Pilots of other words, such as another `--only`, do other runs.
        """
        folder = store.folder / kind.name
        fleet = cls(kind(folder, options), store, words, threads)
        for path in sorted(folder.glob("*.json")):
            orders = read_checked(path)
            if orders is None or not orders["batch"]:
                continue  # just being submitted
            if not words or orders["words"] == [*words]:
                fleet.batches[orders["batch"]] = path
                fleet.retried = frozenset(orders["retried"])
        return fleet

    def forget_ended(self) -> Tally:
        """The pilots that earlier invocations left at work; without any, their batches go."""
        tally = self.tally()
        if tally is not None and not tally.alive:
            for path in self.batches.values():
                path.unlink(missing_ok=True)
            self.batches.clear()
        return tally or Tally()

    def submit(self, count: int) -> str:
        """Start so many pilots; returns the id of their batch. Raises what the launcher raises.

        Failures up to now are tried again, once by the whole fleet.
        """
        failures = (r for r in self.store.records() if r["status"] == FAILED)
        self.retried = frozenset(record["checksum"] for record in failures)
        orders = {
            "code": code_digest(),
            "retried": sorted(self.retried),
            "words": [*self.words],
            "batch": "",
        }
        path = self.launcher.folder / f"{time.time_ns()}.json"
        write_checked(path, orders)
        try:
            title = f"sigma-bench-{self.store.folder.name}"
            batch = self.launcher.submit(self._script(path), count, title, self.threads)
        except RequestError:
            path.unlink()
            raise
        write_checked(path, {**orders, "batch": batch})
        self.batches[batch] = path
        return batch

    def tally(self) -> Tally | None:
        """The pilots now; None where the batch system does not answer."""
        return self.launcher.tally(list(self.batches)) if self.batches else Tally()

    def cancel(self, *, queued_only: bool = False) -> None:
        """Ask the pilots to end; those at work write checkpoints first."""
        if self.batches:
            self.launcher.cancel(list(self.batches), queued_only=queued_only)

    def last_words(self) -> str:
        return self.launcher.last_words(list(self.batches))

    def _script(self, orders: Path) -> str:
        # This very code, wherever the node's Python would look for it. -P: a folder `bench` in the
        # working folder is somebody's own.
        return (
            "#!/bin/sh\n"
            f"export {ORDERS}={shlex.quote(str(orders))}\n"
            f'export PYTHONPATH={shlex.quote(str(TOP))}"${{PYTHONPATH:+:$PYTHONPATH}}"\n'
            # No shell stays between the batch system's signals and the pilot.
            f"exec {shlex.join([sys.executable, '-P', '-m', 'bench', *self.words])}\n"
        )


def tallies(store: Store, kinds: Iterable[type[Launcher]]) -> dict[str, Tally]:
    """The pilots of a grid by engine, of each engine that has ever been used for it."""
    fleets = (Fleet.found(kind, store, ()) for kind in kinds)
    known = ((fleet.launcher.name, fleet.tally()) for fleet in fleets if fleet.batches)
    return {name: tally for name, tally in known if tally is not None}
