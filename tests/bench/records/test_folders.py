"""Where a run's folder lies: divided by the first digits of its id, and old ones as they are."""

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.execution.chains import BY_HAND
from bench.execution.messages import Message, Task
from bench.execution.status import survey
from bench.execution.worker import Worker
from bench.files import digest, write_checked
from bench.grid.expand import Row
from bench.records.frame import frame_of
from bench.records.store import Store, new_record
from bench.regression.results import read_results
from bench.run import Run

Expand = Callable[..., list[Row]]


def flatten(store: Store) -> None:
    """Lay the folders of runs and the notes of weights out as older versions did."""
    for parent, inside in ((store.runs, "*/*"), (store.folder / "trained", "*/*.json")):
        for path in list(parent.glob(inside)):
            path.rename(parent / path.name)
            if not any(path.parent.iterdir()):
                path.parent.rmdir()


def write(store: Store, run: Run, folder: Path | None = None) -> None:
    record = new_record(run, BY_HAND)
    record["metrics"], record["cost"] = {"neg_log_p": 1.5 + run.seed}, {"seconds": 1.0}
    write_checked((folder or store.run_folder(run)) / "record.json", record)


@given(st.lists(st.integers(), min_size=1, max_size=50, unique=True))
def test_every_folder_that_was_made_is_listed_once_by_id(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[int]
) -> None:
    store = Store(tmp_path_factory.mktemp("store"))
    identities = sorted(digest(number)[:16] for number in numbers)
    for place, identity in enumerate(identities):
        # Every other folder lies where an older version put it.
        old = store.runs / identity
        (old if place % 2 else store.folder_of(identity)).mkdir(parents=True)
    assert store.run_folders() == [store.folder_of(identity) for identity in identities]
    assert [folder.name for folder in store.run_folders()] == identities


def test_no_folder_of_a_hundred_thousand_runs_is_large(tmp_path: Path) -> None:
    store = Store(tmp_path)
    folders = [store.folder_of(digest(number)[:16]) for number in range(100_000)]
    sizes = Counter(folder.parent for folder in folders)
    assert len(sizes) == 256
    assert max(sizes.values()) < 500
    assert {parent.parent for parent in sizes} == {store.runs}


def test_results_of_an_older_version_are_found_where_they_are(
    expand: Expand, tmp_path: Path
) -> None:
    rows = expand(seeds=[0, 1, 2])
    new, old = Store(tmp_path / "new"), Store(tmp_path / "old")
    for row in rows:
        for run in row.runs:
            write(new, run)
            write(old, run)
    flatten(old)
    assert {folder.parent for folder in old.run_folders()} == {old.runs}
    assert list(old.records()) == list(new.records())
    assert [line.state for line in survey(rows, old)] == ["done"] * 6
    ours, theirs = frame_of(old.folder), frame_of(new.folder)
    assert ours.drop(columns="folder").equals(theirs.drop(columns="folder"))
    assert all(
        (folder / "record.json").is_file() for folder in [*ours["folder"], *theirs["folder"]]
    )
    assert read_results(old.folder).rows == read_results(new.folder).rows


def test_of_two_folders_of_one_run_the_new_one_counts(expand: Expand, tmp_path: Path) -> None:
    store, run = Store(tmp_path), expand()[0].runs[0]
    write(store, run)
    write(store, run, store.runs / run.id)
    assert store.run_folders() == [store.runs / run.id[:2] / run.id] == [store.run_folder(run)]
    assert len(list(store.records())) == 1


def test_an_old_folder_is_continued_where_it_is(expand: Expand, tmp_path: Path) -> None:
    (run,) = expand(decoders=["optimal"], training={"epochs": 3, "batch": 70})[0].runs
    store, worker, told = Store(tmp_path), Worker("cpu"), list[Message]()

    def stop_after_one(message: Message) -> None:
        told.append(message)
        worker.stop.asked = True

    assert worker.attempt(Task(run, BY_HAND), store, stop_after_one).kind == "stopped"
    flatten(store)
    assert (store.runs / run.id / "checkpoint.pt").is_file()
    worker.stop.asked = False
    assert worker.attempt(Task(run, BY_HAND, 2), store, told.append).kind == "record"
    # The first epoch was not trained again.
    assert [message.content["epoch"] for message in told if message.kind == "epoch"] == [0, 1, 2]
    assert store.run_folders() == [store.runs / run.id]
    assert (store.runs / run.id / "record.json").is_file()


def test_weights_that_an_older_version_noted_are_found(expand: Expand, tmp_path: Path) -> None:
    store, run = Store(tmp_path), expand()[0].runs[0]
    store.run_folder(run).mkdir(parents=True)
    (store.run_folder(run) / "weights.safetensors").write_bytes(b"weights")
    store.remember_weights(run, ["weights.safetensors"])
    assert store.find_weights(run) == store.run_folder(run)
    flatten(store)
    assert store.find_weights(run) == store.runs / run.id
    shutil.rmtree(store.folder / "trained")
    assert store.find_weights(run) is None
