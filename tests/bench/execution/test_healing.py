"""Whatever a crash, a bad disk or a person does to a file: it is seen, set aside, made again."""

import hashlib
import io
import logging
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from bench import tuning
from bench.errors import RequestError
from bench.execution.outcome import Outcome
from bench.execution.schedule import execute
from bench.execution.status import survey
from bench.files import read_checked, sha256_file, write_checked
from bench.grid.expand import Row
from bench.records.store import Record, Store, new_record
from bench.run import Run

Expand = Callable[..., list[Row]]
Call = Callable[..., tuple[int, str, str]]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    """One bit of a letter in the middle."""
    content = bytearray(path.read_bytes())
    place = next(i for i in range(len(content) // 2, len(content)) if chr(content[i]).isalpha())
    content[place] ^= 1
    path.write_bytes(content)


def garble(path: Path) -> None:
    """A bit that no UTF-8 has there."""
    content = bytearray(path.read_bytes())
    content[content.index(b'"') + 1] ^= 0x80
    path.write_bytes(content)


def nest(path: Path) -> None:
    path.write_bytes(b"[" * 100_000)


def replace_with_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


HARMS = (cut, empty, flip, garble, nest, replace_with_folder)


def numbers(record: Record) -> Record:
    """What a run that is done again must repeat; its protocol says that weights were reused."""
    return {key: record[key] for key in ("run", "status", "metrics", "curves", "artifacts")}


def test_damaged_records_are_set_aside_and_their_runs_done_again(
    write_grid: Callable[..., Path],
    tmp_path: Path,
    call: Call,
    caplog: pytest.LogCaptureFixture,
) -> None:
    grid = write_grid(decoders=["optimal"], seeds=list(range(len(HARMS) + 1)))
    results = tmp_path / "results"
    assert call("run", grid, "--results", results)[0] == 0
    store = Store(results / "small")
    whole = {record["id"]: numbers(record) for record in store.records()}
    paths = [store.folder_of(identity) / "record.json" for identity in whole]
    for harm, path in zip(HARMS, paths[1:], strict=True):
        harm(path)
    with caplog.at_level(logging.WARNING, "sigma-bench"):
        code, _, told = call("run", grid, "--results", results)
    assert code == 0
    assert f"{len(HARMS)} computed now" in told
    assert {record["id"]: numbers(record) for record in store.records()} == whole
    for path in paths[1:]:
        assert path.with_name("record.json.bad").exists()
        assert f"{path} is torn or was edited: set aside as record.json.bad" in caplog.text
    assert call("run", grid, "--results", results)[2].count("0 computed now") == 1


def test_every_flipped_bit_of_a_record_is_seen(tmp_path: Path, expand: Expand) -> None:
    logging.getLogger("sigma-bench").disabled = True
    path = tmp_path / "record.json"
    write_checked(path, new_record(expand()[0].runs[0], {"rule": "by hand"}))
    whole, content = read_checked(path), path.read_bytes()
    try:
        for place in range(len(content)):
            flipped = bytearray(content)
            flipped[place] ^= 1 << place % 8
            path.write_bytes(flipped)
            # White space between values carries nothing.
            assert read_checked(path) in (None, whole)
            if not chr(content[place]).isspace():
                assert not path.exists()
                path.with_name("record.json.bad").unlink()
    finally:
        logging.getLogger("sigma-bench").disabled = False


def test_a_record_that_cannot_be_read_is_told_in_one_line(tmp_path: Path, expand: Expand) -> None:
    run, store = expand()[0].runs[0], Store.open(tmp_path, "small")
    path = store.run_folder(run) / "record.json"
    path.parent.mkdir(parents=True)
    path.symlink_to(path)  # who may read everything cannot read this either
    with pytest.raises(RequestError, match=rf"{re.escape(str(path))}: cannot be read \(.*make it"):
        store.record(run)


def test_records_of_another_schema_are_left_alone(tmp_path: Path, expand: Expand) -> None:
    rows, store = expand(), Store.open(tmp_path, "small")
    record = {**new_record(rows[0].runs[0], {"rule": "by hand"}), "schema": 99, "protocol": {}}
    write_checked(store.folder_of("0123456789abcdef") / "record.json", record)
    assert {line.state for line in survey(rows, store)} == {"to do"}
    assert (store.folder_of("0123456789abcdef") / "record.json").exists()


# -- a search ----------------------------------------------------------------------------------


def settle(rows: list[Row], store: Store) -> Outcome:
    return execute(rows, store, "small", ["cpu"], 1, Console(file=io.StringIO()))


def write_finished(run: Run, store: Store, selection: dict[str, str]) -> None:
    record = new_record(run, selection)
    record["metrics"] = {"neg_log_p": float(run.decoder.options["beta"])}
    record["cost"] = {"seconds": 1.0}
    write_checked(store.run_folder(run) / "record.json", record)


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_search_is_told_again_by_its_records(
    harm: Callable[[Path], None], tmp_path: Path, expand: Expand
) -> None:
    tune = {"low": 0.01, "high": 1, "trials": 4}
    rows = expand(decoders=[{"name": "beta", "beta": {"tune": tune}}])
    store, (row,) = Store.open(tmp_path, "small"), rows
    for run in tuning.startup_runs(row):
        write_finished(run, store, {"rule": "trial", "search": tuning.search_id(row)})
    best = min(row.start)
    for run in tuning.final_runs(row, tuning.Choice(best, ())):
        write_finished(run, store, {"rule": "tuned", "search": tuning.search_id(row)})
    outcome = settle(rows, store)
    assert (outcome.well, outcome.new) == (True, 0)
    path = tuning.summary_path(row, store)
    whole = read_checked(path)
    assert whole is not None
    assert whole["chosen"] == list(best)
    harm(path)
    again = settle(rows, store)
    assert again.records == outcome.records
    assert read_checked(path) == whole
    assert path.with_name(f"{path.name}.bad").exists()


# -- what a training left ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["weights.safetensors", "history.jsonl"])
def test_damaged_weights_are_never_measured(
    name: str, tmp_path: Path, expand: Expand, caplog: pytest.LogCaptureFixture
) -> None:
    run, store = expand()[0].runs[0], Store.open(tmp_path, "small")
    folder = store.run_folder(run)
    folder.mkdir(parents=True)
    for file in ("weights.safetensors", "history.jsonl"):
        (folder / file).write_bytes(hashlib.sha256(file.encode()).digest())
    store.remember_weights(run, ["weights.safetensors", "history.jsonl"])
    assert store.find_weights(run) == folder
    path = folder / name
    content, status = path.read_bytes(), path.stat()
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        # A disk that errs changes no time.
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert store.find_weights(run) is None
    assert str(path) in caplog.text
    for harm in (cut, empty, replace_with_folder, Path.rmdir):
        harm(path)
        assert store.find_weights(run) is None
    path.write_bytes(content)
    assert store.find_weights(run) == folder


@pytest.mark.parametrize("harm", HARMS)
def test_a_damaged_note_of_weights_is_no_note(
    harm: Callable[[Path], None], tmp_path: Path, expand: Expand
) -> None:
    run, store = expand()[0].runs[0], Store.open(tmp_path, "small")
    weights = store.run_folder(run) / "weights.safetensors"
    weights.parent.mkdir(parents=True)
    weights.write_bytes(b"weights")
    store.remember_weights(run, ["weights.safetensors"])
    (note,) = (store.folder / "trained").glob("*/*.json")
    harm(note)
    assert store.find_weights(run) is None
    assert note.with_name(f"{note.name}.bad").exists()
    store.remember_weights(run, ["weights.safetensors"])
    assert store.find_weights(run) == store.run_folder(run)


# -- remembered checksums ----------------------------------------------------------------------


def test_no_damage_to_the_memory_of_checksums_changes_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGMA_BENCH_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "weights"
    path.write_bytes(b"some weights")
    right = hashlib.sha256(b"some weights").hexdigest()
    assert sha256_file(path) == right
    (memo,) = (tmp_path / "cache" / "sha256").iterdir()
    content = memo.read_bytes()
    for place in range(len(content)):
        flipped = bytearray(content)
        flipped[place] ^= 1 << place % 8
        memo.write_bytes(flipped)
        assert sha256_file(path) == right
        # White space between values carries nothing.
        if not chr(content[place]).isspace():
            assert memo.read_bytes() == content
    # Whole, but of another file.
    other = {**(read_checked(memo) or {}), "file": ["/elsewhere", 1, 2, 3]}
    del other["checksum"]
    write_checked(memo, other)
    assert sha256_file(path) == right
    for torn in (b"", content[:64], content[:-9], b"\xff" * 64):
        memo.write_bytes(torn)
        assert sha256_file(path) == right
        assert memo.read_bytes() == content
    replace_with_folder(memo)
    assert sha256_file(path) == right
    assert memo.read_bytes() == content
