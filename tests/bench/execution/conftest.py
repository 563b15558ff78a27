"""Invocations of the command in processes of their own, to be disturbed."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.records.store import Record, Store

Start = Callable[..., "subprocess.Popen[str]"]
Found = Callable[[Path], dict[str, Record]]


@pytest.fixture
def start(session_cache: Path) -> Iterator[Start]:
    """`sigma-bench run GRID` as the head of a process group; whatever is left of it is killed."""
    started = []

    def run(
        grid: Path, results: Path, jobs: int = 1, before: Callable[[], object] = lambda: None
    ) -> "subprocess.Popen[str]":
        def prepare() -> None:
            # A shell's background jobs ignore SIGINT, and their children would.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            before()

        process = subprocess.Popen(
            [sys.executable, "-m", "bench", "run", str(grid), "--results", str(results),
             "--jobs", str(jobs), "--device", "cpu"],
            env={**os.environ, "SIGMA_BENCH_CACHE": str(session_cache)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=prepare,
        )  # fmt: skip
        started.append(process)
        return process

    yield run
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


@pytest.fixture
def found() -> Found:
    """The records of grid `small` under a folder of results, but for what a clock decides."""

    def records(results: Path) -> dict[str, Record]:
        return {
            record["id"]: {k: v for k, v in record.items() if k not in ("cost", "checksum")}
            for record in Store(results / "small").records()
        }

    return records
