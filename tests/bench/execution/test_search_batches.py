"""A search in batches on an engine: its values depend neither on order nor on interruptions."""

import io
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from bench.execution.messages import Message, Resources, Task
from bench.execution.outcome import INTERRUPTED, Outcome
from bench.execution.schedule import execute
from bench.execution.signals import Interruption
from bench.files import write_checked
from bench.grid.expand import Row
from bench.records.store import Record, Store, new_record

Expand = Callable[..., list[Row]]
Start = Callable[..., "subprocess.Popen[str]"]
Found = Callable[[Path], dict[str, Record]]

TUNE = {"low": 0.001, "high": 10, "trials": 11, "startup": 3, "together": 4, "sampler": "tpe"}
SEARCHES = [{"name": "beta", "beta": {"tune": {**TUNE, "sampler_seed": n}}} for n in range(2)]


class AnyOrder:
    """Takes every task at once and answers in a random order; β = 0.03 is best.

    After `leave` answers it raises KeyboardInterrupt, as a second signal does.
    """

    name = "any_order"

    def __init__(
        self, store: Store, resources: Resources, *, seed: int, leave: float = float("inf")
    ) -> None:
        self.store, self.draws, self.leave = store, random.Random(seed), leave
        self.tasks: list[Task] = []
        self.most = 0

    @property
    def free(self) -> bool:
        return True

    @property
    def busy(self) -> bool:
        return bool(self.tasks)

    def give(self, task: Task) -> None:
        self.tasks.append(task)

    def messages(self, timeout: float | None, interruption: Interruption) -> Iterator[Message]:
        if self.leave <= 0:
            raise KeyboardInterrupt
        self.leave -= 1
        task = self.tasks.pop(self.draws.randrange(len(self.tasks)))
        record = new_record(task.run, task.selection)
        beta = task.run.decoder.options["beta"]
        record["metrics"] = {"neg_log_p": abs(beta - 0.03)}
        record["cost"] = {"seconds": 1.0}
        write_checked(self.store.run_folder(task.run) / "record.json", record)
        yield task.message("record", record)

    def stop(self) -> None:
        self.tasks.clear()

    close = kill = stop


def go(rows: list[Row], folder: Path, seed: int, leave: float = float("inf")) -> Outcome:
    launch = partial(AnyOrder, seed=seed, leave=leave)
    console = Console(file=io.StringIO())
    return execute(rows, Store.open(folder, "small"), "small", ["cpu"], 8, console, launch=launch)


def searches(results: Path) -> list[Record]:
    return list(Store(results / "small").searches())


def test_the_order_in_which_records_come_changes_no_search(expand: Expand, tmp_path: Path) -> None:
    rows = expand(decoders=SEARCHES)
    for seed in range(4):
        assert go(rows, tmp_path / str(seed), seed).well
    first = searches(tmp_path / "0")
    assert [len(search["trials"]) for search in first] == [11, 11]
    assert all(searches(tmp_path / str(seed)) == first for seed in (1, 2, 3))


def test_a_search_stopped_after_any_answer_ends_as_an_undisturbed_one(
    expand: Expand, tmp_path: Path
) -> None:
    rows = expand(decoders=SEARCHES[:1])
    assert go(rows, tmp_path / "whole", 0).new == 12
    for leave in range(1, 12):
        results, computed = tmp_path / str(leave), leave
        stopped = go(rows, results, leave, leave)
        assert (stopped.stopped, stopped.new) == (INTERRUPTED, leave)
        computed += go(rows, results, leave + 100).new
        assert computed == 12
        assert searches(results) == searches(tmp_path / "whole")


def test_a_search_is_found_again_from_its_records_alone(expand: Expand, tmp_path: Path) -> None:
    rows = expand(decoders=SEARCHES)
    go(rows, tmp_path, 0)
    before = searches(tmp_path)
    for search in before:
        (tmp_path / "small" / "searches" / f"{search['id']}.json").unlink()
    again = go(rows, tmp_path, 1)
    assert again.well
    assert again.new == 0
    assert searches(tmp_path) == before


@pytest.mark.slow
def test_a_killed_search_on_workers_ends_as_an_undisturbed_one(
    write_grid: Callable[..., Path], tmp_path: Path, start: Start, found: Found
) -> None:
    tune = {"low": 0.001, "high": 10, "trials": 6, "startup": 2, "together": 2, "sampler": "tpe"}
    grid = write_grid(decoders=[{"name": "beta", "beta": {"tune": tune}}])
    assert start(grid, tmp_path / "whole", jobs=2).wait(120) == 0
    process = start(grid, tmp_path / "killed", jobs=2)
    deadline = time.monotonic() + 60
    # The start has two trials, so this is in the middle of a round.
    while len(found(tmp_path / "killed")) < 3 and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not searches(tmp_path / "killed")
    assert start(grid, tmp_path / "killed", jobs=2).wait(120) == 0
    assert found(tmp_path / "killed") == found(tmp_path / "whole")

    def values(results: Path) -> list[tuple[list[float], float]]:
        (search,) = searches(results)
        return [(trial["values"], trial["score"]) for trial in search["trials"]]

    assert values(tmp_path / "killed") == values(tmp_path / "whole")
    assert len(values(tmp_path / "whole")) == 6
