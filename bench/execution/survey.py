"""What a grid holds and how far it has come, read from records alone; no torch in here."""

import contextlib
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import filelock

from bench import tuning
from bench.errors import RequestError
from bench.files import canonical_json
from bench.grid import Experiment, Repeats, Row, Run, Search, trial_run
from bench.records import Store

State = Literal["done", "running", "failed", "diverged", "to do", "not chosen yet"]


@dataclass(frozen=True)
class Line:
    """Runs of one row in one state; `seconds` is what they cost, or are expected to, if known."""

    row: Repeats[Experiment]
    run: Experiment | None
    kind: Literal["trial", "final"]
    state: State
    seconds: float | None


def survey(rows: Iterable[Repeats[Experiment]], store: Store) -> list[Line]:
    """One line for every run of the rows.

    Trials whose value the search cannot know yet, and final runs that wait for its choice, have
    no `run`.
    """
    expected = Expectation(store)
    lines: list[Line] = []
    for row in rows:
        search = row.search if isinstance(row, Row) else None
        if row.runs[0].content is None:  # the data are not here: no run has an id
            trials = search.trials * len(search.seeds) if search else 0
            lines += [Line(row, None, "trial", "not chosen yet", None)] * trials
            lines += [Line(row, run, "final", "to do", None) for run in row.runs]
        elif isinstance(row, Row) and search is not None:
            lines += _search_lines(row, search, store, expected)
        else:
            lines += [_line(row, run, "final", store, expected) for run in row.runs]
    return lines


def _search_lines(
    row: Row, search: Search, store: Store, expected: "Expectation"
) -> Iterator[Line]:
    choice = tuning.recall(row, store)
    if choice is None:
        asked = tuning.startup_runs(row)
        asked += expected.trials_of(tuning.search_id(row), {run.id for run in asked})
        unknown = max(0, search.trials * len(search.seeds) - len(asked))
    else:
        asked = [expected.runs[identity] for trial in choice.trials for identity in trial.runs]
        unknown = 0
    yield from (_line(row, run, "trial", store, expected) for run in asked)
    cost = expected.of(trial_run(row, search.low, search.seeds[0]))
    yield from [Line(row, None, "trial", "not chosen yet", cost)] * unknown
    if choice is None:
        cost = expected.of(row.runs[0])
        yield from [Line(row, None, "final", "not chosen yet", cost)] * len(row.runs)
    else:
        for run in tuning.final_runs(row, choice):
            yield _line(row, run, "final", store, expected)


def _line(
    row: Repeats[Experiment],
    run: Experiment,
    kind: Literal["trial", "final"],
    store: Store,
    expected: "Expectation",
) -> Line:
    record = store.record(run)
    if _held(store, run):
        return Line(row, run, kind, "running", expected.of(run))
    if record is None:
        return Line(row, run, kind, "to do", expected.of(run))
    states: dict[str, State] = {"completed": "done", "diverged": "diverged", "failed": "failed"}
    return Line(row, run, kind, states[record["status"]], record["cost"]["seconds"])


def _held(store: Store, run: Experiment) -> bool:
    path = store.run_folder(run) / ".lock"
    if not path.exists():
        return False
    lock = filelock.FileLock(path, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        return True
    lock.release()
    return False


class Expectation:
    """What a run should cost, from the finished runs of the same grid on this machine."""

    def __init__(self, store: Store) -> None:
        self.runs: dict[str, Run] = {}
        self.trials: dict[str, list[Run]] = {}
        self.seconds: dict[str, list[float]] = {}
        for record in store.records():
            selection = record["protocol"]["selection"]
            if selection["rule"] == "trial":
                # One of a plugin that is gone or was edited belongs to no search of now.
                with contextlib.suppress(RequestError):
                    run = self.runs[record["id"]] = Run.read(record["run"])
                    self.trials.setdefault(selection["search"], []).append(run)
            if record["status"] == "completed":
                for likeness in _likenesses(record["run"]):
                    self.seconds.setdefault(likeness, []).append(record["cost"]["seconds"])

    def trials_of(self, search: str, other_than: set[str]) -> list[Run]:
        """The finished trials of a search beside those that are known anyway."""
        return [run for run in self.trials.get(search, []) if run.id not in other_than]

    def of(self, run: Experiment) -> float | None:
        """The mean seconds of the finished runs most like `run`; None before any has finished."""
        for likeness in _likenesses(run.model_dump(mode="json")):
            if likeness in self.seconds:
                return statistics.fmean(self.seconds[likeness])
        return None


def _likenesses(run: Mapping[str, Any]) -> tuple[str, ...]:
    """What runs of like cost have in common, the closest first; `run` as a record has it."""
    size = [run[key] for key in ("content", "model", "training", "evaluation")]
    likenesses = ([*size, run["decoder"]["name"]], size, run["evaluation"]["split"])
    return tuple(map(canonical_json, likenesses))
