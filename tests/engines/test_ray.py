"""The engine `ray` on a cluster of this machine: whatever happens, the files are those of `local`.

The nodes see neither this process's folder nor its cache; see `HERE`.
"""

import contextlib
import io
import itertools
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from rich.console import Console

from bench import plugins
from bench.devices import DeviceClass
from bench.errors import RequestError
from bench.execution.engine import find_engine
from bench.execution.listeners import Listener
from bench.execution.messages import Resources
from bench.execution.outcome import Outcome
from bench.execution.ray import RayCluster
from bench.execution.schedule import execute
from bench.grid.expand import Row, expand
from bench.grid.read import read_grid
from bench.records.store import Record, Store
from bench.run import Run
from tests.engines.ray_cluster import INSTALLED, OWN, ROOT, Nodes, until
from tests.loopback import HERE
from tests.undisturbed import Left, Undisturbed, left

pytestmark = [
    pytest.mark.skipif(not INSTALLED, reason='Ray is not installed; the extra "ray" has it'),
    pytest.mark.timeout(600),
]

PLUGIN = '''
from baselines.decoders.gaussian import UnitGaussian
from baselines.options import decoder


@decoder("mine")
class Mine(UnitGaussian):
    """Another name."""
'''

LONG = {"epochs": 60, "batch": 10, "precision": "float32"}
"""Of some seconds, so that there is something to disturb."""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    made = Nodes(tmp_path_factory.mktemp("nodes"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


@pytest.fixture
def nodes(cluster: Nodes) -> Nodes:
    """The cluster with two nodes of one processor."""
    cluster.only(2)
    return cluster


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """This process's working folder, with images and a plugin of its own."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    ramp = np.linspace(0.2, 0.8, 28)
    images = np.add.outer(ramp, ramp) / 2 + rng.normal(0, 0.05, (300, 28, 28))
    np.savez(tmp_path / "tiny.npz", images=(images.clip(0, 1) * 255).round().astype(np.uint8))
    (tmp_path / "mine.py").write_text(PLUGIN)
    yield tmp_path
    plugins.forget()


def write_grid(**changes: Any) -> Path:
    content = {
        "name": "small",
        "datasets": [f"npz:{HERE}/tiny.npz"],
        "models": [{"name": "conv_vae", "width": 2, "latent": 3}],
        "decoders": ["gaussian", "optimal"],
        "seeds": [0],
        "training": {"epochs": 2, "batch": 70, "precision": "float32"},
        "evaluation": {"samples": 0, "iwae": 2, "features": "none"},
        **changes,
    }
    Path("small.yaml").write_text(yaml.safe_dump(content))
    return Path("small.yaml")


def rows_of(**changes: Any) -> list[Row]:
    grid = read_grid(str(write_grid(**changes)))
    return expand(grid, device="cpu", features=None, prepare=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    return Undisturbed(tmp_path_factory.mktemp("undisturbed"))


def written(rows: list[Row]) -> Left:
    """What a grid has left in this process's folder of results, which no agent sees."""
    store = Store(HERE / "results" / "small")
    found = left(rows, store)
    assert {record["id"] for record in store.records()} == set(found)
    return found


def options(nodes: Nodes) -> list[str]:
    return ["--engine", f"ray:{nodes.address}", "--engine-option", f"node_ip_address={OWN}"]


def go(
    rows: list[Row], nodes: Nodes, listeners: Sequence[Listener] = (), device: str = "cpu"
) -> tuple[Outcome, str]:
    text = io.StringIO()
    store, console = Store.open(HERE / "results", "small"), Console(file=text, width=400)
    launch = find_engine(f"ray:{nodes.address}", [f"node_ip_address={OWN}"], 0.0)
    devices = [DeviceClass(device)]
    outcome = execute(rows, store, "small", devices, None, console, listeners, launch=launch)
    return outcome, text.getvalue()


def command(nodes: Nodes, grid: Path) -> "subprocess.Popen[str]":
    """`sigma-bench run` on the cluster, as the head of a process group."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "bench", "run", str(grid), "--results", f"{HERE}/results"),
            *("--device", "cpu", "--checkpoint-every", "0", *options(nodes)),
        ],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        },
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@contextlib.contextmanager
def running(nodes: Nodes, grid: Path) -> Iterator["subprocess.Popen[str]"]:
    """The same; what is left of it at the end is killed."""
    process = command(nodes, grid)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def checkpoints() -> list[Path]:
    return list(Path("results/small/runs").glob("*/*/checkpoint.pt"))


# -- a day without incidents -------------------------------------------------------------------


def test_own_images_and_a_plugin_that_no_node_can_see(
    nodes: Nodes, undisturbed: Undisturbed
) -> None:
    rows = rows_of(plugins=[f"{HERE}/mine.py"], decoders=["mine", "optimal"], seeds=[0, 1])
    outcome, told = go(rows, nodes)
    assert outcome.well, told
    assert outcome.new == 4
    assert written(rows) == undisturbed(rows)
    # As many processors as nodes, and each had to be sent the images.
    kept = nodes.folder.glob("127*/cache/data/content-*.npy")
    assert {path.parents[2].name for path in kept} >= set(nodes.by_address)


def test_a_fraction_of_a_gpu_is_a_place(nodes: Nodes) -> None:
    address = nodes.add(num_gpus=2, num_cpus=8)
    resources = Resources(
        [DeviceClass.CUDA], 0, per_gpu=2,
        address=nodes.address, options={"node_ip_address": OWN},
    )  # fmt: skip
    cluster = RayCluster(resources)
    try:
        assert cluster.places() == 4
        links = [cluster.place() for _ in range(5)]
        waiting = {link: link.actor.call.remote("close") for link in links}
        ready, _ = cluster.ray.wait(list(waiting.values()), num_returns=4, timeout=60)
        assert len(ready) == 4
        assert cluster.ray.wait(list(waiting.values()), num_returns=5, timeout=2)[1]
        placed = [link for link in links if waiting[link] in ready]
        placed[0].end()
        ready, _ = cluster.ray.wait(
            [reference for link, reference in waiting.items() if link not in placed],
            timeout=60,
        )
        assert len(ready) == 1
    finally:
        cluster.close()
        nodes.kill(address)


def test_a_node_without_a_gpu_is_refused_for_cuda(nodes: Nodes) -> None:
    address = nodes.add(num_gpus=1)
    try:
        with pytest.raises(RequestError, match="no node can be used: it has no CUDA device"):
            go(rows_of(), nodes, device="cuda")
    finally:
        nodes.kill(address)


def test_another_digest_is_refused_and_the_others_go_on(
    nodes: Nodes, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    other = tmp_path / "other"
    for package in ("bench", "baselines"):
        shutil.copytree(ROOT / package, other / package)
    with (other / "bench" / "text.py").open("a") as file:
        file.write("# edited\n")
    address = nodes.add(first_on_path=str(other))
    try:
        rows = rows_of(seeds=[0, 1])
        outcome, told = go(rows, nodes)
        assert outcome.well, told
        assert told.count(f"node {address}") == 1
        assert "is not used: its code is not that of this machine" in told
        assert written(rows) == undisturbed(rows)
    finally:
        nodes.kill(address)


def test_no_cluster_is_one_line() -> None:
    launch = find_engine("ray:127.0.0.2:1")
    with pytest.raises(RequestError, match=r"no cluster at '127\.0\.0\.2:1' can be used"):
        launch(Store(HERE), Resources([DeviceClass.CPU], 0))


def test_an_option_that_ray_does_not_know(nodes: Nodes) -> None:
    launch = find_engine(f"ray:{nodes.address}", ["colour=red"])
    with pytest.raises(RequestError, match=r"--engine-option: Ray takes no such option .*colour"):
        launch(Store(HERE), Resources([DeviceClass.CPU], 0))


# -- incidents ---------------------------------------------------------------------------------


class Once(Listener):
    """Calls `action` when both runs are under way."""

    def __init__(self, action: Callable[[], object]) -> None:
        self.action, self.seen, self.done = action, set[str](), False

    def epoch(self, run: Run, line: dict[str, float]) -> None:
        self.seen.add(run.id)
        if len(self.seen) == 2 and not self.done:
            self.done = True
            self.action()


def test_a_node_is_killed_and_a_new_one_joins(nodes: Nodes, undisturbed: Undisturbed) -> None:
    rows = rows_of(training=LONG)

    def incident() -> None:
        nodes.kill(next(iter(nodes.by_address)))
        nodes.add()

    once = Once(incident)
    outcome, told = go(rows, nodes, [once])
    assert once.done
    assert outcome.well, told
    assert told.count("its worker was taken away") == 1
    assert written(rows) == undisturbed(rows)


def test_a_drained_node_gives_its_checkpoint_back(nodes: Nodes, undisturbed: Undisturbed) -> None:
    rows = rows_of(training=LONG)
    address = next(iter(nodes.by_address))

    def incident() -> None:
        nodes.add()
        nodes.drain(address)

    once = Once(incident)
    outcome, told = go(rows, nodes, [once])
    assert once.done
    assert outcome.well, told
    assert told.count(f"its worker was taken away, node {address}") == 1
    assert "is being taken away (1 times so far)" in told
    assert written(rows) == undisturbed(rows)
    nodes.kill(address)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_parent_is_ended_and_the_same_command_goes_on(
    number: signal.Signals, nodes: Nodes, undisturbed: Undisturbed
) -> None:
    rows = rows_of(training=LONG)
    grid = write_grid(training=LONG)
    with running(nodes, grid) as process:
        until(lambda: len(checkpoints()) == 2, 90, "both runs have a checkpoint here")
        process.send_signal(number)
        told = process.communicate(timeout=60)[1]
    if number == signal.SIGINT:
        assert process.returncode == 130, told
        assert "2 left" in told
    assert len(checkpoints()) == 2
    until(lambda: not nodes.agents(), 30, "Ray ends the actors of a driver that is gone")
    assert nodes.workers() == []
    with running(nodes, grid) as process:
        told = process.communicate(timeout=120)[1]
    assert process.returncode == 0, told
    assert written(rows) == undisturbed(rows)


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


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_what_the_engine_costs(nodes: Nodes, capsys: pytest.CaptureFixture[str]) -> None:
    nodes.only(1)
    gaps: dict[str, list[float]] = {"local": [], "ray": []}
    for block in range(3):
        rows = rows_of(seeds=list(range(10 * block, 10 * block + 10)), decoders=["optimal"])
        for name in gaps:
            watch = Stopwatch()
            if name == "ray":
                go(rows, nodes, [watch])
            else:
                store = Store.open(HERE / "local", "small")
                execute(rows, store, "small", ["cpu"], 1, Console(file=io.StringIO()), [watch])
            gaps[name] += watch.gaps
    medians = {name: statistics.median(found) for name, found in gaps.items()}
    nodes.only(3)
    watch = Stopwatch()
    outcome, _ = go(rows_of(seeds=list(range(100, 300)), decoders=["optimal"]), nodes, [watch])
    assert outcome.well
    share = sum(watch.spent[3:]) / (3 * (watch.times[-1] - watch.times[2]))
    with capsys.disabled():
        told = ", ".join(f"{name} {1000 * gap:.0f} ms" for name, gap in medians.items())
        print(f"between two runs: {told}; 200 runs on 3 nodes: workers compute {share:.0%}")
    assert medians["ray"] - medians["local"] < 0.5
    assert share > 0.5


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_hundred_random_kills_change_nothing(nodes: Nodes, undisturbed: Undisturbed) -> None:
    """SIGKILLs to workers, agents and nodes; a node that was killed is replaced by a new one."""
    rows = rows_of(training=LONG, decoders=["gaussian", "optimal", "shared"], seeds=[0, 1])
    grid = write_grid(training=LONG, decoders=["gaussian", "optimal", "shared"], seeds=[0, 1])
    expected = undisturbed(rows)
    draws, kills = random.Random(0), {"worker": 0, "agent": 0, "node": 0}
    process = command(nodes, grid)
    try:
        while sum(kills.values()) < 100:
            time.sleep(draws.uniform(0.2, 6))
            if process.poll() is not None:
                told = process.communicate()[1]
                assert process.returncode in (0, 1), told
                # Some of it is to be done again.
                for folder in sorted(Path("results/small/runs").glob("*/*"))[::2]:
                    shutil.rmtree(folder)
                process = command(nodes, grid)
                continue
            kind = draws.choice(["worker", "worker", "agent", "agent", "node"])
            if kind == "node":
                nodes.kill(draws.choice(list(nodes.by_address)))
                nodes.add()
            else:
                found = nodes.workers() if kind == "worker" else nodes.agents()
                if not found:
                    continue
                with contextlib.suppress(ProcessLookupError):
                    os.kill(draws.choice(found), signal.SIGKILL)
            kills[kind] += 1
        process.communicate(timeout=600)
        for _ in range(3):  # a run that lost its worker three times in a row is tried again
            process = command(nodes, grid)
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
