"""What goes wrong while a grid runs: killed processes, a full disk, memory that runs out."""

import contextlib
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.records.store import Record, Store
from tests.bench.execution.invocation import Invocation

Write = Callable[..., Path]
Start = Callable[..., "subprocess.Popen[str]"]
StartWarm = Callable[..., Invocation]
Found = Callable[[Path], dict[str, Record]]


OPTIONS = {
    "optimizer": "adamw",
    "warm_up": 30,
    "schedule": "cosine",
    "clip": 200.0,
    "skip": 1e4,
    "ema": 0.99,
    "flips": True,
    "dequantise": True,
}
"""What a training remembers from step to step: all of it must be in the checkpoint."""


def family(process: Invocation) -> list[int]:
    """The invocation and what it has started."""
    with contextlib.suppress(OSError):
        listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        return [process.pid, *map(int, listed.split())]
    return [process.pid]


def kill_at_random(
    write_grid: Write,
    tmp_path: Path,
    start_warm: StartWarm,
    found: Found,
    kills: int,
    seeds: int,
    steps: int,
) -> None:
    """SIGKILLs at random times to workers and invocations change no number and lose no record."""
    grid = write_grid(
        decoders=["gaussian", "optimal", "shared", "per_pixel"],
        seeds=list(range(seeds)),
        training={**OPTIONS, "steps": steps, "batch": 10, "precision": "float32"},
    )
    assert start_warm(grid, tmp_path / "whole", jobs=2).wait(300) == 0
    expected = found(tmp_path / "whole")
    assert len(expected) == 4 * seeds

    draws = random.Random(kills)
    results, done = tmp_path / "killed", 0
    process = start_warm(grid, results, jobs=2)
    while done < kills:
        time.sleep(draws.uniform(0.1, steps / 100))
        if process.poll() is None:
            # Half of the time everything, else one process of the three or four.
            with contextlib.suppress(ProcessLookupError):
                if draws.random() < 0.5:
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    os.kill(draws.choice(family(process)), signal.SIGKILL)
                done += 1
        if process.poll() is not None:
            finished = len(found(results)) == len(expected)
            process.communicate()
            if finished and process.returncode == 0:
                # Finished before it was killed often enough: some of it is to be done again.
                for folder in Store(results / "small").run_folders()[::2]:
                    shutil.rmtree(folder)
            process = start_warm(grid, results, jobs=2)
    process.communicate()
    # A run that lost its worker three times in a row counts as failed, and is tried again.
    for _ in range(3):
        process = start_warm(grid, results, jobs=2)
        told = process.communicate(timeout=300)[1]
        if process.returncode == 0:
            break
    assert process.returncode == 0, told
    assert found(results) == expected
    folders = Store(results / "small").run_folders()
    assert {folder.name for folder in folders} == set(expected)
    for folder in folders:
        # What is removed after the record was written may have outlived its owner.
        left = {path.name for path in folder.iterdir()} - {"checkpoint.pt", ".lease"}
        whole = Store(tmp_path / "whole" / "small").folder_of(folder.name)
        assert left == {path.name for path in whole.iterdir()}


def test_random_kills_change_nothing(
    write_grid: Write, tmp_path: Path, start_warm: StartWarm, found: Found
) -> None:
    kill_at_random(write_grid, tmp_path, start_warm, found, kills=4, seeds=1, steps=100)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_fifty_random_kills_over_twenty_runs_change_nothing(
    write_grid: Write, tmp_path: Path, start_warm: StartWarm, found: Found
) -> None:
    kill_at_random(write_grid, tmp_path, start_warm, found, kills=50, seeds=5, steps=250)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 20 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(disk)], capture_output=True
    )
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_stops_the_grid_and_costs_nothing_finished(
    write_grid: Write, tmp_path: Path, start_warm: StartWarm, found: Found, small_disk: Path
) -> None:
    grid = write_grid(
        decoders=["optimal"],
        seeds=list(range(7)),
        models=[{"name": "conv_vae", "width": 28, "latent": 3}],
        training={"epochs": 1, "batch": 70, "precision": "float32"},
    )
    process = start_warm(grid, small_disk, jobs=2)
    told = process.communicate(timeout=120)[1]
    assert process.returncode == 1
    assert "Traceback" not in told
    last = re.fullmatch(
        r"sigma-bench: the disk is full; small: (\d+) runs done, 0 failed, 0 diverged, (\d+) left, "
        r"\d+ computed now; make room for .*, then the same command goes on where it stopped",
        told.splitlines()[-1],
    )
    assert last is not None, told
    finished = found(small_disk)
    assert 1 < len(finished) == int(last[1])
    assert int(last[1]) + int(last[2]) == 7
    times = {
        path: path.stat().st_mtime_ns for path in small_disk.glob("small/runs/*/*/record.json")
    }

    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    process = start_warm(grid, small_disk, jobs=2)
    told = process.communicate(timeout=120)[1]
    assert process.returncode == 0, told
    again = found(small_disk)
    assert len(again) == 7
    assert {key: again[key] for key in finished} == finished
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())


def test_a_worker_beyond_its_memory_is_reported_and_the_grid_goes_on(
    write_grid: Write, tmp_path: Path, start: Start, found: Found
) -> None:
    """The wide network's weights alone are more than the limit; the narrow one hardly counts."""
    limit = 3 << 30
    grid = write_grid(
        models=[
            {"name": "conv_vae", "width": 1024, "latent": 3},
            {"name": "conv_vae", "width": 2, "latent": 3},
        ],
        decoders=["optimal"],
    )
    process = start(
        grid,
        tmp_path / "r",
        before=lambda: resource.setrlimit(resource.RLIMIT_DATA, (limit, limit)),
    )
    told = process.communicate(timeout=120)[1]
    assert process.returncode == 1, told
    large, small = sorted(
        found(tmp_path / "r").values(), key=lambda record: -record["run"]["model"]["width"]
    )
    assert small["status"] == "completed"
    assert large["status"] == "failed"
    assert large["failure"]["type"] == "OutOfMemory"
    assert re.match(
        r"memory ran out at a peak of \d+\.\d GiB .* try fewer --jobs", large["failure"]["message"]
    )
    assert "1 run done, 1 failed, 0 diverged, 0 left" in told.splitlines()[-1]
    assert "the same command tries the failed ones again" in told.splitlines()[-1]
