"""Worker processes that take one run at a time; the parent never computes, so it outlives them.

Workers are spawned, not forked: threads and CUDA survive no fork. The parent stays free of
torch; a worker killed for memory takes down one run, never the grid. One that is asked to stop
does so at the next step, with a checkpoint.
"""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

from bench.devices import cores
from bench.errors import Lost, RequestError, Stopped
from bench.execution.messages import Kind, Message, Task
from bench.execution.signals import SIGNALS, Interruption, Stop
from bench.files import disk_full
from bench.plugins import Plugin, loaded, restore
from bench.records.store import Record, Store, done

if TYPE_CHECKING:
    from bench.execution.worker import Worker


@dataclass
class _Member:
    process: BaseProcess
    connection: Connection
    device: str
    task: Task | None = None


class Pool:
    """At most `jobs` workers, started as tasks come and dealt to `devices` in turn."""

    def __init__(self, store: Store, devices: Sequence[str], jobs: int) -> None:
        self.store, self.devices, self.jobs = store, devices, jobs
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
        self.members: list[_Member] = []

    def stop(self) -> None:
        """Ask all workers to leave: the busy ones tell what became of their tasks first."""
        for member in self.members:
            member.process.terminate()

    def close(self) -> None:
        """Stop all workers and wait for them; a KeyboardInterrupt meanwhile passes through."""
        self.stop()
        for member in self.members:
            member.process.join()

    def kill(self) -> None:
        """End all workers now; their runs go on from the last checkpoint another time."""
        for member in self.members:
            member.process.kill()
        for member in self.members:
            member.process.join()

    def _spawn(self, device: str) -> _Member:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(
            target=_serve,
            args=(theirs, self.store.folder, device, self.threads, self.plugins),
            daemon=True,
        )
        # A signal to the whole group must not meet a worker that has no handlers yet. The tracker
        # of multiprocessing would lift the block while it starts, so it comes first.
        resource_tracker.ensure_running()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        theirs.close()
        return _Member(process, ours, device)

    def _replace(self, member: _Member) -> _Member:
        member.process.join()
        member.connection.close()
        fresh = self._spawn(member.device)
        self.members[self.members.index(member)] = fresh
        return fresh

    @property
    def busy(self) -> bool:
        return any(member.task is not None for member in self.members)

    @property
    def free(self) -> bool:
        """Whether a task would find a worker."""
        return len(self.members) < self.jobs or any(m.task is None for m in self.members)

    def give(self, task: Task) -> None:
        """Hand the task to an idle worker, or to a new one where there are fewer than `jobs`."""
        member = next((member for member in self.members if member.task is None), None)
        if member is None:
            member = self._spawn(self.devices[len(self.members) % len(self.devices)])
            self.members.append(member)
        try:
            member.connection.send(task)
        except ConnectionError:  # it died while it had nothing to do
            member = self._replace(member)
            member.connection.send(task)
        member.task = task

    def messages(self, timeout: float | None, interruption: Interruption) -> Iterator[Message]:
        """What workers say, waiting for the first word, or `interruption`, at most `timeout` s.

        A worker that died is replaced once there is a task for it; its own is told as `died`, with
        the exit code.
        """
        by_connection = {m.connection: m for m in self.members if m.task is not None}
        awaited: list[Connection | int] = [*by_connection]
        if not interruption.asked:
            awaited.append(interruption.fileno())
        for ready in multiprocessing.connection.wait(awaited, timeout):
            if not isinstance(ready, Connection):
                continue
            member = by_connection[ready]
            assert member.task is not None
            task = member.task
            try:
                kind, content = ready.recv()
            except (EOFError, ConnectionError):
                member.process.join()
                member.task = None
                yield Message("died", task, member.process.exitcode)
                continue
            if kind != "epoch":
                member.task = None
            yield Message(kind, task, content)


def _serve(
    connection: Connection, folder: Path, device: str, threads: int, plugins: tuple[Plugin, ...]
) -> None:
    """A worker's life: import torch once, then one run after the other until the pipe closes."""
    stop = Stop()
    stop.install()
    _die_with_parent()
    with contextlib.suppress(Stopped, EOFError):
        with stop.at_once():
            import torch

            from bench.execution.worker import Worker

            torch.set_num_threads(threads)
            worker, store = Worker(device, stop), Store(folder)
        while True:
            with stop.at_once():
                content = connection.recv_bytes()
            try:
                # A task is made of the plugins' classes, so these come first.
                restore(plugins)
                task: Task = pickle.loads(content)
            except RequestError as error:
                connection.send(("wrong", str(error)))
            else:
                connection.send(_attempt(worker, store, task, connection))


def _attempt(
    worker: "Worker", store: Store, task: Task, connection: Connection
) -> tuple[Kind, Record | str | None]:
    try:
        with store.claim(task.run) as claim:
            if claim is None:
                return "held", None
            # Another process may have finished it between the parent's look and this claim.
            record = store.record(task.run)
            if done(record):
                return "found", record
            computed = worker.execute(
                task.run,
                claim,
                task.selection,
                lambda line: connection.send(("epoch", line)),
                store.trained(task.run),
            )
            if artifacts := computed["artifacts"]:
                store.keep(task.run, [artifacts["weights"], artifacts["history"]])
            return "record", computed
    except RequestError as error:
        return "wrong", str(error)
    except Stopped:
        return "stopped", None
    except Lost:
        return "held", None
    except OSError as error:
        if disk_full(error):
            return "full", None
        return "wrong", f"{error.filename or store.folder}: {error.strerror}; nothing more is run"


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
