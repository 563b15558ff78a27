"""What `status` and `--dry-run` tell, and that ten thousand runs would not make them slow."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from bench import tuning
from bench.execution.status import survey
from bench.files import checksum, write_checked
from bench.grid.expand import Row
from bench.records.lease import LEASE
from bench.records.store import COMPLETED, DIVERGED, FAILED, Record, Store, new_record
from bench.run import Run

Expand = Callable[..., list[Row]]
Call = Callable[..., tuple[int, str, str]]

BY_HAND = {"rule": "by hand"}


def record(run: Run, selection: dict[str, str], seconds: float = 2.0) -> Record:
    filled = new_record(run, selection)
    filled["metrics"] = {"neg_log_p": float(run.seed)}
    filled["cost"] = {"seconds": seconds}
    return filled


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[Path]:
    """How often each record was read."""
    counts: Counter[Path] = Counter()
    read = Path.read_bytes

    def counted(path: Path) -> bytes:
        counts[path] += path.name == "record.json"
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", counted)
    return counts


def test_a_thousand_finished_runs_are_each_read_once_by_any_command(
    write_grid: Callable[..., Path],
    expand: Expand,
    tmp_path: Path,
    call: Call,
    opened: Counter[Path],
) -> None:
    size = {"decoders": ["gaussian", "optimal"], "seeds": list(range(500))}
    grid, store = write_grid(**size), Store.open(tmp_path / "results", "small")
    for row in expand(**size):
        for run in row.runs:
            filled = record(run, BY_HAND)
            folder = store.run_folder(run)
            folder.mkdir()
            filled["checksum"] = checksum(filled)
            (folder / "record.json").write_text(json.dumps(filled))
    for words, told in (
        (("run",), "1000 runs done, 0 failed, 0 diverged, 0 left, 0 computed now"),
        (("status",), "1000 done, 0 running"),
        (("run", "--dry-run"), "1000 done, 0 running"),
    ):
        opened.clear()
        code, out, err = call(*words, grid, "--results", tmp_path / "results")
        assert code == 0, err
        assert told in out + err
        assert (+opened).total() == len(+opened) == 1000


def test_each_run_is_in_the_state_of_its_record(expand: Expand, tmp_path: Path) -> None:
    (row,) = expand(decoders=["gaussian"], seeds=[0, 1, 2, 3, 4])
    store = Store.open(tmp_path, "small")
    for run, status in zip(row.runs, (COMPLETED, DIVERGED, FAILED), strict=False):
        filled = record(run, BY_HAND, seconds=10.0 * (run.seed + 1))
        write_checked(store.run_folder(run) / "record.json", {**filled, "status": status})
    with store.claim(row.runs[3]), store.claim(row.runs[2]):
        lines = survey([row], store)
        # Nobody's claim was touched by asking.
        assert all((store.run_folder(run) / LEASE).exists() for run in row.runs[2:4])
    assert [line.state for line in lines] == ["done", "diverged", "running", "running", "to do"]
    # What is not finished is expected to cost what the completed run did.
    assert [line.seconds for line in lines] == [10.0, 20.0, 10.0, 10.0, 10.0]
    assert [line.state for line in survey([row], store)][2:] == ["failed", "to do", "to do"]


def test_a_search_shows_its_trials_and_what_they_left(
    expand: Expand, tmp_path: Path, opened: Counter[Path]
) -> None:
    tune = {"low": 0.01, "high": 1, "trials": 5, "sampler": "random"}
    rows = expand(decoders=[{"name": "beta", "beta": {"tune": tune}}], seeds=[0, 1])
    store, (row,) = Store.open(tmp_path, "small"), rows
    steps = tuning.search(row)
    asked = next(steps)
    assert [line.state for line in survey(rows, store)] == [
        *["to do"] * len(asked),
        *["not chosen yet"] * (5 - len(asked) + 2),
    ]
    while True:
        records = [record(run, {"rule": "trial", "search": tuning.search_id(row)}) for run in asked]
        for run, filled in zip(asked, records, strict=True):
            write_checked(store.run_folder(run) / "record.json", filled)
        try:
            asked = steps.send(records)
        except StopIteration as stop:
            choice = stop.value
            break
    lines = survey(rows, store)
    assert [line.state for line in lines] == ["done"] * 5 + ["not chosen yet"] * 2
    write_checked(tuning.summary_path(row, store), tuning.summary(row, choice))
    opened.clear()
    lines = survey(rows, store)
    assert (+opened).total() == len(+opened) == 5
    assert [(line.kind, line.state) for line in lines] == [
        *[("trial", "done")] * 5,
        *[("final", "to do")] * 2,
    ]
    assert [line.run for line in lines[5:]] == list(tuning.final_runs(row, choice))
