"""What `status` and `--dry-run` tell, and that ten thousand runs would not make them slow."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import tuning
from bench.execution.status import survey
from bench.files import checksum, write_checked
from bench.grid.expand import Row
from bench.records.lease import LEASE
from bench.records.store import Record, Store, new_record
from bench.records.validity import COMPLETED, DIVERGED, FAILED
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
            folder.mkdir(parents=True)
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
    lines = survey([row], store)
    assert [line.state for line in lines][2:] == ["failed", "to do", "to do"]
    # Not what the failure cost: it is computed again.
    assert lines[2].left == 10.0


def test_a_running_run_tells_its_epochs_and_the_time_that_is_left(
    write_grid: Callable[..., Path], expand: Expand, tmp_path: Path, call: Call
) -> None:
    size = {"decoders": ["gaussian"], "seeds": [0, 1, 2], "training": {"epochs": 5, "batch": 70}}
    (row,) = expand(**size)
    store, grid = Store.open(tmp_path / "results", "small"), write_grid(**size)
    words = ("status", grid, "--results", tmp_path / "results")

    def told() -> Any:
        code, out, err = call(*words, "--json")
        assert code == 0, err
        return json.loads(out)

    with store.claim(row.runs[0]):
        assert told()["seconds_left"] is None
        history = "".join(json.dumps({"epoch": k, "seconds": 3.0}) + "\n" for k in range(2))
        (store.run_folder(row.runs[0]) / "history.jsonl").write_text(history)
        found = told()
        # 5 epochs of 3 s, less the two that are done, and two runs more.
        assert found["seconds_left"] == 15 - 6 + 2 * 15
        (running,) = found["running"]
        assert (running["id"], running["epochs_done"], running["epochs"]) == (row.runs[0].id, 2, 5)
        assert found["runs"] == {
            "done": 0, "running": 1, "failed": 0, "diverged": 0, "to do": 2, "not chosen yet": 0,
        }  # fmt: skip
        _, out, _ = call(*words)
        assert "seed 0: 2 of 5 epochs done" in out
        assert "about 39 s left with one job" in out
        write_checked(
            store.run_folder(row.runs[1]) / "record.json", record(row.runs[1], BY_HAND, 20.0)
        )
        assert told()["seconds_left"] == 20 - 6 + 20


def test_a_running_run_whose_length_is_in_steps_tells_them(
    write_grid: Callable[..., Path], expand: Expand, tmp_path: Path, call: Call
) -> None:
    size = {"decoders": ["gaussian"], "training": {"steps": 8, "batch": 70}}
    (row,) = expand(**size)
    store, grid = Store.open(tmp_path / "results", "small"), write_grid(**size)
    words = ("status", grid, "--results", tmp_path / "results")
    with store.claim(row.runs[0]):
        history = [{"epoch": k, "steps": 3 * (k + 1), "seconds": 3.0} for k in range(2)]
        lines = "".join(json.dumps(line) + "\n" for line in history)
        (store.run_folder(row.runs[0]) / "history.jsonl").write_text(lines)
        told = json.loads(call(*words, "--json")[1])
        assert told["running"][0]["steps_done"] == 6
        assert told["running"][0]["steps"] == 8
        # 1 s a step.
        assert told["seconds_left"] == 2
        assert "seed 0: 6 of 8 steps done" in call(*words)[1]


@pytest.mark.parametrize("command", ["run", "status"])
def test_the_name_of_a_folder_of_results_is_no_grid_and_the_message_says_so(
    command: str, tmp_path: Path, call: Call
) -> None:
    Store.open(tmp_path, "own-model")
    code, _, err = call(command, "own-model", "--results", tmp_path)
    assert code == 2
    assert "unknown grid 'own-model'" in err
    assert "`sigma-bench report own-model` shows" in err


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
