"""The engine `ray`, for longer: what it costs, and a hundred kills."""

import contextlib
import io
import itertools
import os
import random
import shutil
import signal
import statistics
import time
from pathlib import Path

import pytest
from rich.console import Console

from bench.execution.listeners import Listener
from bench.execution.schedule import execute
from bench.records.store import Record, Store
from bench.run import Run
from tests.engines.ray_cluster import INSTALLED, Nodes
from tests.engines.ray_grid import LONG, command, go, rows_of, write_grid, written
from tests.loopback import HERE
from tests.undisturbed import Undisturbed

pytestmark = [
    pytest.mark.skipif(not INSTALLED, reason='Ray is not installed; the extra "ray" has it'),
    pytest.mark.usefixtures("own_folder"),
    pytest.mark.timeout(3600),
    pytest.mark.slow,
]


class Stopwatch(Listener):
    """Notes when each run was finished, and the seconds that its worker spent on it."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.spent: list[float] = []

    def finished(self, run: Run, record: Record) -> None:
        self.times.append(time.monotonic())
        self.spent.append(record["cost"]["seconds"])

    @property
    def gaps(self) -> list[float]:
        """The seconds between two runs of one worker, without those that it computed."""
        pairs = zip(itertools.pairwise(self.times), self.spent[1:], strict=True)
        return [after - before - spent for (before, after), spent in pairs]


def test_what_the_engine_costs(ray_nodes: Nodes, capsys: pytest.CaptureFixture[str]) -> None:
    ray_nodes.only(1)
    gaps: dict[str, list[float]] = {"local": [], "ray": []}
    for block in range(3):
        rows = rows_of(seeds=list(range(10 * block, 10 * block + 10)), decoders=["optimal"])
        for name in gaps:
            watch = Stopwatch()
            if name == "ray":
                go(rows, ray_nodes, [watch])
            else:
                store = Store.open(HERE / "local", "small")
                execute(rows, store, "small", ["cpu"], 1, Console(file=io.StringIO()), [watch])
            gaps[name] += watch.gaps
    medians = {name: statistics.median(found) for name, found in gaps.items()}
    ray_nodes.only(3)
    watch = Stopwatch()
    outcome, _ = go(rows_of(seeds=list(range(100, 300)), decoders=["optimal"]), ray_nodes, [watch])
    assert outcome.well
    share = sum(watch.spent[3:]) / (3 * (watch.times[-1] - watch.times[2]))
    with capsys.disabled():
        told = ", ".join(f"{name} {1000 * gap:.0f} ms" for name, gap in medians.items())
        print(f"between two runs: {told}; 200 runs on 3 nodes: workers compute {share:.0%}")
    assert medians["ray"] - medians["local"] < 0.5
    assert share > 0.5


def test_a_hundred_random_kills_change_nothing(ray_nodes: Nodes, undisturbed: Undisturbed) -> None:
    """SIGKILLs to workers, agents and nodes; a node that was killed is replaced by a new one."""
    rows = rows_of(training=LONG, decoders=["gaussian", "optimal", "shared"], seeds=[0, 1])
    grid = write_grid(training=LONG, decoders=["gaussian", "optimal", "shared"], seeds=[0, 1])
    expected = undisturbed(rows)
    draws, kills = random.Random(0), {"worker": 0, "agent": 0, "node": 0}
    process = command(ray_nodes, grid)
    try:
        while sum(kills.values()) < 100:
            time.sleep(draws.uniform(0.2, 6))
            if process.poll() is not None:
                told = process.communicate()[1]
                assert process.returncode in (0, 1), told
                # Some of it is to be done again.
                for folder in sorted(Path("results/small/runs").glob("*/*"))[::2]:
                    shutil.rmtree(folder)
                process = command(ray_nodes, grid)
                continue
            kind = draws.choice(["worker", "worker", "agent", "agent", "node"])
            if kind == "node":
                ray_nodes.kill(draws.choice(list(ray_nodes.by_address)))
                ray_nodes.add()
            else:
                found = ray_nodes.workers() if kind == "worker" else ray_nodes.agents()
                if not found:
                    continue
                with contextlib.suppress(ProcessLookupError):
                    os.kill(draws.choice(found), signal.SIGKILL)
            kills[kind] += 1
        process.communicate(timeout=600)
        for _ in range(3):  # a run that lost its worker three times in a row is tried again
            process = command(ray_nodes, grid)
            told = process.communicate(timeout=600)[1]
            if process.returncode == 0:
                break
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert process.returncode == 0, told
    assert min(kills.values()) > 5
    assert written(rows) == expected
