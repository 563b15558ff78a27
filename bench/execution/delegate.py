"""The near end of an agent: has it compute one task after the other, whatever calls are lost."""

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.devices import BFLOAT16_CAPABILITY, DeviceClass
from bench.errors import RequestError
from bench.execution import parcel
from bench.execution.agent import key, versions
from bench.execution.cluster import Link, Unreachable
from bench.execution.code import code_digest
from bench.execution.messages import Message, Resources, Task
from bench.execution.supplies import Supply, needed
from bench.plugins import Plugin
from bench.records.lease import Claim
from bench.records.store import Store, done
from bench.run import CHECKPOINT, HISTORY, SCHEMA, Run

PAUSE = 1.0
"""Seconds before an agent that did not answer is called again."""


class Unfit(Exception):
    """An agent that can compute nothing here, for the reason given in words."""


@dataclass
class Common:
    """What all agents of a grid have in common.

    `token` is the name of a file in the store's folder: an agent that finds it writes there.
    `share` prepares what many agents are sent.
    """

    store: Store
    resources: Resources
    token: str
    plugins: Mapping[Plugin, bytes]
    share: Callable[[Any], Any]
    _shared: dict[Supply, tuple[Any, int]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def device(self) -> str:
        return self.resources.devices[0]

    def asked(self) -> tuple[dict[str, Any], list[bytes]]:
        """The arguments of `Agent.hello`."""
        about = {
            "store": str(self.store.folder),
            "token": self.token,
            "device": str(self.device),
            "threads": self.resources.threads,
            "checkpoint_every": self.resources.checkpoint_every,
            "plugins": [list(plugin) for plugin in self.plugins],
        }
        return about, [content for plugin, content in self.plugins.items() if plugin.path]

    def shared(self, supply: Supply) -> tuple[Any, int]:
        """A supply's content to pass in a call, and its number of validation images."""
        with self._lock:
            if supply not in self._shared:
                content, validation = supply.content()
                self._shared[supply] = self.share(content), validation
            return self._shared[supply]


@dataclass
class Delegate:
    """One agent, called by one thread."""

    link: Link
    common: Common
    differences: dict[str, str] = field(default_factory=dict)
    _capabilities: list[int] = field(default_factory=list)
    _shares: bool = False
    _calls: int = 0
    _seen: int = 0
    _supplied: set[Supply] = field(default_factory=set)

    def meet(self) -> None:
        """Wait until the agent has a place, and see whether it can compute here.

        `differences` then has what it has in other versions than this process.

        Raises:
            Unfit: its code is another, or its device.
            Gone: it died.
        """
        about = self._call("hello", *self.common.asked())
        if (about["schema"], about["code"]) != (SCHEMA, code_digest()):
            raise Unfit("its code is not that of this machine; install the same sigma-bench there")
        if self.common.device == DeviceClass.CUDA and not about["capabilities"]:
            raise Unfit("it has no CUDA device that torch can use; --device cpu does without")
        self._capabilities, self._shares = about["capabilities"], about["shares"]
        here = versions()
        self.differences = {
            name: f"{version}, here {here[name]}"
            for name, version in about["versions"].items()
            if version != here[name]
        }

    def check(self, run: Run) -> None:
        """Raise `Unfit` where the agent's device lacks the run's precision."""
        wanted = {run.training.precision, run.evaluation.precision}
        if self.common.device == DeviceClass.CUDA and "bfloat16" in wanted:
            capability = self._capabilities[0]
            if capability < BFLOAT16_CAPABILITY:
                raise Unfit(
                    f"its GPU, of compute capability {capability}, has no bfloat16; "
                    "--set training.precision=float32 lets it in"
                )

    def compute(
        self, task: Task, stopping: Callable[[], bool], tell: Callable[[Message], None]
    ) -> Message:
        """Have the agent compute a task; returns the message that ends the attempt.

        The run is claimed, and its files are written, where the agent does not see the store.
        `stopping` says whether the agent is to stop with a checkpoint.

        Raises:
            Unfit: the agent's own disk is full.
            Gone: it died; what it sent before is in the store.
        Broken: it has a fault.
        """
        store, run = self.common.store, task.run
        try:
            self._supply(task)
            if self._shares:
                return self._follow(task, None, stopping, tell)
            with store.claim(run) as claim:
                if claim is None:
                    return task.message("held")
                record = store.record(run)
                if done(record):
                    return task.message("found", record)
                return self._follow(task, claim, stopping, tell)
        except RequestError as error:
            return task.message("wrong", str(error))
        except OSError as error:
            return task.unwritten(error, store.folder)

    def dismiss(self) -> None:
        """Let the agent put its things away, if it still can."""
        self.link.call("close")

    def _supply(self, task: Task) -> None:
        for supply in needed(task):
            if supply not in self._supplied:
                if self._call("lacks", supply.dump()):
                    content, validation = self.common.shared(supply)
                    if fault := self._call("keep", supply.dump(), content, validation):
                        raise Unfit(fault)
                self._supplied.add(supply)

    def _follow(
        self,
        task: Task,
        claim: Claim | None,
        stopping: Callable[[], bool],
        tell: Callable[[Message], None],
    ) -> Message:
        fields = task.dump()
        text, name = json.dumps(fields, allow_nan=False), key(fields)
        files = b"" if claim is None else parcel.to_begin(self.common.store, task.run)
        holds = ""
        while True:
            if claim is not None and claim.lost():
                return task.message("held")
            attached = None if holds == name else files
            self._calls += 1
            try:
                holds, events = self.link.call(
                    "exchange", self._calls, self._seen, text, attached, stopping()
                )
            except Unreachable:
                time.sleep(PAUSE)
                continue
            for serial, said, sent in events:
                message = Message.read(json.loads(said))
                if serial <= self._seen:
                    continue
                # What is left of an attempt that was given up is of no use to this one.
                if (message.run, message.attempt) != (task.run.id, task.attempt):
                    self._seen = serial
                    continue
                if claim is not None:
                    if claim.lost():
                        return task.message("held")
                    try:
                        parcel.unpack(sent, self.common.store.folder)
                    except parcel.Torn:  # it is sent again, and what follows as well
                        break
                    if message.kind == "record":
                        (claim.folder / CHECKPOINT).unlink(missing_ok=True)
                self._seen = serial
                if message.ends:
                    return self._ended(task, message, claim)
                if message.kind == "epoch" and claim is not None:
                    # `status` reads it; the history that comes with a parcel replaces it.
                    with (claim.folder / HISTORY).open("a") as history:
                        history.write(json.dumps(message.content) + "\n")
                tell(message)

    def _ended(self, task: Task, message: Message, claim: Claim | None) -> Message:
        if message.kind == "full" and claim is not None:
            raise Unfit("a disk of its own is full")
        if message.kind == "wrong":
            return task.message("wrong", f"{message.content} (on node {self.link.node})")
        return message

    def _call(self, method: str, *arguments: Any) -> Any:
        while True:
            try:
                return self.link.call(method, *arguments)
            except Unreachable:
                time.sleep(PAUSE)
