"""Many equal invocations: where each begins, who waits, and what counts as done."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.errors import RequestError
from bench.execution.chains import BY_HAND
from bench.execution.code import code_digest
from bench.execution.cost_model import CostModel
from bench.execution.messages import Task
from bench.execution.pilot import LONGEST_PATIENCE, ORDERS, Alone, Pilot
from bench.execution.queue import TaskQueue
from bench.execution.signals import Interruption
from bench.files import checksum, write_checked
from bench.grid.expand import Row
from bench.records.store import new_record
from bench.records.validity import COMPLETED, FAILED

Expand = Callable[..., list[Row]]


class Clock(Interruption):
    """Notes how long it is waited for, and does not wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)


@pytest.mark.parametrize("rule", ["by hand", "trial"])
def test_pilots_begin_apart_and_each_meets_every_run(rule: str, expand: Expand) -> None:
    rows = expand(decoders=["gaussian", "optimal"], seeds=[0, 1, 2, 3])
    runs = [run for row in rows for run in row.runs]
    begun = []
    for pilot in range(4):
        queue = TaskQueue(CostModel())
        for run in runs:
            queue.push(Task(run, {"rule": rule}))
        queue.rotate(pilot / 4)
        order = [queue.pop().run.id for _ in runs]
        assert sorted(order) == sorted(run.id for run in runs)
        begun.append(order[0])
    assert len(set(begun)) == 4


def test_pauses_grow_while_nothing_is_computed(tmp_path: Path) -> None:
    pilot, clock = Pilot(tmp_path), Clock()
    for _ in range(10):
        assert pilot.wait(clock, 0)
    assert clock.waits[:4] == [0.5, 1, 2, 4]
    assert max(clock.waits) == clock.waits[-1] == LONGEST_PATIENCE == 30
    assert pilot.wait(clock, 1)
    assert clock.waits[-1] == 0.5
    alone, clock = Alone(), Clock()
    assert all(alone.wait(clock, 0) for _ in range(10))
    assert set(clock.waits) == {0.5}


def test_of_those_with_nothing_to_do_one_waits(tmp_path: Path) -> None:
    stays, waiting, others = [], threading.Event(), threading.Event()

    class Long(Clock):
        def wait(self, seconds: float) -> None:
            waiting.set()
            assert others.wait(30)

    first = threading.Thread(target=lambda: stays.append(Pilot(tmp_path).wait(Long(), 0)))
    first.start()
    assert waiting.wait(30)
    assert [Pilot(tmp_path).wait(Clock(), 0) for _ in range(3)] == [False] * 3
    others.set()
    first.join()
    assert stays == [True]
    assert Pilot(tmp_path).wait(Clock(), 0)  # the place is free again


def test_the_first_signal_ends_a_wait() -> None:
    with Interruption() as interruption:
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        start = time.monotonic()
        interruption.wait(30)
        assert interruption.asked
        assert time.monotonic() - start < 10
        interruption.wait(30)  # at once
        assert time.monotonic() - start < 10


def test_a_failure_is_tried_again_once_by_all_pilots(expand: Expand, tmp_path: Path) -> None:
    record = new_record(expand()[0].runs[0], BY_HAND)
    records = []
    for seconds in (1.0, 2.0):
        failed = {**record, "status": FAILED, "cost": {"seconds": seconds}}
        records.append({**failed, "checksum": checksum(failed)})
    old, new = records
    pilot = Pilot(tmp_path, retried=frozenset({str(old["checksum"])}))
    assert [pilot.settles(each) for each in (old, new)] == [False, True]
    assert pilot.settles({**new, "status": COMPLETED})
    # Without orders it is an invocation as any other.
    assert not any(each.settles(new) for each in (Pilot(tmp_path), Alone()))


def test_a_pilot_refuses_other_code_and_a_folder_that_is_not_shared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "orders.json"
    monkeypatch.setenv(ORDERS, str(path))
    with pytest.raises(RequestError, match=r"orders\.json is not on this node; --results must"):
        Pilot.ordered(tmp_path, 0.5)
    write_checked(path, {"code": code_digest(), "retried": ["a"], "batch": ""})
    pilot = Pilot.ordered(tmp_path, 0.5)
    assert (pilot.share, pilot.retried) == (0.5, frozenset({"a"}))
    write_checked(path, {"code": "0" * 64, "retried": [], "batch": ""})
    with pytest.raises(RequestError, match="the code of sigma-bench here is not that of the"):
        Pilot.ordered(tmp_path, 0.5)
    monkeypatch.delenv(ORDERS)
    assert Pilot.ordered(tmp_path, 0.25).retried is None
