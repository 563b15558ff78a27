"""Which run is begun next."""

from collections.abc import Callable

import pytest

from bench.execution.cost_model import CostModel
from bench.execution.messages import Task
from bench.execution.queue import TaskQueue
from bench.grid.expand import Row
from bench.records.store import Record, new_record
from bench.run import Run

BY_HAND = {"rule": "by hand"}


@pytest.fixture
def runs(expand: Callable[..., list[Row]]) -> dict[str, list[Run]]:
    rows = expand(decoders=["gaussian", "optimal", "shared"], seeds=[0, 1])
    return {row.runs[0].decoder.name: list(row.runs) for row in rows}


def record(run: Run, seconds: float) -> Record:
    return {**new_record(run, BY_HAND), "cost": {"seconds": seconds}}


def test_each_kind_is_tried_then_the_longest_go_first(runs: dict[str, list[Run]]) -> None:
    queue = TaskQueue(CostModel())
    for seeds in runs.values():
        for run in seeds:
            queue.push(Task(run, BY_HAND))
    first = [queue.pop().run.decoder.name for _ in range(3)]
    assert first == ["gaussian", "optimal", "shared"]
    for name, seconds in (("gaussian", 5.0), ("optimal", 7.0), ("shared", 6.0)):
        queue.costs.add(record(runs[name][0], seconds))
    assert [queue.pop().run.decoder.name for _ in range(3)] == ["optimal", "shared", "gaussian"]
    assert not queue
    with pytest.raises(IndexError):
        queue.pop()


def test_trials_come_before_everything(runs: dict[str, list[Run]]) -> None:
    queue = TaskQueue(CostModel())
    queue.push(Task(runs["gaussian"][0], BY_HAND))
    trials = [Task(run, {"rule": "trial", "search": "s"}) for run in runs["optimal"]]
    for task in trials:
        queue.push(task)
    assert [queue.pop() for _ in range(2)] == trials
    assert queue.pop().run == runs["gaussian"][0]
