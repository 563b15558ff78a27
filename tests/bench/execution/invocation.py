"""`sigma-bench run GRID` as a process that is a fork of the warm one; see `tests/warm.py`."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from bench.cli.app import main
from bench.execution.processes import Pool
from bench.execution.signals import SIGNALS
from tests.warm import FORKED, WARM


def words(grid: Path, results: Path, jobs: int) -> list[str]:
    return [
        "run", str(grid), "--results", str(results), "--jobs", str(jobs), "--device", "cpu"
    ]  # fmt: skip


def interruptible() -> None:
    """A shell's background jobs ignore SIGINT, and their children would."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _invoke(asked: list[str], told: Path) -> None:
    os.setsid()
    interruptible()
    # The warm process was begun while a worker was started, and signals are blocked around that.
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    for path, number in ((Path(os.devnull), 1), (told, 2)):
        with path.open("a") as file:
            os.dup2(file.fileno(), number)
    Pool.context = FORKED
    sys.argv = ["sigma-bench", *asked]
    main()


class Invocation:
    """What `subprocess.Popen` says of a process, for a fork of the warm one; see `tests/warm.py`.

    It is the head of a session, has workers of its own, and dies by signals as others do.
    """

    def __init__(self, asked: list[str], told: Path) -> None:
        told.touch()
        self._told = told
        self._process = WARM.Process(target=_invoke, args=(asked, told))
        self._process.start()
        self.pid = self._process.pid or 0

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired("sigma-bench", timeout or 0)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[None, str]:
        self.wait(timeout)
        return None, self._told.read_text()

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
