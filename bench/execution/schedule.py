"""A grid's rows on this machine, beside any other process that works on the same folder."""

import signal
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from bench import tuning
from bench.devices import cores
from bench.errors import RequestError
from bench.execution.cost_model import Costs
from bench.execution.messages import Task
from bench.execution.processes import Pool
from bench.execution.progress import Progress
from bench.execution.queue import Waiting
from bench.execution.signals import Interruption
from bench.execution.tensorboard import Board
from bench.files import disk_full, write_checked
from bench.grid.expand import Row
from bench.records.store import COMPLETED, DIVERGED, FAILED, Record, Store, brief, done, new_record
from bench.run import Run

PATIENCE = 0.5
"""Seconds between looks at runs that another process holds."""

ATTEMPTS = 3
"""Workers that may die over a run, with no epoch between them, before it counts as failed."""

MOST_JOBS = 8
"""What `--jobs` is at most by default: each worker on a CPU holds about 1 GB."""

BY_HAND = {"rule": "by hand"}


def default_jobs(devices: Sequence[str], runs: int) -> int:
    """One job a CUDA device; on a CPU one single-threaded job a core, as small networks like it."""
    if devices[0].startswith("cuda"):
        return len(devices)
    return max(1, min(cores(), runs, MOST_JOBS))


@dataclass
class Outcome:
    """Final runs that were asked for, with their records; `new` counts what this call computed.

    `left` final runs have no record, for the reason in `stopped`, which is empty where all have.
    """

    records: dict[str, Record] = field(default_factory=dict)
    new: int = 0
    fruitless: int = 0
    left: int = 0
    stopped: str = ""

    def count(self, status: str) -> int:
        return sum(record["status"] == status for record in self.records.values())

    @property
    def well(self) -> bool:
        """Nothing is left, no run failed, and no search ended without a value that works."""
        return not (self.left or self.count(FAILED) or self.fruitless)

    def summary(self) -> str:
        fruitless = f", {self.fruitless} searches found no value that works"
        return (
            f"{self.count(COMPLETED)} runs done, {self.count(FAILED)} failed, "
            f"{self.count(DIVERGED)} diverged, {self.left} left, {self.new} computed now"
            + (fruitless if self.fruitless else "")
        )


INTERRUPTED, DISK_FULL = "interrupted", "the disk is full"
"""Why an `Outcome` was `stopped`."""


def execute(
    rows: list[Row],
    store: Store,
    grid: str,
    devices: Sequence[str],
    jobs: int | None,
    console: Console,
    board: Board | None = None,
) -> Outcome:
    """Have a record for every run of `rows`: found, or computed by `jobs` workers on `devices`.

    SIGINT, SIGTERM, SIGHUP and a full disk stop it early with everything finished intact; a second
    signal stops it without waiting for the workers' checkpoints. `board` is told of what is
    computed.

    Raises:
        RequestError: the request turned out wrong (data or weights that cannot be read).
    """
    total = sum(
        len(row.runs) + (row.search.trials * len(row.search.seeds) if row.search else 0)
        for row in rows
    )
    with Progress(grid, total, console) as progress:
        local = Schedule(store, devices, jobs or default_jobs(devices, total), progress, board)
        return local.rows(rows)


@dataclass
class PendingRuns:
    """Runs that may go side by side, and what waits for the records of all of them."""

    row: Row
    runs: list[Run]
    selection: dict[str, Any]
    steps: tuning.SearchCoroutine | None = None


