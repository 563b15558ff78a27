"""The runs of a grid's rows: found in the store, or computed by an engine's workers.

Any number of processes may work on one store at a time; its leases share the runs among them.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from rich.console import Console

from bench.devices import DeviceClass, cores
from bench.errors import RequestError
from bench.execution.chains import Chains
from bench.execution.cost_model import CostModel
from bench.execution.deaths import MAX_DEATHS, ending
from bench.execution.listeners import Everyone, Listener
from bench.execution.messages import Engine, Keep, Launch, Message, Resources, Task
from bench.execution.outcome import DISK_FULL, HELD, INTERRUPTED, Outcome
from bench.execution.pilot import PATIENCE, Alone
from bench.execution.processes import Pool
from bench.execution.progress import Progress
from bench.execution.queue import TaskQueue
from bench.execution.signals import Interruption
from bench.files import disk_full, write_checked
from bench.grid.expand import Row
from bench.records.store import Record, Store, brief, new_record
from bench.records.validity import FAILED
from bench.run import Run

MOST_JOBS = 8
"""The most jobs that are chosen by default: each worker on a CPU takes about 1 GB."""


def default_jobs(devices: Sequence[str], runs: int, threads: int = 1, per_gpu: int = 1) -> int:
    """One job a CUDA device, or `per_gpu`; on a CPU as many as the cores have room for.

    0, which leaves it to the engine, where the devices are those of other machines.
    """
    if isinstance(devices[0], DeviceClass):
        return 0
    if devices[0].startswith("cuda"):
        return len(devices) * per_gpu
    return max(1, min(cores() // threads, runs, MOST_JOBS))


def execute(
    rows: list[Row],
    store: Store,
    grid: str,
    devices: Sequence[str],
    jobs: int | None,
    console: Console,
    listeners: Sequence[Listener] = (),
    *,
    threads: int = 1,
    per_gpu: int = 1,
    launch: Launch = Pool,
    keep: Keep = "weights",
    manner: Alone | None = None,
) -> Outcome:
    """Have a record for every run of `rows`: found in the store, or computed now.

    SIGINT, SIGTERM, SIGHUP and a full disk stop it early; what has finished stays. A second signal
    does not wait for the workers' checkpoints.

    Arguments:
        jobs: workers side by side; None for `default_jobs`.
        console: where progress is shown.
        listeners: are called as well, and closed at the end.
        threads: of each worker.
        per_gpu: workers that share a CUDA device.
        launch: the engine.
        keep: what stays of each run that is computed now.
        manner: how it shares the grid with other invocations.

    Raises:
        RequestError: the request turned out wrong (data or weights that cannot be read).
    """
    total = count_runs(rows)
    jobs = jobs or default_jobs(devices, total, threads, per_gpu)
    resources = Resources(devices, jobs, threads, per_gpu)
    everyone = Everyone([Progress(grid, total, console), *listeners])
    start = partial(launch, store, resources)
    manner = manner or Alone()
    interruption = Interruption(manner.signals)
    return Schedule(store, start, everyone, keep, manner, interruption=interruption).rows(rows)


def count_runs(rows: Iterable[Row]) -> int:
    """The final runs of the rows and the trials of their searches."""
    return sum(len(row.finals) + row.trial_runs for row in rows)


@dataclass
class Schedule:
    """Has the records of rows by an engine, which is launched once there is a run to compute."""

    store: Store
    launch: Callable[[], Engine]
    listener: Listener
    keep: Keep = "weights"
    manner: Alone = field(default_factory=Alone)
    outcome: Outcome = field(default_factory=Outcome)
    records: dict[str, Record] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    queue: TaskQueue = field(default_factory=lambda: TaskQueue(CostModel()))
    current: dict[str, Task] = field(default_factory=dict)
    held: list[Task] = field(default_factory=list)
    deaths: Counter[str] = field(default_factory=Counter)
    departures: Counter[str] = field(default_factory=Counter)
    interruption: Interruption = field(default_factory=Interruption)
    engine: Engine | None = None

    def __post_init__(self) -> None:
        self.chains = Chains(self.store, self.records, self._ask, self.listener)

    def rows(self, rows: Sequence[Row]) -> Outcome:
        """Have every row's records; a failed run never stops the others."""
        with self.interruption:
            try:
                self._until_done(rows)
            except KeyboardInterrupt:  # the second signal
                self.outcome.stopped = INTERRUPTED
                if self.engine is not None:
                    self.engine.kill()
            except OSError as error:
                if not disk_full(error):
                    raise
                self.outcome.stopped = DISK_FULL
            finally:
                self._end()
        finals = self.chains.finals
        known = {key: record for key, record in self.records.items() if key in finals}
        self.outcome.records, self.outcome.signal = known, self.interruption.number
        self.outcome.left = len(finals) - len(known) + self.chains.unchosen
        self.outcome.failed_searches = self.chains.failed_searches
        return self.outcome

    def _until_done(self, rows: Sequence[Row]) -> None:
        # A search is the longest chain of runs that wait for each other, so it starts first.
        in_order = sorted(rows, key=lambda row: row.search is None)
        pending = [self.chains.begin(row) for row in in_order]
        self.queue.rotate(self.manner.share)
        while not (self.interruption.asked or self.outcome.stopped):
            pending = [after for runs in pending if (after := self.chains.advance(runs))]
            if not pending:
                return
            self._work()
        self.outcome.stopped = self.outcome.stopped or INTERRUPTED
        if self.engine is not None and self.engine.busy:
            self.listener.say(f"{self.outcome.stopped}: stopping at the next step of each run")
            self.engine.stop()
            while self.engine.busy:
                self._listen(self.engine, None)

    def _end(self) -> None:
        if self.engine is not None:
            try:
                self.engine.close()
            except KeyboardInterrupt:
                self.engine.kill()
        self.listener.close()

    def _ask(self, run: Run, selection: dict[str, Any]) -> None:
        """Find a run's record, or queue the run."""
        if not self._known(run) and run.id not in self.asked:
            self.asked.add(run.id)
            self.queue.push(Task(run, selection, keep=self.keep))

    # -- tasks and messages --------------------------------------------------------------------

    def _work(self) -> None:
        """Give tasks and handle messages, until a record has come or a wait is over."""
        if not (self.queue or self.held or self.current):
            return
        if self.engine is None:
            self.engine = self.launch()
        while self.queue and self.engine.free:
            task = self.queue.pop()
            # Another process may have computed it long ago, while this one had a run of hours.
            if self._known(task.run):
                continue
            self.current[task.run.id] = task
            self.listener.started(task.run)
            self.engine.give(task)
        if not (self.current or self.held):
            return
        self._listen(self.engine, PATIENCE if self.held else None)
        if self.held and not self.queue:
            if not self.engine.busy and not self.manner.wait(self.interruption, self.outcome.new):
                self.outcome.stopped = HELD
                return
            for task in self.held:
                self.queue.push(task.next_attempt())
            self.held.clear()

    def _listen(self, engine: Engine, timeout: float | None) -> None:
        for message in engine.messages(timeout, self.interruption):
            self._handle(message)

    def _handle(self, message: Message) -> None:
        if message.kind == "notice":
            self.listener.say(message.content)
            return
        task = self.current.get(message.run)
        if task is None or task.attempt != message.attempt:
            return  # a worker that was given up for lost
        run, content = task.run, message.content
        if message.kind == "epoch":
            self.deaths.pop(run.id, None)
            self.listener.epoch(run, content)
            return
        if message.kind == "measuring":
            self.listener.measuring(run, content)
            return
        del self.current[run.id]
        match message.kind:
            case "record":
                self.outcome.computed.add(run.id)
                self._finished(run, content)
            case "found":
                self.listener.found(run.id)
                self._settle(run, content)
            case "held":
                self.listener.held(run)
                self.held.append(task)
            case "wrong":
                raise RequestError(content)
            case "full":
                self.listener.dropped(run)
                self.outcome.stopped = DISK_FULL
            case "stopped":
                self._died(task, "its worker was told to stop")
            case "left":
                self._left(task, content)
            case "died":
                self._died(task, *ending(content, run))

    def _left(self, task: Task, reason: str | None) -> None:
        """Queue a run again whose worker lost its place; the run has no part in that."""
        self.listener.dropped(task.run)
        if not self.outcome.stopped:
            self.departures[task.run.id] += 1
            count = self.departures[task.run.id]
            self.listener.say(
                f"run {task.run.id}: its worker was taken away"
                + (f", {reason}" if reason else "")
                + f" ({count} times so far); continuing from its checkpoint"
            )
            self.queue.push(task.next_attempt())

    def _died(self, task: Task, reason: str, deaths: int = MAX_DEATHS) -> None:
        """Queue a run again whose worker ended, or record it as failed after so many `deaths`."""
        run = task.run
        self.listener.dropped(run)
        if self.outcome.stopped:
            return
        self.deaths[run.id] += 1
        if self.deaths[run.id] < deaths:
            self.listener.say(f"run {run.id}: {reason}; continuing from its checkpoint")
            self.queue.push(task.next_attempt())
            return
        record = new_record(run, task.selection)
        record["status"] = FAILED
        record["failure"] = {"type": "WorkerDied", "message": reason}
        record["cost"] = {"seconds": 0.0}
        with self.store.claim(run) as claim:
            if claim is None:  # another invocation computes it now and may succeed
                self.held.append(task)
                return
            write_checked(claim.folder / "record.json", record)
        self._finished(run, record)

    def _known(self, run: Run) -> bool:
        """Whether a record in the store leaves nothing to compute of the run."""
        record = self.store.record(run)
        if record is None or not self.manner.settles(record):
            return False
        self.listener.found(run.id)
        self._settle(run, record)
        return True

    def _settle(self, run: Run, record: Record) -> None:
        self.records[run.id] = brief(record)
        self.queue.costs.add(record)

    def _finished(self, run: Run, record: Record) -> None:
        self.listener.finished(run, record)
        self._settle(run, record)
