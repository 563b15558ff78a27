"""Slurm of two nodes with one processor each, on this machine's loopback alone."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from getpass import getuser
from pathlib import Path

MISSING = [name for name in ("munged", "slurmctld", "slurmd", "sbatch") if not shutil.which(name)]

CONFIGURATION = """
ClusterName=loop
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
KillWait=20
SlurmdTimeout=5
SlurmctldTimeout=30
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=1000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=1000
PartitionName=low Nodes=n[1-2] Default=YES MaxTime=60 PriorityTier=1 PreemptMode=REQUEUE GraceTime=0
PartitionName=high Nodes=n[1-2] MaxTime=60 PriorityTier=10
"""


def until(condition: Callable[[], object], what: str, limit: float = 120.0) -> None:
    """Wait for something to be so."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {limit:g} s"
        time.sleep(0.1)


@dataclass
class Cluster:
    """The servers, their folder, and Slurm's own commands against them."""

    folder: Path
    environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.configuration = self.folder / "slurm.conf"
        self.environment = {**os.environ, "SLURM_CONF": str(self.configuration)}

    def start(self) -> None:
        for name in ("state", "spool.n1", "spool.n2", "munge"):
            (self.folder / name).mkdir(parents=True)
        # munged wants its socket reachable by all, and its key by nobody else.
        for path in (self.folder, self.folder / "munge"):
            path.chmod(0o755)
        key = self.folder / "munge" / "key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o400)
        self.configuration.write_text(
            CONFIGURATION.format(
                host=socket.gethostname(), user=getuser(), folder=self.folder, ports=_free_ports(3)
            )
        )
        munge = self.folder / "munge"
        paths = {"key": "key", "pid": "pid", "log": "log", "seed": "seed"}
        self.run(
            "munged", "--force", f"--socket={munge}/socket",
            *(f"--{option}-file={munge}/{name}" for option, name in paths.items()),
        )  # fmt: skip
        self.start_controller()
        self.ready()

    def start_controller(self) -> None:
        self.run("slurmctld", "-c")  # without the jobs of an earlier life

    def ready(self) -> None:
        """Start the nodes that are down, and wait until both have nothing to do."""
        for node in ("n1", "n2"):
            if _pid(self.folder / f"slurmd.{node}.pid") is None:
                self.run("slurmd", "-N", node)
        until(self._idle, "two idle nodes")

    def _idle(self) -> bool:
        told = self.run("sinfo", "--noheader", "--partition=low", "--format=%D %t").stdout
        return told.split() == ["2", "idle"]

    def stop(self) -> None:
        """End everything that was started here, and what that has started."""
        with contextlib.suppress(subprocess.SubprocessError):
            self.run("scancel", f"--user={getuser()}")
        names = ("slurmd.n1.pid", "slurmd.n2.pid", "slurmctld.pid", "munge/pid")
        servers = {pid for name in names if (pid := _pid(self.folder / name)) is not None}
        for pid in servers | set(self.processes("SLURM_CONF", str(self.configuration))):
            kill(pid)

    def run(self, *words: str, stdin: str = "") -> "subprocess.CompletedProcess[str]":
        # Files, not pipes: a server that goes to the background keeps them open.
        with (self.folder / "out").open("w+") as out, (self.folder / "err").open("w+") as err:
            subprocess.run(
                words, env=self.environment, input=stdin, text=True, timeout=30, check=True,
                stdout=out, stderr=err,
            )  # fmt: skip
            out.seek(0)
            return subprocess.CompletedProcess(words, 0, out.read())

    def jobs(self) -> list[tuple[str, str, str]]:
        """The name, state and node of each element of an array that has not ended."""
        told = self.run("squeue", "--noheader", "--array", "--format=%i|%T|%N").stdout
        return [(name, state, node) for name, state, node in map(_cells, told.splitlines())]

    def kill_controller(self) -> None:
        pid = _pid(self.folder / "slurmctld.pid")
        assert pid is not None
        kill(pid)

    def kill_node(self, node: str) -> None:
        """Let a node vanish: its server and everything that it has started."""
        pid = _pid(self.folder / f"slurmd.{node}.pid")
        assert pid is not None
        work = self.processes("SLURMD_NODENAME", node)
        watchers = {parent for each in work if _read(parent := _parent(each), "cmdline")
                    .startswith("slurmstepd")}  # fmt: skip
        for each in (pid, *watchers, *work):
            kill(each)

    def processes(self, variable: str, value: str) -> list[int]:
        """The processes of this cluster with a variable of the environment."""
        mine, wanted = f"SLURM_CONF={self.configuration}", f"{variable}={value}"
        found = []
        for pid in _processes():
            environment = _read(pid, "environ").split("\0")
            if mine in environment and wanted in environment and pid != os.getpid():
                found.append(pid)
        return found


def kill(pid: int) -> None:
    """SIGKILL, and wait for the process to be gone or a zombie."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    until(lambda: " Z " in (stat := _read(pid, "stat")) or not stat, f"the end of {pid}", 20)


def _cells(line: str) -> list[str]:
    return line.split("|")


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def _read(pid: int, what: str) -> str:
    try:
        return Path(f"/proc/{pid}/{what}").read_text(errors="replace")
    except OSError:  # it has ended meanwhile
        return ""


def _parent(pid: int) -> int:
    return int(_read(pid, "stat").rpartition(")")[2].split()[1] or 0)


def _pid(path: Path) -> int | None:
    """The process that a server's file names, if it lives."""
    try:
        pid = int(path.read_text())
    except (OSError, ValueError):
        return None
    stat = _read(pid, "stat")
    return pid if stat and " Z " not in stat else None


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
