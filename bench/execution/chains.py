"""The rows of a grid as chains of runs: what follows waits for the records of what came before."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bench import tuning
from bench.execution.listeners import Listener
from bench.files import write_checked
from bench.grid.expand import Row
from bench.records.store import Record, Store
from bench.run import Run

BY_HAND = {"rule": "by hand"}


@dataclass
class PendingRuns:
    """Runs of a row that may go side by side; what follows waits for all their records.

    A row that waits for the search `lender` has none yet; after it, `shared` names it.
    """

    row: Row
    runs: list[Run]
    selection: dict[str, Any]
    steps: tuning.SearchCoroutine | None = None
    shared: dict[str, str] = field(default_factory=dict)
    lender: str = ""


@dataclass
class Chains:
    """Leads each row from its trials to its final runs, and from a search to those who borrow it.

    Attributes:
        records: of all runs so far, by id.
        ask: is given each run that is wanted, with its selection.
        finals: the ids of the final runs that were asked for.
        unchosen: how many final runs wait for a search, so that they have no id yet.
    """

    store: Store
    records: Mapping[str, Record]
    ask: Callable[[Run, dict[str, Any]], None]
    listener: Listener
    finals: set[str] = field(default_factory=set)
    unchosen: int = 0
    failed_searches: int = 0
    _choices: dict[str, tuning.Choice] = field(default_factory=dict)

    def begin(self, row: Row) -> PendingRuns:
        """The first runs of a row."""
        if row.lender is None:
            return self._own(row, {})
        self.unchosen += len(row.finals)
        return PendingRuns(row, [], {}, lender=tuning.search_id(row.lender))

    def advance(self, pending: PendingRuns) -> PendingRuns | None:
        """What follows once all records of `pending` exist; None when its row is finished."""
        if pending.lender:
            choice = self._choices.get(pending.lender)
            if choice is None:
                return pending
            self.unchosen -= len(pending.row.finals)
            pending = self._own(tuning.lend(pending.row, choice), {"shared": pending.lender})
        while all(run.id in self.records for run in pending.runs):
            records = [self.records[run.id] for run in pending.runs]
            row, steps = pending.row, pending.steps
            if steps is None:
                return None
            try:
                asked = steps.send(records)
            except StopIteration as stop:
                pending = self._asked(self._chosen(row, stop.value, pending.shared))
            else:
                pending = self._asked(replace(pending, runs=asked))
        return pending

    def _own(self, row: Row, shared: dict[str, str]) -> PendingRuns:
        """The first runs of a row whose options are set, or searched for by itself."""
        if row.search is None or not row.runs:
            selection = {"rule": "shared", **shared} if shared else BY_HAND
            return self._asked(PendingRuns(row, list(row.finals), selection))
        search = tuning.search_id(row)
        choice = tuning.recall(row, self.store)
        if choice is not None:
            for identity in {identity for trial in choice.trials for identity in trial.runs}:
                self.listener.found(identity)
            self._choices[search] = choice
            return self._asked(self._final(row, choice, shared))
        self.unchosen += len(row.finals)
        steps = tuning.search(row)
        selection = {"rule": "trial", "search": search}
        return self._asked(PendingRuns(row, next(steps), selection, steps, shared))

    def _asked(self, pending: PendingRuns) -> PendingRuns:
        for run in pending.runs:
            self.ask(run, pending.selection)
        if pending.steps is None:
            self.finals.update(run.id for run in pending.runs)
        return pending

    def _chosen(self, row: Row, choice: tuning.Choice, shared: dict[str, str]) -> PendingRuns:
        write_checked(tuning.summary_path(row, self.store), tuning.summary(row, choice))
        self.listener.chosen(row, choice)
        self._choices[tuning.search_id(row)] = choice
        self.unchosen -= len(row.finals)
        return self._final(row, choice, shared)

    def _final(self, row: Row, choice: tuning.Choice, shared: dict[str, str]) -> PendingRuns:
        self.failed_searches += choice.values is None
        selection = {"rule": "tuned", "search": tuning.search_id(row), **shared}
        return PendingRuns(row, list(tuning.final_runs(row, choice)), selection)
