"""The engine `local`: worker processes of this machine that take one run at a time.

Workers are spawned, not forked: threads and CUDA do not survive a fork. The parent never imports
torch or computes, so a worker that is killed for its memory costs one run and not the grid. Tasks
and messages cross the pipe as JSON.
"""

import contextlib
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import ForkContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from bench.errors import RequestError, Stopped
from bench.execution.messages import Message, Resources, Task
from bench.execution.signals import SIGNALS, Interruption, Stop
from bench.plugins import Plugin, loaded, restore
from bench.records.store import Store


@dataclass
class _Member:
    process: BaseProcess
    connection: Connection
    device: str
    task: Mapping[str, Any] | None = None


class Pool:
    """At most `resources.jobs` workers, started as tasks come and dealt to the devices in turn."""

    name = "local"
    context: SpawnContext | ForkContext = multiprocessing.get_context("spawn")

    def __init__(
        self,
        store: Store,
        resources: Resources,
        plugins: tuple[Plugin, ...] | None = None,
        contents: Mapping[Plugin, bytes] | None = None,
    ) -> None:
        """`plugins` are this process's own, unless given with the `contents` of their files."""
        self.store, self.resources = store, resources
        self.plugins = loaded() if plugins is None else plugins
        self.contents = dict(contents or {})
        self.members: list[_Member] = []

    def stop(self) -> None:
        for member in self.members:
            member.process.terminate()

    def close(self) -> None:
        """Stop all workers and wait for them; a KeyboardInterrupt meanwhile passes through."""
        self.stop()
        for member in self.members:
            member.process.join()

    def kill(self) -> None:
        for member in self.members:
            member.process.kill()
        for member in self.members:
            member.process.join()

    def _spawn(self, device: str) -> _Member:
        ours, theirs = self.context.Pipe()
        process = self.context.Process(
            target=_serve,
            args=(
                theirs,
                self.store.folder,
                device,
                self.resources.threads,
                self.plugins,
                self.contents,
            ),
            daemon=True,
        )
        # A signal to the whole process group must not reach a worker that has no handlers yet.
        # Starting multiprocessing's resource tracker unblocks signals, so it is started first.
        resource_tracker.ensure_running()
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            with environment_with(_variables(self.resources.threads)):
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
        return len(self.members) < self.resources.jobs or any(m.task is None for m in self.members)

    def give(self, task: Task) -> None:
        """Hand the task to an idle worker, or to a new one where there are fewer than `jobs`."""
        self.pass_on(task.dump())

    def pass_on(self, task: Mapping[str, Any]) -> None:
        """The same with a task's JSON, which needs none of the plugins in this process."""
        member = next((member for member in self.members if member.task is None), None)
        if member is None:
            devices = self.resources.devices
            member = self._spawn(devices[len(self.members) % len(devices)])
            self.members.append(member)
        try:
            _send(member.connection, task)
        except ConnectionError:  # it died while it was idle
            member = self._replace(member)
            _send(member.connection, task)
        member.task = task

    def messages(self, timeout: float | None, interruption: Interruption) -> Iterator[Message]:
        by_connection = {m.connection: m for m in self.members if m.task is not None}
        awaited: list[Connection | int] = [*by_connection]
        if not interruption.asked:
            awaited.append(interruption.fileno())
        for ready in multiprocessing.connection.wait(awaited, timeout):
            if not isinstance(ready, Connection):
                continue
            member = by_connection[ready]
            task = member.task
            assert task is not None
            try:
                message = Message.read(_receive(ready))
            except (EOFError, OSError):  # OSError where it was killed in the middle of a message
                # It is replaced when there is a task for it.
                member.process.join()
                code = member.process.exitcode
                message = Message("died", task["id"], task["attempt"], code)
            if message.ends:
                member.task = None
            yield message


def _send(connection: Connection, content: Mapping[str, Any]) -> None:
    connection.send_bytes(json.dumps(content, allow_nan=False).encode())


def _receive(connection: Connection) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(connection.recv_bytes())
    return content


def _variables(threads: int) -> dict[str, str]:
    """The environment variables of a worker, which BLAS and OpenMP read when they are loaded.

    That is before a worker's first line, so the parent has them while it starts one.
    """
    return {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        # SciPy's eigenvalues fork and join thousands of times: next to a busy process several
        # threads take minutes for what one thread does in seconds.
        "OPENBLAS_NUM_THREADS": "1",
        # A thread that spins while its sibling waits for a busy core slows a run down many times.
        "OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive"),
    }


@contextlib.contextmanager
def environment_with(wanted: Mapping[str, str]) -> Iterator[None]:
    """A block in which environment variables have other values, for the processes it starts."""
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _serve(
    connection: Connection,
    folder: Path,
    device: str,
    threads: int,
    plugins: tuple[Plugin, ...],
    contents: Mapping[Plugin, bytes],
) -> None:
    """A worker's main function: import torch once, then compute one run after the other."""
    stop = Stop()
    stop.install()
    _die_with_parent()
    with contextlib.suppress(Stopped, EOFError):
        try:
            with stop.at_once():
                # Only workers import torch; the parent starts fast and stays small without it.
                from bench.execution.worker import Worker

                worker, store = Worker(device, stop, threads), Store(folder)
        # As where memory has a limit that torch does not fit into.
        except (ImportError, OSError, MemoryError, RuntimeError) as error:
            _cannot_start(connection, error)
            return
        while True:
            with stop.at_once():
                content = _receive(connection)
            try:
                # A task names the plugins' decoders and models, so these come first.
                restore(plugins, contents)
                task = Task.read(content)
            except RequestError as error:
                message = Message("wrong", content["id"], content["attempt"], str(error))
            else:
                message = worker.attempt(task, store, lambda told: _send(connection, told.dump()))
            _send(connection, message.dump())


def _cannot_start(connection: Connection, error: Exception) -> None:
    """Answer the first task with why this worker cannot compute it."""
    content = _receive(connection)
    told = (
        f"a worker cannot start ({type(error).__name__}: {error}); raise the limit of memory "
        "(ulimit -v), try fewer --jobs, or see `sigma-bench doctor`"
    )
    _send(connection, Message("wrong", content["id"], content["attempt"], told).dump())


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
