"""`--keep records` leaves no weights, changes no number, and is told to whoever needs weights."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.errors import RequestError
from bench.evaluation.load import load_run
from bench.execution.chains import BY_HAND
from bench.execution.messages import Keep, Task
from bench.execution.worker import Worker
from bench.grid.expand import Row
from bench.records.store import Record, Store
from bench.run import Run

Write = Callable[..., Path]
Call = Callable[..., tuple[int, str, str]]
Found = Callable[[Path], dict[str, Record]]


@pytest.fixture
def go(call: Call) -> Callable[..., str]:
    def run(grid: Path, results: Path, *words: str) -> str:
        code, _, told = call("run", grid, "--results", results, "--device", "cpu", *words)
        assert code == 0, told
        return told

    return run


def without_files(record: Record) -> Record:
    return {key: value for key, value in record.items() if key != "artifacts"}


def test_numbers_pictures_and_the_report_are_those_with_weights(
    write_grid: Write, tmp_path: Path, go: Callable[..., str], found: Found, call: Call
) -> None:
    grid = write_grid()
    go(grid, tmp_path / "weights")
    go(grid, tmp_path / "records", "--keep", "records")
    whole, bare = found(tmp_path / "weights"), found(tmp_path / "records")
    assert list(map(without_files, bare.values())) == list(map(without_files, whole.values()))
    folders = Store(tmp_path / "weights" / "small").run_folders()
    for folder in folders:
        ours = Store(tmp_path / "records" / "small").folder_of(folder.name)
        left = {path.name for path in folder.iterdir()} - {path.name for path in ours.iterdir()}
        assert left == {"weights.safetensors"}
        for name in ("samples", "reconstructions"):
            picture = bare[folder.name]["artifacts"][name]
            assert (ours / picture).read_bytes() == (folder / picture).read_bytes()
    out = tmp_path / "reports"
    code, written, told = call(
        "report", "small", "--results", tmp_path / "records", "--out", out, "--format", "html,csv"
    )
    assert code == 0, told
    assert "table.csv" in written


def compute(store: Store, run: Run, keep: Keep = "weights") -> Record:
    """The run's record, computed in this process."""
    message = Worker("cpu").attempt(Task(run, BY_HAND, keep=keep), store, lambda told: None)
    assert message.kind == "record", message
    record: Record = message.content
    return record


def with_draws(expand: Callable[..., list[Row]], draws: int) -> Run:
    """Runs of equal training that differ in what is measured."""
    return expand(decoders=["optimal"], evaluation={"samples": 0, "iwae": draws})[0].runs[0]


def test_whoever_needs_the_weights_is_told_in_one_line(
    expand: Callable[..., list[Row]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, run, other = Store(tmp_path), with_draws(expand, 2), with_draws(expand, 3)
    first = compute(store, run, "records")
    folder = store.run_folder(run)
    with pytest.raises(RequestError, match=rf"{folder}/.*: not kept .*delete the folder"):
        load_run(folder)
    with caplog.at_level(logging.WARNING, "sigma-bench"):
        again = compute(store, other)
    (line,) = caplog.messages
    assert "were not kept (`--keep records`): trained again" in line
    assert "training" not in again["protocol"]
    assert again["metrics"]["neg_log_p"] == first["metrics"]["neg_log_p"]
    assert load_run(store.run_folder(other)).run.id == other.id


def test_weights_of_earlier_runs_stay_and_are_used(
    expand: Callable[..., list[Row]], tmp_path: Path
) -> None:
    store, source = Store(tmp_path), with_draws(expand, 2)
    compute(store, source)
    for draws in (3, 4):
        other = with_draws(expand, draws)
        record = compute(store, other, "records")
        assert record["protocol"]["training"] == {"weights_of": source.id}
        assert not (store.run_folder(other) / "weights.safetensors").exists()
    assert (store.run_folder(source) / "weights.safetensors").exists()


def test_weights_of_an_attempt_that_was_killed_go_as_well(
    expand: Callable[..., list[Row]], tmp_path: Path
) -> None:
    store, run = Store(tmp_path), with_draws(expand, 2)
    compute(store, run)
    (store.run_folder(run) / "record.json").unlink()
    (store.folder / "trained").rename(tmp_path / "lost")
    compute(store, run, "records")
    assert not (store.run_folder(run) / "weights.safetensors").exists()


def test_another_word_is_one_line(write_grid: Write, call: Call) -> None:
    code, _, told = call("run", write_grid(), "--keep", "pictures")
    assert code == 2
    (line,) = told.splitlines()
    assert "--keep" in line
    assert "'weights', 'records'" in line
