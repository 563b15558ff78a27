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
from tests.bench.execution.invocation import Invocation, interruptible, words

Start = Callable[..., "subprocess.Popen[str]"]
StartWarm = Callable[..., Invocation]
Found = Callable[[Path], dict[str, Record]]


@pytest.fixture
def start_warm(tmp_path: Path) -> Iterator[StartWarm]:
    """`sigma-bench run GRID`, warm; whatever is left of it is killed."""
    started: list[Invocation] = []

    def run(grid: Path, results: Path, jobs: int = 1) -> Invocation:
        told = tmp_path / f"told{len(started)}"
        started.append(Invocation(words(grid, results, jobs), told))
        return started[-1]

    yield run
    for invocation in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(invocation.pid, signal.SIGKILL)
        invocation.wait()


@pytest.fixture
def start(session_cache: Path) -> Iterator[Start]:
    """`python -m bench run GRID` as the head of a session; whatever is left of it is killed."""
    started: list[subprocess.Popen[str]] = []

    def run(
        grid: Path, results: Path, jobs: int = 1, before: Callable[[], object] = lambda: None
    ) -> "subprocess.Popen[str]":
        def prepare() -> None:
            interruptible()
            before()

        process = subprocess.Popen(
            [sys.executable, "-m", "bench", *words(grid, results, jobs)],
            env={**os.environ, "SIGMA_BENCH_CACHE": str(session_cache)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=prepare,
        )
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
