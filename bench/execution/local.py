"""A grid's rows on this machine, one run after the other, beside any other process that helps."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from bench import tuning
from bench.execution.worker import Worker
from bench.grid import Row, Run
from bench.progress import Progress
from rich.console import Console
from bench.records import COMPLETED, DIVERGED, FAILED, Record, Store, done, write_checked

PATIENCE = 0.5
"""Seconds between looks at runs that another process holds."""

BY_HAND = {"rule": "by hand"}


@dataclass
class Outcome:
    """Every final run that was asked for, with its record; `new` counts what this call computed."""

    records: dict[str, Record] = field(default_factory=dict)
    new: int = 0
    searches_without_choice: int = 0

    def count(self, status: str) -> int:
        return sum(record["status"] == status for record in self.records.values())

    @property
    def well(self) -> bool:
        return not self.count(FAILED) and not self.searches_without_choice

    def summary(self) -> str:
        """`18 done, 0 failed, 0 diverged` of the rows' runs."""
        return (
            f"{self.count(COMPLETED)} done, {self.count(FAILED)} failed, "
            f"{self.count(DIVERGED)} diverged"
        )


@dataclass
class Local:
    """Executes rows with one worker; finished records are found, not computed again."""

    store: Store
    worker: Worker
    progress: Progress
    outcome: Outcome = field(default_factory=Outcome)

    def rows(self, rows: Iterable[Row]) -> Outcome:
        """Execute every row; a failed run never stops the others.

        Raises:
            RequestError: the request turned out wrong (data or weights that cannot be read).
        """
        for row in rows:
            runs, selection = row.runs, BY_HAND
            if row.search is not None:
                choice = self._search(row)
                runs = tuning.final_runs(row, choice)
                selection = {"rule": "tuned", "search": tuning.search_id(row)}
                self.outcome.searches_without_choice += choice.value is None
            for run, record in zip(runs, self._runs(list(runs), selection), strict=True):
                self.outcome.records[run.id] = record
        return self.outcome

    def _search(self, row: Row) -> tuning.Choice:
        selection = {"rule": "trial", "search": tuning.search_id(row)}
        steps = tuning.search(row)
        asked = next(steps)
        while True:
            try:
                asked = steps.send(self._runs(asked, selection))
            except StopIteration as stop:
                choice: tuning.Choice = stop.value
                break
        summary = tuning.summary(row, choice)
        write_checked(self.store.folder / "searches" / f"{summary['id']}.json", summary)
        self.progress.chosen(row, choice)
        return choice

    def _runs(self, runs: list[Run], selection: dict[str, Any]) -> list[Record]:
        """The records of `runs`, computed where they are missing, those held elsewhere last."""
        records: dict[str, Record] = {}
        waiting = list(runs)
        while waiting:
            held = [run for run in waiting if not self._settle(run, selection, records)]
            if len(held) == len(waiting):
                self.progress.waiting(held)
                time.sleep(PATIENCE)
            waiting = held
        return [records[run.id] for run in runs]

    def _settle(self, run: Run, selection: dict[str, Any], records: dict[str, Record]) -> bool:
        """Find or compute one record; False while another process holds the run."""
        record = self.store.record(run)
        if not done(record):
            with self.store.claim(run) as folder:
                if folder is None:
                    return False
                # Its owner may have finished between the look and the claim.
                record = self.store.record(run)
                if not done(record):
                    self.progress.started(run)
                    record = self.worker.execute(run, folder, selection, self.progress.epoch)
                    self.outcome.new += 1
                    self.progress.finished(run, record)
        assert record is not None
        records[run.id] = record
        self.progress.settled(run)
        return True


def execute(
    rows: list[Row], store: Store, grid: str, device: str, jobs: int, console: Console
) -> Outcome:
    """Execute `rows` with `jobs` processes and tell `console` about it."""
    total = sum(
        len(row.runs) + (row.search.trials * len(row.search.seeds) if row.search else 0)
        for row in rows
    )
    with Progress(grid, total, console) as progress:
        return Local(store, Worker(device), progress).rows(rows)
