"""Grids on real workers: found, shared, survived."""

import io
import json
import multiprocessing
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from rich.console import Console

from bench.execution.deaths import MAX_DEATHS
from bench.execution.listeners import Listener
from bench.execution.messages import Task
from bench.execution.outcome import Outcome
from bench.execution.processes import Pool
from bench.execution.schedule import execute
from bench.execution.status import survey
from bench.grid.expand import Row
from bench.records.store import Record, Store
from bench.run import Run
from tests.bench.execution.invocation import Invocation

Expand = Callable[..., list[Row]]
Start = Callable[..., "subprocess.Popen[str]"]
StartWarm = Callable[..., Invocation]
Found = Callable[[Path], dict[str, Record]]


def go(
    rows: list[Row],
    folder: Path,
    jobs: int = 1,
    listeners: Sequence[Listener] = (),
    threads: int = 1,
) -> tuple[Outcome, str]:
    text = io.StringIO()
    store, console = Store.open(folder, "small"), Console(file=text, width=200)
    outcome = execute(rows, store, "small", ["cpu"], jobs, console, listeners, threads=threads)
    return outcome, text.getvalue()


def numbers(record: Record) -> Record:
    """A record without what a clock, or the number of attempts, decides."""
    return {k: v for k, v in record.items() if k not in ("cost", "checksum")}


def test_a_grid_with_a_search_runs_to_its_end_and_is_found_again(
    expand: Expand, tmp_path: Path
) -> None:
    tune = {"low": 0.001, "high": 10, "trials": 3}
    rows = expand(decoders=["optimal", "mse", {"name": "beta", "beta": {"tune": tune}}])
    before = survey(rows, Store(tmp_path / "small"))
    assert {line.state for line in before} == {"to do", "not chosen yet"}
    outcome, told = go(rows, tmp_path, jobs=2)
    assert outcome.new == 6
    now = "3 runs done, 0 failed, 0 diverged, 0 left, 3 computed now and 3 trials"
    assert outcome.summary() == now
    assert outcome.well
    assert "search" in told
    assert "chose" in told
    by_name = {r["run"]["decoder"]["name"]: r for r in outcome.records.values()}
    metrics = by_name["optimal"]["metrics"]
    assert metrics["neg_log_p"] == pytest.approx(metrics["distortion"] + metrics["rate"])
    assert metrics["beta_effective"] == pytest.approx(2 * metrics["sigma"] ** 2)
    assert metrics["iwae_2"] > -metrics["neg_log_p"] - 3 * metrics["iwae_2_se"]
    assert by_name["beta"]["protocol"]["selection"]["rule"] == "tuned"
    assert "neg_log_p" not in by_name["mse"]["metrics"]
    assert "neg_log_p_fitted_sigma" in by_name["mse"]["metrics"]
    folder = Store(tmp_path / "small").folder_of(by_name["optimal"]["id"])
    for artifact in by_name["optimal"]["artifacts"].values():
        assert (folder / artifact).stat().st_size > 0
    assert not (folder / "checkpoint.pt").exists()
    (summary,) = Store(tmp_path / "small").searches()
    assert summary["runs"] == [by_name["beta"]["id"]]

    again, _ = go(rows, tmp_path)
    assert again.new == 0
    assert {key: numbers(record) for key, record in again.records.items()} == {
        key: numbers(record) for key, record in outcome.records.items()
    }
    lines = survey(rows, Store(tmp_path / "small"))
    assert [line.state for line in lines] == ["done"] * 6
    assert all(line.seconds for line in lines)


def test_another_evaluation_trains_nothing_again(expand: Expand, tmp_path: Path) -> None:
    """Weights are found by what decided them; damaged ones are trained anew."""
    first, _ = go(expand(decoders=["shared"]), tmp_path)
    (source,) = first.records.values()
    other = expand(decoders=["shared"], evaluation={"samples": 0, "iwae": 3})
    reused, _ = go(other, tmp_path)
    (record,) = reused.records.values()
    assert record["protocol"]["training"] == {"weights_of": source["id"]}
    assert record["metrics"]["neg_log_p"] == source["metrics"]["neg_log_p"]
    assert "iwae_3" in record["metrics"]
    assert record["cost"]["training_seconds"] == source["cost"]["training_seconds"]
    store = Store(tmp_path / "small")
    names = "history.jsonl", "weights.safetensors"
    for name in names:
        ours, theirs = (store.folder_of(one["id"]) / name for one in (record, source))
        assert ours.read_bytes() == theirs.read_bytes()

    for folder in store.run_folders():
        (folder / names[1]).write_bytes((folder / names[1]).read_bytes()[:-4])
    anew, _ = go(expand(decoders=["shared"], evaluation={"samples": 0, "iwae": 4}), tmp_path)
    (record,) = anew.records.values()
    assert "training" not in record["protocol"]
    assert record["metrics"]["neg_log_p"] == source["metrics"]["neg_log_p"]


