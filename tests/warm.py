"""Worker processes of the tests: forks of one process that has imported what every worker imports.

A spawned worker of the engine `local` spends most of a small run's time on its imports. These have
memory of their own and die by signals as well. Where the start itself is the subject, a test runs
`sigma-bench` in a new process, or uses the fixture `spawned`.
"""

import multiprocessing
import os
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


class _Process(ForkServerProcess):
    """A process with the environment and folder that its parent has when it is started."""

    def start(self) -> None:
        self.environment, self.folder = dict(os.environ), Path.cwd()
        with pytest.MonkeyPatch.context() as patch:
            # The server imports this checkout, with a thread for each library's pool.
            patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
            for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
                patch.setenv(name, "1")
            forkserver.ensure_running()
        super().start()

    def run(self) -> None:
        os.environ.clear()
        os.environ.update(self.environment)
        os.chdir(self.folder)
        super().run()


class Warm(ForkServerContext):
    """Starts its processes in tens of milliseconds, after the first one."""

    Process = _Process

    def __init__(self) -> None:
        super().__init__()
        self.set_forkserver_preload(["torch._dynamo", "bench.execution.worker"])


WARM = Warm()

FORKED = multiprocessing.get_context("fork")
"""How a process that is warm, and neither computes nor has threads, starts workers of its own."""
