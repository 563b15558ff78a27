"""Worker processes that take one run at a time; the parent never computes, so it outlives them.

Workers are spawned, not forked: threads and CUDA survive no fork. The parent stays free of
torch; a worker killed for memory takes down one run, never the grid.
"""

import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal

from bench.devices import cores
from bench.errors import RequestError
from bench.grid import Run
from bench.plugins import Plugin, loaded, restore
from bench.records import Record, Store, done

Kind = Literal["epoch", "record", "found", "held", "wrong", "died"]


@dataclass(frozen=True)
class Task:
    """A run to execute, and how its decoder options were chosen."""

    run: Run
    selection: dict[str, Any] = field(hash=False)


@dataclass(frozen=True)
class Message:
    """What a worker says of its task.

    `epoch` a line of history, `record` what it computed, `found` what another process had computed,
    `held` that another process is at it, `wrong` why the request is, `died` the exit code.
    """

    kind: Kind
    task: Task
    content: Any = None


@dataclass
class _Member:
    process: BaseProcess
    connection: Connection
    task: Task | None = None


class Pool:
    """`jobs` workers on one device; `close` ends them."""

    def __init__(self, store: Store, device: str, jobs: int) -> None:
        self.store, self.device = store, device
        self.threads = max(1, cores() // jobs)
        # BLAS reads these when it is loaded, which is before a worker's first line.
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            os.environ[variable] = str(self.threads)
        # SciPy's eigenvalues fork and join thousands of times: beside a busy process that stalls
        # for minutes what one thread does in seconds.
        os.environ["OPENBLAS_NUM_THREADS"] = "1"
        # A thread that spins while its sibling waits for a busy core stalls a run many times over.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        self.plugins = loaded()
        self.context = multiprocessing.get_context("spawn")
        self.members = [self._spawn() for _ in range(jobs)]

    def close(self) -> None:
        for member in self.members:
            member.process.terminate()
        for member in self.members:
            member.process.join()

    def _spawn(self) -> _Member:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(
            target=_serve,
            args=(theirs, self.store.folder, self.device, self.threads, self.plugins),
            daemon=True,
        )
        process.start()
        theirs.close()
        return _Member(process, ours)

    @property
    def busy(self) -> bool:
        return any(member.task is not None for member in self.members)

    def offer(self, task: Task) -> bool:
        """Give the task to an idle worker; False where all are busy."""
        for member in self.members:
            if member.task is None:
                member.task = task
                member.connection.send(task)
                return True
        return False

    def messages(self, timeout: float | None) -> Iterator[Message]:
        """What workers say, waiting for the first word at most `timeout` seconds.

        A worker that died is replaced, and its task told as `died` with the exit code.
        """
        by_connection = {m.connection: m for m in self.members if m.task is not None}
        ready = multiprocessing.connection.wait(list(by_connection), timeout)
        for connection in ready:
            assert isinstance(connection, Connection)
            member = by_connection[connection]
            assert member.task is not None
            task = member.task
            try:
                kind, content = connection.recv()
            except (EOFError, ConnectionError):
                member.process.join()
                code = member.process.exitcode
                self.members[self.members.index(member)] = self._spawn()
                yield Message("died", task, code)
                continue
            if kind != "epoch":
                member.task = None
            yield Message(kind, task, content)


def _serve(
    connection: Connection, folder: Path, device: str, threads: int, plugins: tuple[Plugin, ...]
) -> None:
    """A worker's life: import torch once, then one run after the other until the pipe closes."""
    # An interruption is the parent's to handle: it ends its workers itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with_parent()

    import torch

    from bench.execution.worker import Worker

    torch.set_num_threads(threads)
    worker, store = Worker(device), Store(folder)
    while True:
        try:
            content = connection.recv_bytes()
        except EOFError:
            return
        try:
            # A task is made of the plugins' classes, so these come first.
            restore(plugins)
            task: Task = pickle.loads(content)
        except RequestError as error:
            connection.send(("wrong", str(error)))
        else:
            connection.send(_attempt(worker, store, task, connection))


def _attempt(
    worker: Any, store: Store, task: Task, connection: Connection
) -> tuple[Kind, Record | str | None]:
    with store.claim(task.run) as folder:
        if folder is None:
            return "held", None
        # Another process may have finished it between the parent's look and this claim.
        record = store.record(task.run)
        if done(record):
            return "found", record
        try:
            computed = worker.execute(
                task.run,
                folder,
                task.selection,
                lambda line: connection.send(("epoch", line)),
                store.trained(task.run),
            )
        except RequestError as error:
            return "wrong", str(error)
        if "weights" in computed["artifacts"]:
            store.keep(task.run, folder / computed["artifacts"]["weights"])
        return "record", computed


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
