"""Time and memory of a large finished grid grow with its runs, not with their square."""

import json
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.execution.chains import BY_HAND
from bench.files import checksum
from bench.grid.expand import Row
from bench.records.frame import load
from bench.records.store import Store, new_record

ROOT = Path(__file__).resolve().parents[2]
SEEDS = 5
SMALL, GROWTH = 400, 4
"""Runs of the smaller grid, and how many times as many the larger one has."""

SLACK = 1.5
"""What a linear cost may miss the growth by; a quadratic one would be `GROWTH` times as high."""


def size(runs: int) -> dict[str, object]:
    """The keys of a grid of so many runs."""
    betas = np.geomspace(0.001, 10, runs // SEEDS)
    decoders = [{"name": "beta", "beta": float(f"{beta:.5g}")} for beta in betas]
    return {"decoders": decoders, "seeds": list(range(SEEDS)), "name": f"of-{runs}"}


def finish(rows: list[Row], store: Store, scatter: int) -> None:
    """Write a record of the reference's shape for each run; its numbers scatter at random."""
    shape = next(
        record
        for record in Store(ROOT / "results" / "reference" / "quick").records()
        if record["run"]["decoder"]["name"] == "optimal"
    )
    draws = np.random.default_rng(scatter)
    for run in (run for row in rows for run in row.runs):
        factors = draws.normal(1, 0.01, len(shape["metrics"])).tolist()
        scattered = zip(shape["metrics"].items(), factors, strict=True)
        record = {
            **shape,
            **{key: new_record(run, BY_HAND)[key] for key in ("id", "run")},
            "metrics": {name: value * factor for (name, value), factor in scattered},
            "cost": {**shape["cost"], "seconds": 1.0 + scatter},
        }
        folder = store.run_folder(run)
        folder.mkdir(parents=True)
        # Not `write_checked`, which waits for the disk.
        (folder / "record.json").write_text(json.dumps({**record, "checksum": checksum(record)}))


@pytest.fixture
def grids(
    write_grid: Callable[..., Path], expand: Callable[..., list[Row]], tmp_path: Path
) -> dict[int, Path]:
    """The files of two finished grids by their runs; `one` and `other` hold results of both."""
    files = {}
    for runs in (SMALL, GROWTH * SMALL):
        rows = expand(**size(runs))
        for scatter, results in enumerate(("one", "other")):
            finish(rows, Store(tmp_path / results / f"of-{runs}"), scatter)
        files[runs] = write_grid(**size(runs)).rename(tmp_path / f"{runs}.yaml")
    return files


@pytest.mark.slow
def test_time_grows_with_the_runs(
    grids: dict[int, Path], tmp_path: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    def commands(runs: int) -> dict[str, tuple[object, ...]]:
        results = ("--results", tmp_path / "one")
        formats = ("--out", tmp_path / "reports", "--format", "csv,markdown,latex")
        folders = (tmp_path / side / f"of-{runs}" for side in ("one", "other"))
        return {
            "dry run": ("run", grids[runs], *results, "--device", "cpu", "--dry-run"),
            "status": ("status", grids[runs], *results, "--device", "cpu"),
            "run": ("run", grids[runs], *results, "--device", "cpu"),
            "report": ("report", grids[runs], *results, *formats),
            "compare": ("compare", *folders),
        }

    def seconds(words: tuple[object, ...]) -> float:
        start = time.process_time()
        code, _, told = call(*words)
        assert code == 0, told
        return time.process_time() - start

    for what, words in commands(SMALL).items():
        seconds(words)  # imports
        # The least of several: what else the machine does only adds.
        few, many = (
            min(seconds(commands(runs)[what]) for _ in range(3)) for runs in (SMALL, GROWTH * SMALL)
        )
        assert many < SLACK * GROWTH * few, (what, few, many)


def test_a_frame_takes_less_memory_than_the_records(
    expand: Callable[..., list[Row]], tmp_path: Path
) -> None:
    """Records are not kept until the frame is made."""
    store = Store(tmp_path / "grid")
    finish(expand(**size(SMALL)), store, 0)
    load([store.folder])  # imports
    tracemalloc.start()
    try:
        load([store.folder])
        frame = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        assert len(list(store.records())) == SMALL
        records = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert frame < records
