"""The runs of a grid and their states, read from records alone, without torch."""

import contextlib
import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

from pydantic import ValidationError

from bench import tuning
from bench.errors import RequestError
from bench.execution.cost_model import CostModel
from bench.grid.expand import Row, trial_run
from bench.grid.schema import Search
from bench.records.store import Store
from bench.records.validity import COMPLETED, DIVERGED, FAILED
from bench.run import HISTORY, SCHEMA, Run

State = Literal["done", "running", "failed", "diverged", "to do", "not chosen yet"]
ALL: tuple[State, ...] = get_args(State)

STATES: dict[str, State] = {COMPLETED: "done", DIVERGED: "diverged", FAILED: "failed"}
"""The state of a run by its record's status."""


@dataclass(frozen=True)
class Line:
    """A run of a row and its state; `seconds` is what it cost, or should cost if that is known.

    `run` is None for a trial whose value the search has not chosen yet, and for a final run that
    waits for the search. Of a running one, `trained` says how many of its epochs or steps are done,
    in `spent` seconds.
    """

    row: Row
    run: Run | None
    kind: Literal["trial", "final"]
    state: State
    seconds: float | None
    trained: int = 0
    spent: float = 0.0

    @property
    def settled(self) -> bool:
        """Whether nothing is left to compute."""
        return self.state in ("done", "diverged")

    @property
    def left(self) -> float | None:
        """The seconds that its computing should still take, if that is known."""
        if self.settled:
            return 0.0
        return None if self.seconds is None else max(0.0, self.seconds - self.spent)


def survey(rows: Iterable[Row], store: Store) -> list[Line]:
    """One line for every run of the rows."""
    known = Known(store)
    lines: list[Line] = []
    for row in rows:
        if row.runs[0].content is None:  # without the data no run has an id
            lines += [Line(row, None, "trial", "not chosen yet", None)] * row.trial_runs
            lines += [Line(row, run, "final", "to do", None) for run in row.finals]
        else:
            lines += [replace(line, row=row) for line in _lines(row, known)]
    running = [line.seconds for line in lines if line.state == "running" and line.seconds]
    if running:  # the only measure of the others while no run is done
        mean = math.fsum(running) / len(running)
        lines = [
            line if line.seconds is not None else replace(line, seconds=mean) for line in lines
        ]
    return lines


def _lines(row: Row, known: "Known") -> Iterator[Line]:
    """The lines of a row; until what it borrows is chosen, none of its runs is known."""
    if row.lender is not None:
        choice = tuning.recall(row.lender, known.store, known.settled)
        if choice is None:
            search, run = row.search, row.runs[0]
            if search is not None:
                cost = known.costs.of(trial_run(row, row.lowest, search.seeds[0]))
                yield from [Line(row, None, "trial", "not chosen yet", cost)] * row.trial_runs
            cost = known.costs.of(run)
            yield from [Line(row, None, "final", "not chosen yet", cost)] * len(row.finals)
            return
        row = tuning.lend(row, choice)
    if row.search is not None and row.runs:
        yield from _search_lines(row, row.search, known)
    else:
        yield from (_line(row, run, "final", known) for run in row.finals)


def _search_lines(row: Row, search: Search, known: "Known") -> Iterator[Line]:
    choice = tuning.recall(row, known.store, known.settled)
    if choice is None:
        asked = tuning.startup_runs(row)
        asked += known.trials_of(tuning.search_id(row), {run.id for run in asked})
        unknown = max(0, row.trial_runs - len(asked))
    else:
        asked = [known.trials[identity] for trial in choice.trials for identity in trial.runs]
        unknown = 0
    yield from (_line(row, run, "trial", known) for run in asked)
    cost = known.costs.of(trial_run(row, row.lowest, search.seeds[0]))
    yield from [Line(row, None, "trial", "not chosen yet", cost)] * unknown
    if choice is None:
        cost = known.costs.of(row.runs[0])
        yield from [Line(row, None, "final", "not chosen yet", cost)] * len(row.finals)
    else:
        for run in tuning.final_runs(row, choice):
            yield _line(row, run, "final", known)


def _line(row: Row, run: Run, kind: Literal["trial", "final"], known: "Known") -> Line:
    state, seconds = known.ends.get(run.id, ("to do", None))
    if state in ("done", "diverged"):
        return Line(row, run, kind, state, seconds)
    expected = known.costs.of(run)
    if not known.store.held(run):
        return Line(row, run, kind, state, expected)
    trained, spent = _history(known.store, run)
    if expected is None and trained:
        expected = spent / trained * run.training.length
    return Line(row, run, kind, "running", expected, trained, spent)


def _history(store: Store, run: Run) -> tuple[int, float]:
    """How far a run has trained, and the seconds; none where its history cannot be read."""
    lines = read_history(store, run)
    try:
        seconds = math.fsum(float(line["seconds"]) for line in lines)
        return (run.training.done(lines[-1]) if lines else 0), seconds
    except (ValueError, TypeError, KeyError):
        return 0, 0.0


def read_history(store: Store, run: Run) -> list[dict[str, float]]:
    """The lines of a run's history.jsonl so far; none where it cannot be read."""
    try:
        text = (store.run_folder(run) / HISTORY).read_text()
        return [json.loads(line) for line in text.splitlines()]
    except (OSError, ValueError):
        return []


class Known:
    """A summary of a grid's records, each of which is read once.

    `ends` has the state and the seconds of each run by id, `trials` the runs that were trials of
    any search.
    """

    def __init__(self, store: Store) -> None:
        self.store, self.costs = store, CostModel()
        self.ends: dict[str, tuple[State, float | None]] = {}
        self.trials: dict[str, Run] = {}
        self._searches: dict[str, list[Run]] = {}
        for record in store.records():
            if record["schema"] != SCHEMA:  # of another version, whose runs have other ids
                continue
            self.ends[record["id"]] = STATES[record["status"]], record["cost"]["seconds"]
            self.costs.add(record)
            selection = record["protocol"]["selection"]
            if selection["rule"] == "trial":
                # A trial whose plugin is missing or was edited belongs to no search of this grid.
                with contextlib.suppress(RequestError, ValidationError):
                    run = self.trials[record["id"]] = Run.read(record["run"])
                    self._searches.setdefault(selection["search"], []).append(run)

    def settled(self, identity: str) -> bool:
        """Whether the run with this id has a record of anything but a failure."""
        return self.ends.get(identity, ("to do", None))[0] in ("done", "diverged")

    def trials_of(self, search: str, other_than: set[str]) -> list[Run]:
        """The finished trials of a search, without those of the ids in `other_than`."""
        return [run for run in self._searches.get(search, []) if run.id not in other_than]
