"""Following pilots: they are replaced where they vanish, and given up where they never work."""

import io
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from bench.errors import RequestError
from bench.evaluation.context import Evaluated
from bench.execution import follow as following
from bench.execution.follow import FRUITLESS, follow, submit
from bench.execution.launcher import Fleet, Launcher, Tally, tallies
from bench.execution.outcome import Outcome
from bench.execution.pilot import Pilot
from bench.execution.processes import Pool
from bench.execution.schedule import execute
from bench.grid.expand import Row
from bench.records.store import Store
from bench.records.validity import FAILED
from tests.bench.execution.test_engine import InProcess, metrics

Expand = Callable[..., list[Row]]


class Here(Launcher):
    """Runs a pilot in this process as soon as it is submitted; `fates` says how batches end."""

    name = "here"
    rows: Sequence[Row] = ()
    fates: Sequence[str] = ()
    store: Store
    submitted: list[int]

    def submit(self, script: str, count: int, title: str, threads: int) -> str:
        number = len(self.submitted)
        self.submitted.append(count)
        fate = self.fates[number] if number < len(self.fates) else "works"
        if fate == "works":
            failures = (r for r in self.store.records() if r["status"] == FAILED)
            pilot = Pilot(self.store.folder, 0.0, frozenset(r["checksum"] for r in failures))
            for _ in range(count):
                execute(
                    list(self.rows), self.store, "small", ["cpu"], 1,
                    Console(file=io.StringIO()), launch=InProcess, manner=pilot,
                )  # fmt: skip
        return f"{number}-{fate}"

    def tally(self, batches: Sequence[str]) -> Tally:
        refused = [batch for batch in batches if batch.endswith("refused")]
        return Tally(0, 0, tuple(refused))

    def cancel(self, batches: Sequence[str], *, queued_only: bool = False) -> None: ...

    def last_words(self, batches: Sequence[str]) -> str:
        return "a.log: the last line"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOOK", "ASK", "MINUTE"):
        monkeypatch.setattr(following, name, 0.0)


def launched(rows: list[Row], folder: Path, *fates: str) -> tuple[type[Here], Store]:
    store = Store.open(folder, "small")
    members = {"rows": rows, "fates": fates, "store": store, "submitted": []}
    return type("Here", (Here,), members), store


def go(rows: list[Row], kind: type[Here], store: Store) -> tuple[Outcome, str]:
    text = io.StringIO()
    fleet = Fleet.found(kind, store, ())
    return follow(rows, fleet, 2, Console(file=text, width=300)), text.getvalue()


def test_pilots_compute_what_one_machine_does(expand: Expand, tmp_path: Path) -> None:
    tune = {"low": 0.001, "high": 10, "trials": 3}
    rows = expand(decoders=["optimal", {"name": "beta", "beta": {"tune": tune}}])
    store = Store.open(tmp_path / "local", "small")
    local = execute(rows, store, "small", ["cpu"], 1, Console(file=io.StringIO()), launch=Pool)
    kind, store = launched(rows, tmp_path / "pilots")
    outcome, told = go(rows, kind, store)
    assert outcome.well
    assert outcome.new == 5
    assert "chose" in told
    assert metrics(outcome) == metrics(local)
    assert kind.submitted == [2]
    again, _ = go(rows, kind, store)
    assert (again.well, again.new, kind.submitted) == (True, 0, [2])


def test_pilots_that_vanish_are_submitted_again(expand: Expand, tmp_path: Path) -> None:
    rows = expand()
    kind, store = launched(rows, tmp_path, *["lost"] * (FRUITLESS - 1))
    outcome, told = go(rows, kind, store)
    assert outcome.well
    assert told.count("in place of pilots that are gone: 2 pilots submitted") == FRUITLESS - 1
    assert kind.submitted == [2] * FRUITLESS


@pytest.mark.parametrize(("fate", "tries"), [("lost", FRUITLESS), ("refused", 1)])
def test_pilots_that_never_work_are_given_up(
    fate: str, tries: int, expand: Expand, tmp_path: Path
) -> None:
    rows = expand()
    kind, store = launched(rows, tmp_path, *[fate] * 10)
    with pytest.raises(RequestError, match=r"ended without an epoch; a\.log: the last line"):
        go(rows, kind, store)
    assert len(kind.submitted) == tries


def test_at_most_so_many_are_submitted_again_in_a_minute(
    expand: Expand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "MINUTE", 3.0)
    times = []
    rows = expand()
    kind, store = launched(rows, tmp_path, "lost", "lost")
    before = kind.submit

    def note(self: Here, script: str, count: int, title: str, threads: int) -> str:
        times.append(time.monotonic())
        return before(self, script, count, title, threads)

    monkeypatch.setattr(kind, "submit", note)
    assert go(rows, kind, store)[0].well
    first, second, third = times
    assert second - first < 2.5 < third - second


def test_a_failure_ends_the_run_for_all_pilots_and_the_next_command_tries_it_again(
    expand: Expand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = []

    def measure(*arguments: object) -> Evaluated:
        tried.append(arguments)
        raise FloatingPointError("no number")

    rows = expand(decoders=["optimal"], seeds=[0, 1])
    kind, store = launched(rows, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("bench.execution.worker.evaluate", measure)
        for invocation in (1, 2):
            outcome, _ = go(rows, kind, store)
            assert outcome.count(FAILED) == 2
            assert len(tried) == 2 * invocation
            assert kind.submitted == [2] * invocation
    outcome, _ = go(rows, kind, store)
    assert outcome.well


def test_detached_pilots_are_counted(expand: Expand, tmp_path: Path) -> None:
    rows = expand(seeds=[0, 1])
    kind, store = launched(rows, tmp_path, "lost")
    assert tallies(store, [kind]) == {}
    told = submit(rows, Fleet.found(kind, store, ()), 3)
    assert told.startswith("3 pilots submitted as here job 0-lost")
    assert tallies(store, [kind]) == {"here": Tally()}
    assert submit(rows, Fleet.found(kind, store, ()), 3).startswith("3 pilots submitted")
    assert submit(rows, Fleet.found(kind, store, ()), 3).startswith("no pilot is needed: 0 runs")


def test_only_pilots_of_the_same_command_are_one_s_own(expand: Expand, tmp_path: Path) -> None:
    rows = expand()
    kind, store = launched(rows, tmp_path, "lost", "lost")
    words = {decoder: ["run", "small", "--only", f"decoder={decoder}"] for decoder in "ab"}
    for own in words.values():
        assert not Fleet.found(kind, store, (), own).batches
        Fleet.found(kind, store, (), own).submit(1)
    assert list(Fleet.found(kind, store, (), words["a"]).batches) == ["0-lost"]
    assert list(Fleet.found(kind, store, (), words["b"]).batches) == ["1-lost"]
    assert len(Fleet.found(kind, store, ()).batches) == 2
