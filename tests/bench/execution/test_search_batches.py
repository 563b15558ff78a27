"""A search in batches on an engine: its values depend neither on order nor on interruptions."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.execution.outcome import INTERRUPTED, Outcome
from bench.grid.expand import Row
from bench.records.store import Record, Store
from bench.run import Run
from tests.bench.driven import beta_of
from tests.bench.execution.invocation import Invocation
from tests.bench.execution.prompt import executed

Expand = Callable[..., list[Row]]
StartWarm = Callable[..., Invocation]
Found = Callable[[Path], dict[str, Record]]

TUNE = {"low": 0.001, "high": 10, "trials": 11, "startup": 3, "together": 4, "sampler": "tpe"}
SEARCHES = [{"name": "beta", "beta": {"tune": {**TUNE, "sampler_seed": n}}} for n in range(2)]


def score(run: Run) -> float:
    """Best at β = 0.03."""
    return abs(beta_of(run) - 0.03)


def go(rows: list[Row], folder: Path, seed: int, leave: float = float("inf")) -> Outcome:
    return executed(rows, folder, score, seed, leave)


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
@pytest.mark.parametrize("several", [False, True])
def test_a_killed_search_on_workers_ends_as_an_undisturbed_one(
    write_grid: Callable[..., Path],
    tmp_path: Path,
    start_warm: StartWarm,
    found: Found,
    several: bool,
) -> None:
    tune = {"low": 0.001, "high": 10, "trials": 6, "startup": 2, "together": 2, "sampler": "tpe"}
    lr = {"tune": {**tune, "low": 0.0001, "high": 0.1}} if several else 0.001
    grid = write_grid(
        decoders=[{"name": "beta", "beta": {"tune": tune}}],
        training={"epochs": 2, "batch": 70, "lr": lr},
    )
    assert start_warm(grid, tmp_path / "whole", jobs=2).wait(120) == 0
    process = start_warm(grid, tmp_path / "killed", jobs=2)
    deadline = time.monotonic() + 60
    # The start has two trials, so this is in the middle of a round.
    while len(found(tmp_path / "killed")) < 3 and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not searches(tmp_path / "killed")
    assert start_warm(grid, tmp_path / "killed", jobs=2).wait(120) == 0
    assert found(tmp_path / "killed") == found(tmp_path / "whole")

    def values(results: Path) -> list[tuple[list[float], float]]:
        (search,) = searches(results)
        return [(trial["values"], trial["score"]) for trial in search["trials"]]

    assert values(tmp_path / "killed") == values(tmp_path / "whole")
    assert len(values(tmp_path / "whole")) == 6
