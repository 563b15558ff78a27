"""The far end of an engine of several machines: one worker there, and its files and messages.

An agent is asked by calls that may be lost, doubled or late, and never asks back. It neither trains
nor imports torch: its worker is a process of its own, as on one machine.
"""

import contextlib
import json
import os
import platform
import shutil
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import filelock

from bench.devices import DeviceClass, cuda_capabilities
from bench.errors import RequestError
from bench.execution import parcel
from bench.execution.code import code_digest
from bench.execution.messages import Message, Resources
from bench.execution.processes import Pool
from bench.execution.signals import Interruption
from bench.execution.supplies import Content, Supply, relocated
from bench.plugins import Plugin
from bench.records.store import Store
from bench.run import SCHEMA

POLL = 1.0
"""Seconds after which an agent answers, though its run goes on; messages of epochs wait for it."""

PREFIX = "sigma-bench-agent-"

Event = tuple[int, str, bytes]
"""A message of the worker: its number, its JSON, and a parcel of the run's files, or none."""

Plugins = Sequence[tuple[str, str, str]]
"""The fields of each `Plugin`."""


def versions() -> dict[str, str]:
    """The versions that decide the last bits of a run."""
    return {
        "Python": platform.python_version(),
        **{name: metadata.version(name) for name in ("torch", "numpy")},
    }


class Agent:
    """Computes the tasks that it is given, one at a time, in a store of its own.

    It writes to the store of whoever asks where this machine sees that.
    """

    def __init__(self) -> None:
        self.scratch = Scratch()
        self.pool: Pool | None = None
        self.number = self.serial = 0
        self.holds = ""
        self.stopped = False
        self.outbox: list[Event] = []
        # It only ever waits for its worker.
        self.undisturbed = Interruption()
        self.undisturbed.asked = True

    def hello(self, asked: Mapping[str, Any], contents: Sequence[bytes]) -> dict[str, Any]:
        """Say what this machine is, and get ready.

        Arguments:
            asked: `store`, the folder of the store; `token`, the name of a file in it;
                `device`, a class; `threads`; `checkpoint_every`; `plugins`, see `Plugins`.
            contents: of those of the plugins that are files.
        """
        store = Path(asked["store"])
        self.shares = Path(store, asked["token"]).exists() and os.access(store, os.W_OK)
        self.store = Store(store if self.shares else self.scratch.folder)
        self.every = asked["checkpoint_every"]
        self.shipped = time.monotonic()
        on_cuda = asked["device"] == DeviceClass.CUDA
        self.resources = Resources(["cuda:0" if on_cuda else "cpu"], 1, asked["threads"])
        self.plugins = tuple(Plugin(*fields) for fields in asked["plugins"])
        files = [plugin for plugin in self.plugins if plugin.path]
        self.contents = dict(zip(files, contents, strict=True))
        return {
            "code": code_digest(),
            "schema": SCHEMA,
            "versions": versions(),
            "capabilities": list(cuda_capabilities()),
            "shares": self.shares,
        }

    def lacks(self, supply: Mapping[str, Any]) -> bool:
        """Whether this machine has to be sent a supply."""
        return not Supply(**supply).here()

    def keep(self, supply: Mapping[str, Any], content: Content, validation: int) -> str:
        """Put a supply into this machine's cache; returns what went wrong, or nothing."""
        try:
            Supply(**supply).keep(content, validation)
        except (RequestError, OSError) as error:
            return str(error)
        return ""

    def exchange(
        self, number: int, seen: int, task: str, files: bytes | None, stop: bool
    ) -> tuple[str, list[Event]]:
        """Have the worker do what is wanted now, and return the messages that were not seen yet.

        Returns at once where there is nothing to wait for, else after at most `POLL` seconds.

        Arguments:
            number: grows with each call; an older one than the last is ignored.
            seen: the last event that arrived.
            task: the JSON of the task that is wanted, empty for none.
            files: the task's parcel; None where the agent holds the task already.
            stop: whether the worker is to stop with a checkpoint.

        Returns:
            Which task it holds, as `key` says, and the events.
        """
        if number > self.number:
            self.number = number
            self.outbox = [event for event in self.outbox if event[0] > seen]
            fields = json.loads(task) if task else None
            if (key(fields) if fields else "") != self.holds:
                self._abandon()
                if fields is not None and files is not None:
                    with contextlib.suppress(parcel.Torn):  # it is sent again
                        self._begin(fields, files)
            self._advance(stop)
        return self.holds, self.outbox

    def close(self) -> None:
        """End the worker and remove its files."""
        if self.pool is not None:
            self.pool.close()
        self.scratch.remove()

    def _abandon(self) -> None:
        """Drop a task that nobody waits for any more."""
        self.holds = ""
        if self.pool is not None and self.pool.busy:
            self.pool.kill()
            self.pool = None

    def _begin(self, fields: Mapping[str, Any], files: bytes) -> None:
        if not self.shares:
            shutil.rmtree(self.store.folder, ignore_errors=True)
            parcel.unpack(files, self.store.folder)
        if self.pool is None:
            self.pool = Pool(self.store, self.resources, self.plugins, self.contents)
        self.pool.pass_on(relocated(fields))
        self.holds, self.stopped = key(fields), False

    def _advance(self, stop: bool) -> None:
        until = time.monotonic() + POLL
        while self.pool is not None and self.pool.busy:
            if stop and not self.stopped:
                self.pool.stop()
                self.stopped = True
            wait = until - time.monotonic()
            if wait <= 0:
                return
            for message in self.pool.messages(wait, self.undisturbed):
                self._put(message)

    def _put(self, message: Message) -> None:
        files = b""
        if not self.shares:
            due = message.kind == "epoch" and time.monotonic() - self.shipped >= self.every
            if message.kind == "record":
                files = parcel.of_finished(self.store, message.run)
            elif due or message.ends:
                files = parcel.to_continue(self.store, message.run)
        if files:
            self.shipped = time.monotonic()
            # One that waits still is of an older state.
            self.outbox = [(serial, text, b"") for serial, text, _ in self.outbox]
        self.serial += 1
        self.outbox.append((self.serial, json.dumps(message.dump()), files))


def key(task: Mapping[str, Any]) -> str:
    """The name of an attempt at a run, by a task's JSON."""
    return f"{task['id']}/{task['attempt']}"


class Scratch:
    """A temporary folder of this process; those of processes that were killed are removed."""

    def __init__(self) -> None:
        root = Path(tempfile.gettempdir())
        for lock in root.glob(f"{PREFIX}*.lock"):
            with contextlib.suppress(OSError, filelock.Timeout), filelock.FileLock(lock, timeout=0):
                _remove(lock)
        self.folder = root / f"{PREFIX}{uuid.uuid4().hex}"
        self._lock = filelock.FileLock(_lock(self.folder))
        self._lock.acquire()
        self.folder.mkdir()

    def remove(self) -> None:
        _remove(_lock(self.folder))
        self._lock.release()


def _lock(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _remove(lock: Path) -> None:
    shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
    lock.unlink(missing_ok=True)
