"""A Ray cluster on loopback addresses, whose nodes come, go and are killed."""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

INSTALLED = importlib.util.find_spec("ray") is not None

OWN = "127.0.0.2"
"""The head's address and the driver's; Ray takes 127.0.0.1 for the interface's."""

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # A dead node is noticed within two seconds.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "500",
    "RAY_health_check_failure_threshold": "4",
}


def until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """What `condition` returns, once that is true."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.1)
    return found


@dataclass
class Nodes:
    """The cluster. A node has a working folder and a cache that no other process here has."""

    folder: Path
    cluster: Any = None
    by_address: dict[str, Any] = field(default_factory=dict)
    last: int = 2

    def start(self) -> None:
        from ray.cluster_utils import Cluster

        self.temporary = Path(tempfile.mkdtemp(prefix="ray-"))  # sockets need a short path
        with self._surroundings("head"):
            self.cluster = Cluster(
                initialize_head=True,
                head_node_args={
                    "node_ip_address": OWN,
                    "num_cpus": 0,
                    "include_dashboard": False,
                    "object_store_memory": 80 << 20,
                    "temp_dir": str(self.temporary),
                },
            )

    def add(self, first_on_path: str = "", **resources: float) -> str:
        """One more node, of one processor unless told otherwise; returns its address."""
        self.last += 1
        address = f"127.0.0.{self.last}"
        with self._surroundings(address, first_on_path):
            self.by_address[address] = self.cluster.add_node(
                node_ip_address=address,
                object_store_memory=80 << 20,
                **{"num_cpus": 1, **resources},
            )
        return address

    def kill(self, address: str) -> None:
        """End a node as a power cut does: its processes, and those that these have started."""
        node = self.by_address.pop(address)
        doomed = [pid for process in processes(node) for pid in (process, *below(process))]
        for pid in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.cluster.remove_node(node, allow_graceful=False)

    def drain(self, address: str) -> None:
        """Announce that a node will be taken away in a minute."""
        subprocess.run(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "drain-node"),
                *("--address", self.cluster.address),
                *("--node-id", self.by_address[address].node_id),
                *("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "test"),
                *("--deadline-remaining-seconds", "60"),
            ],
            check=True,
            capture_output=True,
            timeout=60,
        )

    def only(self, count: int) -> list[str]:
        """Have exactly so many plain nodes, and return their addresses."""
        while len(self.by_address) > count:
            self.kill(next(iter(self.by_address)))
        while len(self.by_address) < count:
            self.add()
        return list(self.by_address)

    def agents(self) -> list[int]:
        """The process ids of the actors that host agents."""
        return [pid for pid in self._below() if b"ray::Host" in command(pid)]

    def workers(self) -> list[int]:
        """The process ids of the workers of all agents."""
        return [pid for agent in self.agents() for pid in below(agent) if is_worker(pid)]

    def _below(self) -> list[int]:
        return [
            pid
            for node in self.by_address.values()
            for own in processes(node)
            for pid in below(own)
        ]

    def stop(self) -> None:
        if self.cluster is not None:
            self.cluster.shutdown()
        shutil.rmtree(self.temporary, ignore_errors=True)

    @contextlib.contextmanager
    def _surroundings(self, name: str, first_on_path: str = "") -> Iterator[None]:
        """The environment and the working folder that a node is started with."""
        folder = self.folder / name
        (folder / "cache").mkdir(parents=True, exist_ok=True)
        path = [first_on_path, str(ROOT), os.environ.get("PYTHONPATH", "")]
        wanted = {
            **SETTINGS,
            "SIGMA_BENCH_CACHE": str(folder / "cache"),
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
        }
        before, here = dict(os.environ), os.getcwd()
        os.environ.update(wanted)
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(here)
            os.environ.clear()
            os.environ.update(before)


def processes(node: Any) -> list[int]:
    """The process ids of a node's own servers."""
    return [info.process.pid for infos in node.all_processes.values() for info in infos]


def below(pid: int) -> list[int]:
    """The processes that one has started, and those that these have."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, task.read_text().split()):
                found += [child, *below(child)]
    return found


def command(pid: int) -> bytes:
    """The command line of a process, empty where it has ended."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def is_worker(pid: int) -> bool:
    """Whether a process computes runs."""
    return b"multiprocessing.spawn" in command(pid)
