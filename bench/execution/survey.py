"""What a grid holds and how far it has come, read from records alone; no torch in here."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import filelock

from bench import tuning
from bench.grid import Row, Run, Search, trial_run
from bench.records import Record, Store

State = Literal["done", "running", "failed", "diverged", "to do", "not chosen yet"]


@dataclass(frozen=True)
class Line:
    """Runs of one row in one state; `seconds` is what they cost, or are expected to, if known."""

    row: Row
    run: Run | None
    kind: Literal["trial", "final"]
    state: State
    seconds: float | None


def survey(rows: Iterable[Row], store: Store) -> list[Line]:
    """One line for every run of the rows, searches replayed over the records that exist.

    Trials whose value the search cannot know yet, and final runs that wait for its choice, have
    no `run`.
    """
    expected = Expectation(store)
    lines: list[Line] = []
    for row in rows:
        if row.runs[0].content is None:  # the data are not here: no run has an id
            trials = row.search.trials * len(row.search.seeds) if row.search else 0
            lines += [Line(row, None, "trial", "not chosen yet", None)] * trials
            lines += [Line(row, run, "final", "to do", None) for run in row.runs]
        elif row.search is None:
            lines += [_line(row, run, "final", store, expected) for run in row.runs]
        else:
            lines += _search_lines(row, row.search, store, expected)
    return lines


def _search_lines(
    row: Row, search: Search, store: Store, expected: "Expectation"
) -> Iterator[Line]:
    asked: list[Run] = []

    def look(run: Run) -> Record | None:
        asked.append(run)
        return store.record(run)

    progress = tuning.replay(row, look)
    lines = [_line(row, run, "trial", store, expected) for run in asked]
    yield from lines
    unknown = progress.waiting - sum(line.state not in ("done", "diverged") for line in lines)
    cost = expected.of(trial_run(row, search.low, search.seeds[0]))
    yield from [Line(row, None, "trial", "not chosen yet", cost)] * unknown
    if progress.choice is None:
        cost = expected.of(row.runs[0])
        yield from [Line(row, None, "final", "not chosen yet", cost)] * len(row.runs)
    else:
        for run in tuning.final_runs(row, progress.choice):
            yield _line(row, run, "final", store, expected)


def _line(
    row: Row,
    run: Run,
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


def _held(store: Store, run: Run) -> bool:
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
    """What a run should cost, from finished runs of the same grid on this machine's records."""

    def __init__(self, store: Store) -> None:
        self.known: list[tuple[Run, float]] = [
            (Run.read(record["run"]), record["cost"]["seconds"])
            for record in store.records()
            if record["status"] == "completed"
        ]

    def of(self, run: Run) -> float | None:
        """The mean seconds of the finished runs most like `run`; None before any has finished."""
        for alike in (_same_work, _same_size, _same_split):
            seconds = [cost for known, cost in self.known if alike(known, run)]
            if seconds:
                return sum(seconds) / len(seconds)
        return None


def _same_size(one: Run, other: Run) -> bool:
    return (one.content, one.model, one.training, one.evaluation) == (
        other.content,
        other.model,
        other.training,
        other.evaluation,
    )


def _same_work(one: Run, other: Run) -> bool:
    return _same_size(one, other) and one.decoder.name == other.decoder.name


def _same_split(one: Run, other: Run) -> bool:
    return one.evaluation.split == other.evaluation.split