@dataclass
class Schedule:
    """Executes rows with a pool of workers, which start as there is something to compute."""

    store: Store
    devices: Sequence[str]
    jobs: int
    progress: Progress
    board: Board | None = None
    outcome: Outcome = field(default_factory=Outcome)
    records: dict[str, Record] = field(default_factory=dict)
    finals: set[str] = field(default_factory=set)
    unchosen: int = 0
    queued: set[str] = field(default_factory=set)
    waiting: Waiting = field(default_factory=lambda: Waiting(Costs()))
    held: list[Task] = field(default_factory=list)
    deaths: Counter[str] = field(default_factory=Counter)
    interruption: Interruption = field(default_factory=Interruption)
    pool: Pool | None = None

    def rows(self, rows: Sequence[Row]) -> Outcome:
        """Have every row's records; a failed run never stops the others."""
        with self.interruption:
            try:
                self._until_done(rows)
            except KeyboardInterrupt:  # the second signal
                self.outcome.stopped = INTERRUPTED
                if self.pool is not None:
                    self.pool.kill()
            except OSError as error:
                if not disk_full(error):
                    raise
                self.outcome.stopped = DISK_FULL
            finally:
                self._end()
        known = {key: record for key, record in self.records.items() if key in self.finals}
        self.outcome.records = known
        self.outcome.left = len(self.finals) - len(known) + self.unchosen
        return self.outcome

    def _until_done(self, rows: Sequence[Row]) -> None:
        # A search is the longest chain of runs that wait for each other: begin with it.
        batches = [self._begin(row) for row in sorted(rows, key=lambda row: row.search is None)]
        while not (self.interruption.asked or self.outcome.stopped):
            batches = [after for batch in batches if (after := self._advance(batch))]
            if not batches:
                return
            self._work()
        self.outcome.stopped = self.outcome.stopped or INTERRUPTED
        if self.pool is not None and self.pool.busy:
            self.progress.say(f"{self.outcome.stopped}: stopping at the next step of each run")
            self.pool.stop()
            while self.pool.busy:
                self._listen(None)

    def _end(self) -> None:
        if self.pool is not None:
            try:
                self.pool.close()
            except KeyboardInterrupt:
                self.pool.kill()
        if self.board is not None:
            self.board.close()

    def _begin(self, row: Row) -> PendingRuns:
        if row.search is None:
            return self._ask(PendingRuns(row, list(row.runs), BY_HAND))
        choice = tuning.recall(row, self.store)
        if choice is not None:
            for identity in {identity for trial in choice.trials for identity in trial.runs}:
                self.progress.found(identity)
            return self._ask(self._final(row, choice))
        self.unchosen += len(row.runs)
        steps = tuning.search(row)
        selection = {"rule": "trial", "search": tuning.search_id(row)}
        return self._ask(PendingRuns(row, next(steps), selection, steps))

    def _ask(self, batch: PendingRuns) -> PendingRuns:
        """Find the batch's records, and queue the runs that have none."""
        for run in batch.runs:
            known = self.store.record(run)
            if done(known):
                self._settle(run, known)
            elif run.id not in self.queued:
                self.queued.add(run.id)
                self.waiting.push(Task(run, batch.selection))
        if batch.steps is None:
            self.finals.update(run.id for run in batch.runs)
        return batch

    def _settle(self, run: Run, record: Record) -> None:
        self.records[run.id] = brief(record)
        self.waiting.costs.add(record)
        self.progress.found(run.id)

    def _advance(self, batch: PendingRuns) -> PendingRuns | None:
        """What follows once all records of `batch` are there; None when its row is finished."""
        while all(run.id in self.records for run in batch.runs):
            records = [self.records[run.id] for run in batch.runs]
            if batch.steps is None:
                return None
            try:
                asked = batch.steps.send(records)
            except StopIteration as stop:
                batch = self._ask(self._chosen(batch.row, stop.value))
            else:
                batch = self._ask(PendingRuns(batch.row, asked, batch.selection, batch.steps))
        return batch

    def _chosen(self, row: Row, choice: tuning.Choice) -> PendingRuns:
        write_checked(tuning.summary_path(row, self.store), tuning.summary(row, choice))
        self.progress.chosen(row, choice)
        self.unchosen -= len(row.runs)
        return self._final(row, choice)

    def _final(self, row: Row, choice: tuning.Choice) -> PendingRuns:
        self.outcome.fruitless += choice.value is None
        selection = {"rule": "tuned", "search": tuning.search_id(row)}
        return PendingRuns(row, list(tuning.final_runs(row, choice)), selection)

    def _work(self) -> None:
        """Hand out tasks and hear from workers, until a record has come or a wait is over."""
        if not self.waiting and not self.held and not (self.pool and self.pool.busy):
            return
        if self.pool is None:
            self.pool = Pool(self.store, self.devices, self.jobs)
        while self.waiting and self.pool.free:
            task = self.waiting.pop()
            self.progress.started(task.run)
            self.pool.give(task)
        self._listen(PATIENCE if self.held else None)
        if self.held and not self.waiting:
            if not self.pool.busy:
                time.sleep(PATIENCE)
            for task in self.held:
                self.waiting.push(task)
            self.held.clear()

    def _listen(self, timeout: float | None) -> None:
        assert self.pool is not None
        for message in self.pool.messages(timeout, self.interruption):
            self._hear(message.kind, message.task, message.content)

    def _hear(self, kind: str, task: Task, content: Any) -> None:
        run = task.run
        match kind:
            case "epoch":
                self.deaths.pop(run.id, None)
                self.progress.epoch(run, content)
                if self.board is not None:
                    self.board.epoch(run, content)
            case "record":
                self.outcome.new += 1
                self.progress.finished(run, content)
                if self.board is not None:
                    self.board.finished(run, content)
                self._settle(run, content)
            case "found":
                self.progress.dropped(run)
                self._settle(run, content)
            case "held":
                self.progress.held(run)
                self.held.append(task)
            case "wrong":
                raise RequestError(content)
            case "full":
                self.progress.dropped(run)
                self.outcome.stopped = DISK_FULL
            case "stopped" if self.outcome.stopped:
                self.progress.dropped(run)
            case "stopped":
                self._died(task, "its worker was told to stop")
            case "died":
                reason = f"exit code {content}"
                if content < 0:
                    reason = f"its worker was ended by signal {-content}"
                if content == -signal.SIGKILL:
                    reason += ", as the system does when memory runs out; try fewer --jobs"
                self._died(task, reason)

    def _died(self, task: Task, reason: str) -> None:
        run = task.run
        self.progress.dropped(run)
        if self.outcome.stopped:
            return
        self.deaths[run.id] += 1
        if self.deaths[run.id] < ATTEMPTS:
            self.progress.say(f"run {run.id}: {reason}; going on from its checkpoint")
            self.waiting.push(task)
            return
        record = new_record(run, task.selection)
        record["status"] = FAILED
        record["failure"] = {"type": "WorkerDied", "message": reason}
        record["cost"] = {"seconds": 0.0}
        with self.store.claim(run) as claim:
            if claim is None:  # another invocation is at it, perhaps with more luck
                self.held.append(task)
                return
            write_checked(claim.folder / "record.json", record)
        self.progress.finished(run, record)
        self._settle(run, record)
