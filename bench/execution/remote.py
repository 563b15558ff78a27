"""An engine of several machines: agents on the nodes of a cluster, each followed by a thread here.

Runs are given to whichever agent is free first. The store need not be shared: where an agent does
not see it, this process claims the run and writes its files.
"""

import contextlib
import os
import queue
import threading
import time
import uuid
from collections import deque
from collections.abc import Iterator
from multiprocessing import connection

from bench import plugins
from bench.errors import RequestError
from bench.execution.cluster import Broken, Cluster, Gone, Link, Unreachable
from bench.execution.delegate import Common, Delegate, Unfit
from bench.execution.messages import Message, Resources, Task
from bench.execution.signals import Interruption
from bench.records.store import Store

IDLE = 60.0
"""Seconds without a task after which an agent gives its place back, as a cluster may shrink."""

WATCH = 2.0
"""Seconds between looks at the cluster: nodes that came, and nodes that will be taken away."""

ALONE = 30.0
"""Seconds without any agent after which a person is told so."""

MAX_FAILURES = 3
"""Agents in a row that die before they answer, before the cluster is given up."""


class Remote:
    """The interface of an engine over agents on a cluster."""

    def __init__(self, cluster: Cluster, store: Store, resources: Resources) -> None:
        self.name, self.cluster, self.jobs = cluster.name, cluster, resources.jobs
        self.common = Common(
            store,
            resources,
            f".seen-{uuid.uuid4().hex}",
            {plugin: plugins.content_of(plugin) for plugin in plugins.loaded()},
            cluster.share,
        )
        self._token = store.folder / self.common.token
        self._token.touch()
        self._places = cluster.places()
        self._leaving: set[str] = set()
        self._unfinished: set[str] = set()
        self._waiting: deque[Task] = deque()
        self._agents: dict[Link, threading.Thread] = {}
        self._met: set[Link] = set()
        # Those that are unfit keep their places, so that no other agent is put there.
        self._refused: dict[Link, str] = {}
        self._told: set[str] = set()
        self._failures = 0
        self._stopping = False
        self._closing = threading.Event()
        self._changed = threading.Condition()
        self._inbox: queue.SimpleQueue[Message | Exception] = queue.SimpleQueue()
        self._wake, self._waker = os.pipe()
        for end in (self._wake, self._waker):
            os.set_blocking(end, False)
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self._watcher.start()

    # -- the interface of an engine ------------------------------------------------------------

    @property
    def busy(self) -> bool:
        return bool(self._unfinished)

    @property
    def free(self) -> bool:
        return len(self._unfinished) < self._limit

    def give(self, task: Task) -> None:
        with self._changed:
            self._unfinished.add(task.run.id)
            self._waiting.append(task)
            self._changed.notify_all()
        self._hire()

    def messages(self, timeout: float | None, interruption: Interruption) -> Iterator[Message]:
        if self._inbox.empty():
            awaited = [self._wake] if interruption.asked else [self._wake, interruption.fileno()]
            connection.wait(awaited, timeout)
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 1 << 16)
        while not self._inbox.empty():
            message = self._inbox.get()
            if isinstance(message, Exception):
                raise message
            if message.ends:
                self._unfinished.discard(message.run)
            yield message

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            for task in self._waiting:
                self._tell(task.message("left"))
            self._waiting.clear()
            self._changed.notify_all()

    def close(self) -> None:
        self._closing.set()
        self.stop()
        with self._changed:
            threads = list(self._agents.values())
            for link in [*self._refused, *(self._agents.keys() - self._met)]:
                link.end()
        for thread in [*threads, self._watcher]:
            thread.join()
        self._token.unlink(missing_ok=True)
        self.cluster.close()
        os.close(self._wake)
        os.close(self._waker)

    def kill(self) -> None:
        self._closing.set()
        with self._changed:
            self._stopping = True
            for link in [*self._agents, *self._refused]:
                link.end()
            self._changed.notify_all()

    # -- agents --------------------------------------------------------------------------------

    @property
    def _limit(self) -> int:
        return self.jobs or max(1, self._places - len(self._refused))

    def _hire(self) -> None:
        """Ask for as many agents as there is work for."""
        with self._changed:
            while len(self._agents) < min(self._limit, len(self._unfinished)):
                if self._closing.is_set():
                    return
                link = self.cluster.place()
                thread = threading.Thread(target=self._employ, args=(link,), daemon=True)
                self._agents[link] = thread
                thread.start()

    def _employ(self, link: Link) -> None:
        """Follow one agent from its place's coming to its end."""
        agent = Delegate(link, self.common)
        try:
            self._meet(agent)
            while (task := self._next(agent)) is not None:
                self._compute(agent, task)
            with contextlib.suppress(Unreachable, Broken):
                agent.dismiss()
        except (Unfit, Broken) as reason:
            self._refuse(agent, str(reason))
        except Gone as reason:
            self._lost(agent, str(reason))
        except Exception as error:  # a fault of ours, for the thread that reads the messages
            self._report(error)
        finally:
            with self._changed:
                del self._agents[link]
                self._met.discard(link)
                if link not in self._refused:
                    link.end()
            self._hire()

    def _meet(self, agent: Delegate) -> None:
        agent.meet()
        with self._changed:
            self._met.add(agent.link)
            self._failures = 0
        for name, version in agent.differences.items():
            self._notice(f"agents have {name} {version}: last bits of their runs may differ")

    def _next(self, agent: Delegate) -> Task | None:
        """The next task for an agent; None where it is to go."""
        until = time.monotonic() + IDLE
        with self._changed:
            while not (self._closing.is_set() or agent.link.node in self._leaving):
                if self._waiting:
                    agent.check(self._waiting[0].run)
                    return self._waiting.popleft()
                if not self._changed.wait(until - time.monotonic()):
                    break
        return None

    def _compute(self, agent: Delegate, task: Task) -> None:
        def leaving() -> bool:
            return agent.link.node in self._leaving

        try:
            last = agent.compute(task, lambda: self._stopping or leaving(), self._tell)
        except (Gone, Unfit, Broken) as reason:
            self._tell(task.message("left", f"node {agent.link.node}: {reason}"))
            raise
        if last.kind == "stopped" and leaving():
            last = task.message("left", f"node {agent.link.node} is being taken away")
        self._tell(last)

    def _refuse(self, agent: Delegate, reason: str) -> None:
        with self._changed:
            self._refused[agent.link] = reason
            self._met.discard(agent.link)
        self._notice(f"node {agent.link.node} is not used: {reason}")
        self._give_up_without_nodes()

    def _give_up_without_nodes(self) -> None:
        """End the grid where every place is of a node that cannot be used."""
        with self._changed:
            if self._met or not self._refused or len(self._refused) < self._places:
                return
            *_, reason = self._refused.values()
        self._report(RequestError(f"--engine {self.name}: no node can be used: {reason}"))

    def _lost(self, agent: Delegate, reason: str) -> None:
        if agent.link in self._met or self._closing.is_set():
            return
        with self._changed:
            self._failures += 1
            given_up = self._failures >= MAX_FAILURES and not self._met
        self._notice(f"an agent could not start: {reason}")
        if given_up:
            self._report(RequestError(f"--engine {self.name}: no agent can start: {reason}"))

    def _watch(self) -> None:
        """Follow the cluster: it may grow and shrink."""
        alone = 0.0
        while not self._closing.wait(WATCH):
            try:
                places, leaving = self.cluster.places(), self.cluster.leaving()
            except Exception as error:  # whatever a cluster's own library raises
                self._report(RequestError(f"--engine {self.name}: the cluster is lost: {error}"))
                return
            with self._changed:
                grown = places > self._places
                self._places, self._leaving = places, leaving
                alone = 0.0 if self._met or not self._agents else alone + WATCH
                self._changed.notify_all()
            self._give_up_without_nodes()
            if grown:
                self._alert()
            if alone >= ALONE:
                self._notice("no node has room for an agent yet; waiting (^C ends)")

    # -- messages ------------------------------------------------------------------------------

    def _tell(self, message: Message) -> None:
        self._inbox.put(message)
        self._alert()

    def _report(self, error: Exception) -> None:
        """End the grid with an error: no further agent is placed."""
        self._closing.set()
        self._inbox.put(error)
        self._alert()

    def _alert(self) -> None:
        """Wake up whoever waits for messages."""
        with contextlib.suppress(BlockingIOError):  # it is awake where the pipe is full
            os.write(self._waker, b"\0")

    def _notice(self, text: str) -> None:
        """Say a line, once."""
        with self._changed:
            if text in self._told:
                return
            self._told.add(text)
        self._tell(Message("notice", "", 0, text))
