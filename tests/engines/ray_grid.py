"""A small grid on a Ray cluster, whose nodes see neither this process's folder nor its cache."""

import contextlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console

from bench.devices import DeviceClass
from bench.execution.engine import find_engine
from bench.execution.listeners import Listener
from bench.execution.outcome import Outcome
from bench.execution.schedule import execute
from bench.grid.expand import Row, expand
from bench.grid.read import read_grid
from bench.records.store import Store
from bench.run import Run
from tests.engines.ray_cluster import OWN, ROOT, Nodes
from tests.loopback import HERE
from tests.undisturbed import Left, left

PLUGIN = '''
from baselines.decoders.gaussian import UnitGaussian
from baselines.options import decoder


@decoder("mine")
class Mine(UnitGaussian):
    """Another name."""
'''

LONG = {"epochs": 40, "batch": 10, "precision": "float32"}
"""Of some seconds, so that there is something to disturb."""


def write_own_files(folder: Path) -> None:
    """Images and a plugin of this process's own."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0.2, 0.8, 28)
    images = np.add.outer(ramp, ramp) / 2 + rng.normal(0, 0.05, (300, 28, 28))
    np.savez(folder / "tiny.npz", images=(images.clip(0, 1) * 255).round().astype(np.uint8))
    (folder / "mine.py").write_text(PLUGIN)


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


class Once(Listener):
    """Calls `action` when both runs are under way."""

    def __init__(self, action: Callable[[], object]) -> None:
        self.action, self.seen, self.done = action, set[str](), False

    def epoch(self, run: Run, line: dict[str, float]) -> None:
        self.seen.add(run.id)
        if len(self.seen) == 2 and not self.done:
            self.done = True
            self.action()