def test_a_failed_run_does_not_stop_the_others_and_is_tried_again(
    expand: Expand, tmp_path: Path
) -> None:
    rows = expand(decoders=["gaussian", "optimal"])
    broken = Store(tmp_path / "small").run_folder(rows[0].runs[0])
    (broken / "images" / "samples.png").mkdir(parents=True)  # a folder where a file must go
    outcome, told = go(rows, tmp_path)
    assert not outcome.well
    assert [r["status"] for r in outcome.records.values()] == ["failed", "completed"]
    assert "failed: IsADirectoryError" in told
    assert (broken / "error.txt").read_text().startswith("Traceback")
    (broken / "images" / "samples.png").rmdir()
    again, _ = go(rows, tmp_path)
    assert again.well
    assert again.new == 1


def test_a_diverged_run_is_a_result(expand: Expand, tmp_path: Path) -> None:
    rows = expand(decoders=["per_pixel"], training={"epochs": 3, "batch": 70, "lr": 1e30})
    outcome, told = go(rows, tmp_path)
    (record,) = outcome.records.values()
    assert record["status"] == "diverged"
    assert record["divergence"]["step"] >= 1
    assert "diverged at step" in told
    assert outcome.well
    assert go(rows, tmp_path)[0].new == 0


def test_a_run_has_the_same_numbers_alone_in_a_grid_and_beside_others(
    expand: Expand, tmp_path: Path
) -> None:
    """Threads are what `--threads` says, never what the number of runs, jobs or cores suggests."""
    rows = expand(
        decoders=["optimal", "gaussian"], models=[{"name": "conv_vae", "width": 8, "latent": 3}]
    )
    alone, _ = go(rows[:1], tmp_path / "alone")
    (key,) = alone.records
    in_a_grid, _ = go(rows, tmp_path / "grid")
    side_by_side, _ = go(rows, tmp_path / "jobs", jobs=2)
    for outcome in (in_a_grid, side_by_side):
        assert outcome.records[key]["metrics"] == alone.records[key]["metrics"]
    whole = Store(tmp_path / "jobs" / "small").record_of(key)
    assert whole is not None
    assert whole["environment"]["threads"] == 1
    assert "training" not in whole["protocol"]

    go(rows[:1], tmp_path / "threads", threads=2)
    more = Store(tmp_path / "threads" / "small").record_of(key)
    assert more is not None
    assert more["environment"]["threads"] == 2
    assert more["protocol"]["training"] == {"threads": 2}
    assert more["metrics"]["neg_log_p"] == pytest.approx(whole["metrics"]["neg_log_p"], rel=1e-2)


@pytest.mark.usefixtures("spawned")
def test_a_workers_environment_is_not_its_parents(expand: Expand, tmp_path: Path) -> None:
    before = dict(os.environ)
    assert go(expand(decoders=["optimal"]), tmp_path)[0].well
    assert dict(os.environ) == before


