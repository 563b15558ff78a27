"""A Ray cluster on loopback addresses, whose nodes come, go and are killed."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

INSTALLED = find_spec("ray") is not None

OWN = "127.0.0.2"
"""The head's address and the driver's; Ray takes 127.0.0.1 for the interface's."""

SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # A dead node is noticed within seconds, and a slow one is not taken for dead.
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "8",
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
    port: int = 0
    by_address: dict[str, "subprocess.Popen[str]"] = field(default_factory=dict)
    last: int = 2

    @property
    def address(self) -> str:
        return f"{OWN}:{self.port}"

    def start(self) -> None:
        self.temporary = Path(tempfile.mkdtemp(prefix="ray-"))  # sockets need a short path
        self.port = free_port()
        # Where gRPC is installed, Ray starts a server for its clients at a fixed port.
        client = [f"--ray-client-server-port={free_port()}"] if find_spec("grpc") else []
        self.head = self._start(
            OWN, "--head", f"--port={self.port}", *client,
            "--num-cpus=0", "--include-dashboard=false", f"--temp-dir={self.temporary}",
        )  # fmt: skip

    def add(self, first_on_path: str = "", num_cpus: int = 1, num_gpus: int = 0) -> str:
        """One more node, of one processor unless told otherwise; returns its address."""
        self.last += 1
        address = f"127.0.0.{self.last}"
        self.by_address[address] = self._start(
            address, f"--address={self.address}", f"--num-cpus={num_cpus}",
            f"--num-gpus={num_gpus}", "--dashboard-agent-listen-port=0",
            first_on_path=first_on_path,
        )  # fmt: skip
        return address

    def _start(self, address: str, *words: str, first_on_path: str = "") -> "subprocess.Popen[str]":
        folder = self.folder / address
        (folder / "cache").mkdir(parents=True)
        path = [first_on_path, str(ROOT), os.environ.get("PYTHONPATH", "")]
        with (folder / "log").open("w") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block"),
                    *("--disable-usage-stats", "--object-store-memory=80000000"),
                    *(f"--node-ip-address={address}", *words),
                ],
                cwd=folder,
                env={
                    **os.environ,
                    **SETTINGS,
                    "SIGMA_BENCH_CACHE": str(folder / "cache"),
                    "PYTHONPATH": os.pathsep.join(filter(None, path)),
                },
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        until(
            lambda: "--block" in (folder / "log").read_text() or process.poll() is not None,
            90,
            f"the node {address} is up",
        )
        assert process.poll() is None, (folder / "log").read_text()
        return process

    def kill(self, address: str) -> None:
        """End a node as a power cut does."""
        kill_family(self.by_address.pop(address))

    def drain(self, address: str) -> None:
        """Announce that a node will be taken away in a minute; the driver is this process."""
        import ray

        (node,) = (one for one in ray.nodes() if one["NodeManagerAddress"] == address)
        subprocess.run(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "drain-node"),
                *("--address", self.address, "--node-id", node["NodeID"]),
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

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """A block in which no worker computes, so that no run ends before what the block does."""
        workers = self.workers()
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in workers:
                os.kill(pid, signal.SIGCONT)

    def _below(self) -> list[int]:
        return [pid for node in self.by_address.values() for pid in below(node.pid)]

    def stop(self) -> None:
        for process in (*self.by_address.values(), self.head):
            kill_family(process)
        shutil.rmtree(self.temporary, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((OWN, 0))
        return int(probe.getsockname()[1])


def kill_family(process: "subprocess.Popen[str]") -> None:
    """Kill a process with all that it has started."""
    for pid in (process.pid, *below(process.pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


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
