"""Agents in processes of this machine, behind pipes that lose calls, and with an end in store.

Each sees another working folder and another cache than this process, so that a store below
`/proc/self/cwd` is not the one that this process means.
"""

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.execution.agent import Agent
from bench.execution.cluster import Broken, Gone, Unreachable
from bench.execution.messages import Engine, Launch, Resources
from bench.execution.processes import Pool
from bench.execution.remote import Remote
from bench.records.store import Store
from tests.warm import FORKED, WARM

HERE = Path("/proc/self/cwd")
"""The working folder of whoever asks: one path, and another folder in each process."""


@dataclass
class Fate:
    """What happens to the calls to one agent.

    It has no place for the first `pauses` seconds, and it `ends` before or after so many calls, if
    ever. `mishaps` draws what happens to a call otherwise; None where all arrive once and in order.
    """

    mishaps: random.Random | None = None
    ends: int | None = None
    after: bool = False
    pauses: float = 0.0


def _serve(pipe: Connection, folder: Path, fate: Fate) -> None:
    Pool.context = FORKED
    time.sleep(fate.pauses)
    os.chdir(folder)
    os.environ["SIGMA_BENCH_CACHE"] = str(folder / "cache")
    agent = Agent()
    calls = 0
    with suppress(EOFError):
        while True:
            number, method, arguments = pipe.recv()
            if calls == fate.ends and not fate.after:
                os.kill(os.getpid(), signal.SIGKILL)
            try:
                answer = ("", getattr(agent, method)(*arguments))
            except Exception as error:
                answer = (f"{type(error).__name__}: {error}", None)
            if calls == fate.ends:
                os.kill(os.getpid(), signal.SIGKILL)
            calls += 1
            pipe.send((number, *answer))


class Pipe:
    """The way to one agent."""

    def __init__(self, folder: Path, fate: Fate) -> None:
        self.node, self.fate, self.numbers = str(folder), fate, 0
        self.late: list[tuple[int, str, tuple[Any, ...]]] = []
        self.pipe, theirs = WARM.Pipe()
        self.process = WARM.Process(target=_serve, args=(theirs, folder, fate))
        self.process.start()
        theirs.close()

    def call(self, method: str, *arguments: Any) -> Any:
        self.numbers += 1
        request = (self.numbers, method, arguments)
        mishaps = self.fate.mishaps
        mishap = mishaps.choice(MISHAPS) if mishaps and method != "close" else "none"
        with self._dying():
            if mishap == "request lost":
                raise Unreachable
            if mishap == "late":  # it overtakes, or is overtaken
                self.late.append(request)
                raise Unreachable
            self.pipe.send(request)
            if mishap == "doubled":
                self.pipe.send(request)
            for old in self.late:
                self.pipe.send(old)
            self.late.clear()
            while True:
                number, fault, result = self.pipe.recv()
                if number == self.numbers:
                    break
            if mishap == "answer lost":
                raise Unreachable
        if fault:
            raise Broken(fault)
        return result

    def end(self) -> None:
        self.process.kill()
        self.process.join()

    @contextmanager
    def _dying(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, OSError) as error:
            raise Gone("its process ended") from error


MISHAPS = ("none", "none", "none", "request lost", "answer lost", "doubled", "late")


@dataclass
class Loopback:
    """So many places; `fates` are those of the agents in the order in which they are placed."""

    folder: Path
    count: int
    fates: Callable[[int], Fate] = lambda number: Fate()
    name: str = "loopback"
    placed: list[Pipe] = field(default_factory=list)
    gone: set[str] = field(default_factory=set)
    checkpoint_every: float = 300.0

    def place(self) -> Pipe:
        number = len(self.placed)
        # As many machines as places: an agent that follows another meets its cache.
        folder = self.folder / f"machine{number % self.count}"
        (folder / "cache").mkdir(parents=True, exist_ok=True)
        self.placed.append(Pipe(folder, self.fates(number)))
        return self.placed[-1]

    def share(self, content: Any) -> Any:
        return content

    def places(self) -> int:
        return self.count

    def leaving(self) -> set[str]:
        return self.gone

    def close(self) -> None:
        for link in self.placed:
            link.end()

    @property
    def launch(self) -> Launch:
        def engine(store: Store, resources: Resources) -> Engine:
            settings = replace(resources, checkpoint_every=self.checkpoint_every)
            return Remote(self, store, settings)

        return engine