class Log(Listener):
    """Every call, in order."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def started(self, run: Run) -> None:
        self.calls.append("started")

    def epoch(self, run: Run, line: dict[str, float]) -> None:
        self.calls.append(f"epoch {line['epoch']}")

    def finished(self, run: Run, record: Record) -> None:
        self.calls.append(record["status"])

    def found(self, identity: str) -> None:
        self.calls.append("found")

    def close(self) -> None:
        self.calls.append("close")


def test_listeners_are_called_in_order(expand: Expand, tmp_path: Path) -> None:
    logs, rows = [Log(), Log()], expand(decoders=["optimal"])
    go(rows, tmp_path, listeners=logs)
    for log in logs:
        assert log.calls == ["started", "epoch 0", "epoch 1", "completed", "close"]
    go(rows, tmp_path, listeners=[again := Log()])
    assert again.calls == ["found", "close"]


def finish(process: Invocation) -> None:
    _, told = process.communicate(timeout=120)
    assert process.returncode == 0, told


def test_two_invocations_share_the_work(
    write_grid: Callable[..., Path], tmp_path: Path, start_warm: StartWarm, found: Found
) -> None:
    grid = write_grid(decoders=["gaussian", "optimal", "shared", "per_pixel"], seeds=[0, 1])
    both = [start_warm(grid, tmp_path / "results") for _ in range(2)]
    told = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    # Together they computed each run once.
    computed = [int(re.findall(r"(\d+) computed now", text)[0]) for text in told]
    assert sum(computed) == 8
    finished = found(tmp_path / "results")
    assert len(finished) == 8
    assert {record["status"] for record in finished.values()} == {"completed"}


def kill_and_finish(
    write_grid: Callable[..., Path], tmp_path: Path, start_warm: StartWarm, found: Found, kills: int
) -> None:
    """On one machine, an invocation killed `kills` times leaves the undisturbed one's bits."""
    grid = write_grid(
        decoders=["optimal"],
        training={"epochs": 2 + 5 * kills, "batch": 10},
        models=[{"name": "conv_vae", "width": 2, "latent": 3}],
    )
    finish(start_warm(grid, tmp_path / "whole"))
    expected = found(tmp_path / "whole")
    (identity,) = expected

    def folder_in(results: Path) -> Path:
        return Store(results / "small").folder_of(identity)

    history = folder_in(tmp_path / "killed") / "history.jsonl"
    for attempt in range(kills):
        process = start_warm(grid, tmp_path / "killed")
        # Wait for the run to move on by itself, then a moment more: some step of some epoch.
        known = history.read_text().count("\n") if history.exists() else 0
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and process.poll() is None:
            if history.exists() and history.read_text().count("\n") > known:
                break
            time.sleep(0.005)
        time.sleep(0.013 * (attempt % 5))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    assert not (history.parent / "record.json").exists()
    finish(start_warm(grid, tmp_path / "killed"))
    assert found(tmp_path / "killed") == expected
    lines = [json.loads(line) for line in history.read_text().splitlines()]
    whole = folder_in(tmp_path / "whole") / "history.jsonl"
    for line, undisturbed in zip(
        lines, map(json.loads, whole.read_text().splitlines()), strict=True
    ):
        assert {k: v for k, v in line.items() if "second" not in k} == {
            k: v for k, v in undisturbed.items() if "second" not in k
        }


def test_a_killed_run_ends_as_an_undisturbed_one(
    write_grid: Callable[..., Path], tmp_path: Path, start_warm: StartWarm, found: Found
) -> None:
    kill_and_finish(write_grid, tmp_path, start_warm, found, kills=2)


@pytest.mark.slow
def test_a_run_killed_ten_times_ends_as_an_undisturbed_one(
    write_grid: Callable[..., Path], tmp_path: Path, start_warm: StartWarm, found: Found
) -> None:
    kill_and_finish(write_grid, tmp_path, start_warm, found, kills=10)


def kill_workers() -> None:
    for child in multiprocessing.active_children():
        os.kill(child.pid or 0, signal.SIGKILL)


def test_a_worker_that_dies_costs_its_run_alone(
    expand: Expand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed workers are replaced; a run that kills every worker is recorded as failed."""
    rows = expand(decoders=["gaussian", "optimal"], training={"epochs": 2, "batch": 10})
    victim = rows[0].runs[0]
    original = Pool.give

    def give(self: Pool, task: Task) -> None:
        original(self, task)
        if task.run.id == victim.id:
            kill_workers()

    monkeypatch.setattr(Pool, "give", give)
    outcome, told = go(rows, tmp_path)
    statuses = {r["run"]["decoder"]["name"]: r["status"] for r in outcome.records.values()}
    assert statuses == {"gaussian": "failed", "optimal": "completed"}
    assert told.count("ended by signal 9") == MAX_DEATHS
    assert not outcome.well


def test_a_run_that_goes_forward_survives_any_number_of_deaths(
    expand: Expand, tmp_path: Path
) -> None:
    rows = expand(decoders=["gaussian"], training={"epochs": MAX_DEATHS + 1, "batch": 10})
    told_of = []

    class Killer(Listener):
        def epoch(self, run: Run, line: dict[str, float]) -> None:
            told_of.append(line["epoch"])
            kill_workers()

    outcome, _ = go(rows, tmp_path, listeners=[Killer()])
    assert outcome.well
    assert told_of == list(range(MAX_DEATHS + 1))


def test_a_worker_that_dies_between_runs_is_replaced(expand: Expand, tmp_path: Path) -> None:
    class Killer(Listener):
        def finished(self, run: Run, record: Record) -> None:
            kill_workers()
            for child in multiprocessing.active_children():
                child.join()

    rows = expand(decoders=["gaussian", "optimal"])
    outcome, told = go(rows, tmp_path, listeners=[Killer()])
    assert outcome.new == 2
    assert outcome.well
    assert "ended by signal" not in told
