"""Signals: noted once, obeyed at the next step, at once the second time."""

import multiprocessing.connection
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.errors import Stopped
from bench.execution.signals import Interruption, Stop
from bench.records.store import Record
from tests.bench.execution.invocation import Invocation

Write = Callable[..., Path]
Start = Callable[..., "subprocess.Popen[str]"]
StartWarm = Callable[..., Invocation]
Found = Callable[[Path], dict[str, Record]]

LAST = (
    r"sigma-bench: interrupted; small: (\d+) runs done, 0 failed, 0 diverged, (\d+) left, "
    r"\d+ computed now; the same command goes on where it stopped"
)


def test_the_first_signal_wakes_a_wait_and_the_second_raises() -> None:
    with Interruption() as interruption:
        assert not multiprocessing.connection.wait([interruption.fileno()], 0)
        os.kill(os.getpid(), signal.SIGTERM)
        assert multiprocessing.connection.wait([interruption.fileno()], 5)
        assert interruption.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_what_is_ignored_stays_ignored() -> None:
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption() as interruption:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not interruption.asked
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, former)


def test_a_worker_leaves_at_once_only_where_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    formers = {number: signal.getsignal(number) for number in (2, 1, 15)}
    try:
        stop = Stop()
        stop.install()
        os.kill(os.getpid(), signal.SIGINT)
        assert not stop.asked  # the parent's to handle
        with pytest.raises(Stopped), stop.at_once():
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked
        with pytest.raises(Stopped), stop.at_once():
            pytest.fail("it was asked before")
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        for number, handler in formers.items():
            signal.signal(number, handler)


def until(condition: Callable[[], object], process: "subprocess.Popen[str] | Invocation") -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


def workers(process: "subprocess.Popen[str]") -> list[int]:
    """The processes that an invocation has started, beside multiprocessing's own tracker."""
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [
        int(child)
        for child in listed
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_ends_a_grid_with_130_and_one_line(
    write_grid: Write, tmp_path: Path, start_warm: StartWarm, number: signal.Signals
) -> None:
    grid = write_grid(decoders=["optimal"], training={"epochs": 400, "batch": 10})
    process = start_warm(grid, tmp_path / "r")
    until(lambda: list(tmp_path.glob("r/small/runs/*/*/checkpoint.pt")), process)
    process.send_signal(number)
    told = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert re.fullmatch(LAST, told.splitlines()[-1])
    assert "Traceback" not in told
    assert not list(tmp_path.glob("r/small/runs/*/*/record.json"))


def test_a_stop_within_an_epoch_keeps_its_steps(
    write_grid: Write, tmp_path: Path, start_warm: StartWarm, found: Found
) -> None:
    """The checkpoint is of a step, not of an epoch, and the run ends as an undisturbed one."""
    grid = write_grid(
        decoders=["optimal", "gaussian"],
        training={"epochs": 1, "batch": 1, "precision": "float32"},
        # Wide, so that a run of one epoch outlasts both signals by seconds.
        models=[{"name": "conv_vae", "width": 12, "latent": 3}],
    )
    assert start_warm(grid, tmp_path / "whole").wait(120) == 0

    results = tmp_path / "stopped"
    for kill in (os.kill, os.killpg):
        for path in results.glob("small/runs/*/*/run.json"):
            path.unlink()  # written anew as each run begins
        process = start_warm(grid, results)
        until(lambda: list(results.glob("small/runs/*/*/run.json")), process)
        time.sleep(0.1)
        kill(process.pid, signal.SIGTERM)
        told = process.communicate(timeout=60)[1]
        assert process.returncode == 130
        assert "Traceback" not in told
        last = re.fullmatch(LAST, told.splitlines()[-1])
        assert last is not None, told
        assert int(last[1]) + int(last[2]) == 2
        assert list(results.glob("small/runs/*/*/checkpoint.pt"))
        histories = results.glob("small/runs/*/*/history.jsonl")
        assert not any(history.read_text() for history in histories)
    assert start_warm(grid, results).wait(120) == 0
    assert found(results) == found(tmp_path / "whole")


def test_a_second_signal_does_not_wait_for_workers(
    write_grid: Write, tmp_path: Path, start: Start
) -> None:
    grid = write_grid(decoders=["optimal"], training={"epochs": 400, "batch": 10})
    process = start(grid, tmp_path / "r")
    until(lambda: list(tmp_path.glob("r/small/runs/*/*/checkpoint.pt")), process)
    (worker,) = workers(process)
    os.kill(worker, signal.SIGSTOP)  # it cannot answer any more
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=30)[1]
    assert process.returncode == 130
    assert re.fullmatch(LAST, told.splitlines()[-1])
    assert not Path(f"/proc/{worker}").exists()
