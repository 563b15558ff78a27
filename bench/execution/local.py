"""A grid's rows on this machine, beside any other process that works on the same folder."""

import signal
import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from bench import tuning
from bench.devices import cores
from bench.errors import RequestError
from bench.execution.pool import Pool, Task
from bench.execution.tensorboard import Board
from bench.grid import Row, Run
from bench.progress import Progress
from bench.records import (
    COMPLETED,
    DIVERGED,
    FAILED,
    Record,
    Store,
    done,
    new_record,
    write_checked,
)

PATIENCE = 0.5
"""Seconds between looks at runs that another process holds."""

ATTEMPTS = 2
"""Times that a run may take its worker down before it counts as failed."""

MOST_JOBS = 8
"""What `--jobs` is at most by default: each worker on a CPU holds about 1 GB."""

BY_HAND = {"rule": "by hand"}


def default_jobs(device: str, runs: int) -> int:
    """One single-threaded job a core on a CPU, where small networks gain least from threads."""
    return 1 if device.startswith("cuda") else max(1, min(cores(), runs, MOST_JOBS))


@dataclass
class Outcome:
    """Every final run that was asked for, with its record; `new` counts what this call computed."""

    records: dict[str, Record] = field(default_factory=dict)
    new: int = 0
    fruitless: int = 0

    def count(self, status: str) -> int:
        return sum(record["status"] == status for record in self.records.values())

    @property
    def well(self) -> bool:
        """No run failed, and no search ended without a value that works."""
        return not self.count(FAILED) and not self.fruitless

    def summary(self) -> str:
        fruitless = f", {self.fruitless} searches found no value that works"
        return (
            f"{self.count(COMPLETED)} runs done, {self.count(FAILED)} failed, "
            f"{self.count(DIVERGED)} diverged" + (fruitless if self.fruitless else "")
        )


def execute(
    rows: list[Row],
    store: Store,
    grid: str,
    device: str,
    jobs: int | None,
    console: Console,
    board: Board | None = None,
) -> Outcome:
    """Have a record for every run of `rows`: found, or computed by `jobs` workers.

    `board` is told of what is computed.

    Raises:
        RequestError: the request turned out wrong (data or weights that cannot be read).
    """
    total = sum(
        len(row.runs) + (row.search.trials * len(row.search.seeds) if row.search else 0)
        for row in rows
    )
    with Progress(grid, total, console) as progress:
        local = Local(store, device, jobs or default_jobs(device, total), progress, board)
        return local.rows(rows)


@dataclass
class Batch:
    """Runs that may go side by side, and what waits for the records of all of them."""

    row: Row
    runs: list[Run]
    selection: dict[str, Any]
    steps: tuning.Steps | None = None


@dataclass
class Local:
    """Executes rows with a pool of workers, which starts only when something is to compute."""

    store: Store
    device: str
    jobs: int
    progress: Progress
    board: Board | None = None
    outcome: Outcome = field(default_factory=Outcome)
    records: dict[str, Record] = field(default_factory=dict)
    queued: set[str] = field(default_factory=set)
    waiting: deque[Task] = field(default_factory=deque)
    held: list[Task] = field(default_factory=list)
    attempts: Counter[str] = field(default_factory=Counter)
    pool: Pool | None = None

    def rows(self, rows: Iterable[Row]) -> Outcome:
        """Have every row's records; a failed run never stops the others."""
        # A search is the longest chain of runs that wait for each other: begin with it.
        batches = [self._begin(row) for row in sorted(rows, key=lambda row: row.search is None)]
        try:
            while batches:
                batches = [after for batch in batches if (after := self._advance(batch))]
                self._work()
        finally:
            if self.pool is not None:
                self.pool.close()
            if self.board is not None:
                self.board.close()
        return self.outcome

    def _begin(self, row: Row) -> Batch:
        if row.search is None:
            return self._ask(Batch(row, list(row.runs), BY_HAND))
        choice = tuning.recall(row, self.store)
        if choice is not None:
            for identity in {identity for trial in choice.trials for identity in trial.runs}:
                self.progress.found(identity)
            return self._ask(self._final(row, choice))
        steps = tuning.search(row)
        selection = {"rule": "trial", "search": tuning.search_id(row)}
        return self._ask(Batch(row, next(steps), selection, steps))

    def _ask(self, batch: Batch) -> Batch:
        """Find the batch's records, and queue the runs that have none, a search's first."""
        tasks = []
        for run in batch.runs:
            known = self.store.record(run)
            if done(known):
                self._settle(run, known)
            elif run.id not in self.queued:
                self.queued.add(run.id)
                tasks.append(Task(run, batch.selection))
        if batch.steps is None:
            self.waiting.extend(tasks)
        else:
            self.waiting.extendleft(reversed(tasks))
        return batch

    def _settle(self, run: Run, record: Record) -> None:
        self.records[run.id] = record
        self.progress.found(run.id)

    def _advance(self, batch: Batch) -> Batch | None:
        """What follows once all records of `batch` are there; None when its row is finished."""
        while all(run.id in self.records for run in batch.runs):
            records = [self.records[run.id] for run in batch.runs]
            if batch.steps is None:
                self.outcome.records |= {record["id"]: record for record in records}
                return None
            try:
                asked = batch.steps.send(records)
            except StopIteration as stop:
                batch = self._ask(self._chosen(batch.row, stop.value))
            else:
                batch = self._ask(Batch(batch.row, asked, batch.selection, batch.steps))
        return batch

    def _chosen(self, row: Row, choice: tuning.Choice) -> Batch:
        write_checked(tuning.summary_path(row, self.store), tuning.summary(row, choice))
        self.progress.chosen(row, choice)
        return self._final(row, choice)

    def _final(self, row: Row, choice: tuning.Choice) -> Batch:
        self.outcome.fruitless += choice.value is None
        selection = {"rule": "tuned", "search": tuning.search_id(row)}
        return Batch(row, list(tuning.final_runs(row, choice)), selection)

    def _work(self) -> None:
        """Hand out tasks and hear from workers, until a record has come or a wait is over."""
        if not self.waiting and not self.held and not (self.pool and self.pool.busy):
            return
        if self.pool is None:
            self.pool = Pool(self.store, self.device, self.jobs)
        while self.waiting and self.pool.offer(self.waiting[0]):
            self.progress.started(self.waiting.popleft().run)
        for message in self.pool.messages(PATIENCE if self.held else None):
            self._hear(message.kind, message.task, message.content)
        if self.held and not self.waiting:
            if not self.pool.busy:
                time.sleep(PATIENCE)
            self.waiting.extend(self.held)
            self.held.clear()

    def _hear(self, kind: str, task: Task, content: Any) -> None:
        run = task.run
        match kind:
            case "epoch":
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
            case "died":
                self._died(task, content)

    def _died(self, task: Task, code: int) -> None:
        run = task.run
        reason = f"its worker was ended by signal {-code}" if code < 0 else f"exit code {code}"
        if code == -signal.SIGKILL:
            reason += ", as the system does when memory runs out; try fewer --jobs"
        self.attempts[run.id] += 1
        self.progress.dropped(run)
        if self.attempts[run.id] < ATTEMPTS:
            self.progress.say(f"run {run.id}: {reason}; going on from its checkpoint")
            self.waiting.append(task)
            return
        record = new_record(run, task.selection)
        record["status"] = FAILED
        record["failure"] = {"type": "WorkerDied", "message": reason}
        record["cost"] = {"seconds": 0.0}
        write_checked(self.store.run_folder(run) / "record.json", record)
        self.progress.finished(run, record)
        self._settle(run, record)
