"""Worker processes that are forks of one process which has imported what every worker imports.

A spawned worker of the engine `local` spends most of a small run on its imports. These are processes
as well: they have their own memory, die by signals and are children of nobody here. Where the
start itself is the subject, a test calls `sigma-bench` in a process of its own, or asks for
the fixture `spawned`.
"""

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

    Process = _Process  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.set_forkserver_preload(["torch._dynamo", "bench.execution.worker"])


WARM = Warm()
